"""Evaluation of a model on token shards: every task, corpus-level, pooled over languages and broken down below.

A metric's key is its place in a nested dictionary: `asr.by_lang.en.wer`. Each task is one function that returns its
metrics and the examples that the report shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from unitok.requests.request import Request, seeded
from unitok.results import Result
from unitok.task_model import CHAIN, OUT_UNITS
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import Plan, Span
from unitok_tokenizers.progress import advance, part_of_work
from unitok_training.evaluation.by_ears import about_ears, put_ears
from unitok_training.evaluation.language import evaluate_interleaved, evaluate_speech_lm, evaluate_text_lm
from unitok_training.evaluation.metrics import bleu, bleu_label
from unitok_training.evaluation.resynthesis import evaluate_resynthesis
from unitok_training.evaluation.run import (
    Evaluation,
    Example,
    put_error_rates,
    put_translation_scores,
)
from unitok_training.evaluation.tokens import evaluate_tokens

# -- reading ----------------------------------------------------------------------------------------------------


def evaluate_asr(run: Evaluation) -> None:
    """Recognition from units (held-out and known voices) and from codes."""
    for key, split, column in (
        ("asr", run.split, "units"),
        ("asr.seen_voices", run.seen_split, "units"),
        ("asr.codes", run.split, "codes"),
    ):
        rows = run.rows(split, column, "text_ids")
        if not rows:
            continue
        spans = [Span(column, run.shards.codes(row) if column == "codes" else run.cell(column, row)) for row in rows]
        plans = [Plan("asr", run.lang(row), conditions=(span,)) for row, span in zip(rows, spans)]
        results = run.model.run([Request(plan=plan) for plan in plans])
        pairs = [(run.lang(row), run.text(row), result.text or "") for row, result in zip(rows, results)]
        put_error_rates(run, key, pairs)
        if key == "asr":
            for row, (_, reference, output) in list(zip(rows, pairs))[:5]:
                run.examples.append(Example("asr", reference, output, reference_audio=run.sound(row)))


def evaluate_translation(run: Evaluation) -> None:
    """Text and speech translation."""
    for key, split, task, column in (
        ("mt", run.split, "mt", "text_ids"),
        ("s2tt", run.split, "s2tt", "units"),
        ("s2tt.seen_voices", run.seen_split, "s2tt", "units"),
    ):
        pairs = run.pairs(split, column, "text_ids")
        if not pairs:
            continue
        kind = "text" if column == "text_ids" else "units"
        plans = [Plan(task, run.lang(a), run.lang(b), conditions=(Span(kind, run.cell(column, a)),)) for a, b in pairs]
        results = run.model.run([Request(plan=plan) for plan in plans])
        triples = [
            (f"{run.lang(a)}-{run.lang(b)}", run.text(b), result.text or "") for (a, b), result in zip(pairs, results)
        ]
        put_translation_scores(run, key, triples)
        if "seen" not in key:
            for (a, _), (label, reference, output) in list(zip(pairs, triples))[:5]:
                sound = run.sound(a) if kind == "units" else None
                run.examples.append(
                    Example(key, reference, output, source=f"{label}: {run.text(a)}", reference_audio=sound)
                )


# -- speaking ---------------------------------------------------------------------------------------------------


def evaluate_speech(run: Evaluation) -> None:
    """Synthesis through units and through codes, read by the judge and by ears."""
    if (run.judge is None and run.ears is None) or run.model.vocoder is None:
        return
    rows = run.rows(run.split, "text_ids")
    voices: list[str | None] = list(run.model.voices) or [None]
    for output in [kind for kind in ("units", "codes") if run.model.can_speak(kind)]:
        asked = [voices[index % len(voices)] for index in range(len(rows))]
        requests = [
            run.model.synthesis_request(run.text(row), lang=run.lang(row), voice=voice, output=output)
            for row, voice in zip(rows, asked)
        ]
        results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling(output))
        heard = [_audio(result) for result in results]
        read = _read_by_judge(run, f"tts.{output}", rows, heard, asked)
        cut = [result.finish_reason == "length" for result in results]
        run.put(f"tts.{output}.length_limited_share", float(np.mean(cut)))
        read_by_ear = put_ears(run, f"tts.{output}.ears", rows, heard, asked)
        for index in range(min(5, len(rows))):
            row = rows[index]
            note = f"voice {asked[index]}"
            note += f"; the judge reads: {read[index]}" if read else ""
            note += f"; the ear reads: {read_by_ear[row]}" if row in read_by_ear else ""
            run.examples.append(
                Example(
                    f"tts.{output}",
                    run.text(row),
                    read[index] if read else read_by_ear.get(row, ""),
                    audio=heard[index],
                    reference_audio=run.sound(row),
                    note=note,
                )
            )


def _read_by_judge(
    run: Evaluation, key: str, rows: Sequence[int], heard: Sequence[np.ndarray], asked: Sequence[str | None]
) -> list[str]:
    """Put what the judge makes of synthesized rows; returns its transcripts, none without a judge."""
    if run.judge is None:
        return []
    read = run.judge.transcribe(heard)
    put_error_rates(run, key, [(run.lang(row), run.text(row), text) for row, text in zip(rows, read)])
    place = run.metrics["tts"][key.split(".")[1]]
    run.put(f"{key}.judge_wer", place.pop("wer"))
    if run.judge.speakers is not None and asked[0] is not None:
        named = run.judge.speakers.predict(heard)
        run.put(f"{key}.voice_match", float(np.mean([a == b for a, b in zip(named, asked)])))
    return read


def evaluate_speech_translation(run: Evaluation) -> None:
    """Speech to speech, chained and direct; the judge's reading is scored (ASR-BLEU)."""
    if run.judge is None or run.model.vocoder is None or run.model.vocoder.units is None:
        return
    pairs = run.pairs(run.split, "units", "text_ids")
    voices: list[str | None] = list(run.model.voices) or [None]
    for key, flag in (("s2st_chained", CHAIN), ("s2st", OUT_UNITS)):
        if not pairs:
            return
        requests = [
            Request(
                plan=Plan("s2st", run.lang(a), run.lang(b), (flag,), (Span("units", run.cell("units", a)),)),
                voice=voices[index % len(voices)],
                speak=True,
            )
            for index, (a, b) in enumerate(pairs)
        ]
        results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling("units"))
        heard = [_audio(result) for result in results]
        read = run.judge.transcribe(heard)
        triples = [(f"{run.lang(a)}-{run.lang(b)}", run.text(b), text) for (a, b), text in zip(pairs, read)]
        put_translation_scores(run, key, triples, "asr_bleu")
        if key == "s2st_chained":
            chain = [result.text or "" for result in results]
            references, langs = [t[1] for t in triples], [run.lang(b) for _, b in pairs]
            run.put(f"{key}.text_bleu", bleu(references, chain, langs))
            run.put(f"{key}.text_bleu_tokenizer", bleu_label(references, langs))
        for index, (a, _) in list(enumerate(pairs))[:5]:
            label, reference, text = triples[index]
            run.examples.append(
                Example(
                    key,
                    reference,
                    text,
                    f"{label}: {run.text(a)}",
                    heard[index],
                    run.sound(a),
                    " → ".join(results[index].texts),
                )
            )


def _audio(result: Result) -> np.ndarray:
    assert result.audio is not None
    return result.audio


# -- language models --------------------------------------------------------------------------------------------


TASKS: tuple[Callable[[Evaluation], None], ...] = (
    evaluate_asr,
    evaluate_translation,
    evaluate_resynthesis,
    evaluate_speech,
    evaluate_speech_translation,
    evaluate_text_lm,
    evaluate_speech_lm,
    evaluate_interleaved,
    evaluate_tokens,
)


def evaluate(run: Evaluation, *, progress: Callable[[str], None] | None = None) -> Evaluation:
    """Run every task that the model and the shards allow.

    Raises:
        InputError: the shards are not this model's, or hold no test rows.
    """
    for stream in run.shards.streams.values():
        run.model.vocabulary.check(stream, str(run.shards.folder), "the model's vocabulary")
    if not (run.shards.split == run.split).any():
        found = sorted(set(run.shards.split.tolist()))
        raise InputError(f"{run.shards.folder}: no rows of split {run.split!r}; it holds {', '.join(found)}")
    if run.ears is not None and progress is not None:
        progress(about_ears(run))
    for number, task in enumerate(TASKS):
        begin = time.perf_counter()
        name = task.__name__.removeprefix("evaluate_").replace("_", " ")
        with part_of_work(f"task {number + 1} of {len(TASKS)}, {name}", number, len(TASKS)):
            advance("task", 0, 1)
            task(run)
        if progress is not None:
            progress(f"{task.__name__}: {time.perf_counter() - begin:.1f} s")
    return run
