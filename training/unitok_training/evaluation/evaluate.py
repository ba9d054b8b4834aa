"""Evaluation of a model on token shards: every task, corpus-level, pooled over languages and broken down below.

A metric's key is its place in a nested dictionary: `asr.by_lang.en.wer`. Each task is one function that returns its
metrics and the examples that the report shows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.requests.request import Request
from unitok_tokenizers.audio.speech_activity import noise_db
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.base import SPEECH_KINDS
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS, VARIANTS, TaskVariant
from unitok_tokenizers.progress import advance, part_of_work
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.by_ears import about_ears, put_ears
from unitok_training.evaluation.language import evaluate_interleaved, evaluate_speech_lm, evaluate_text_lm
from unitok_training.evaluation.metrics import bleu, bleu_label, error_unit, wer
from unitok_training.evaluation.resynthesis import evaluate_resynthesis
from unitok_training.evaluation.run import (
    Evaluation,
    Example,
    put_error_rates,
    put_translation_scores,
)
from unitok_training.evaluation.tokens import evaluate_tokens

T = TypeVar("T")

# -- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TextQuestion:
    """A held-out row that is asked for a text."""

    row: int
    """What is given."""
    plan: SequenceSpec
    """Its prompt."""
    label: str
    """Language, or direction, of the breakdown."""
    reference: str
    """The text that is right."""


def answers_text(one: TaskVariant) -> bool:
    """Whether a variant answers one text that has a reference."""
    return one.outputs == ("text",) and bool({"wer", "bleu"} & set(one.variant.metrics))


def evaluate_texts(run: Evaluation) -> None:
    """Recognition and translation: whatever answers one reference text, by held-out voices and by known ones."""
    for one in TOKEN_VARIANTS.values():
        if not answers_text(one) or not run.knows(one):
            continue
        _evaluate_text(run, one, one.metric, run.split)
        if one.variant.given == ("units",):
            _evaluate_text(run, one, f"{one.metric}.seen_voices", run.seen_split)


def text_items(run: Evaluation, one: TaskVariant, split: str) -> list[tuple[int, int]]:
    """(row that is given, row of the answer) of all that a variant can be asked about."""
    (kind,) = one.variant.given or ("text",)
    column = ids_column(kind)
    if one.task.pairs:
        return run.all_pairs(split, column, answers=("text_ids",))
    return [(row, row) for row in run.all_rows(split, column, "text_ids")]


def text_questions(run: Evaluation, one: TaskVariant, items: Sequence[tuple[int, int]]) -> list[TextQuestion]:
    """What a variant asks about such items."""
    (kind,) = one.variant.given or ("text",)
    two, name, flags = one.task.languages == 2, one.task.name, one.variant.flags
    return [
        TextQuestion(
            row=a,
            plan=SequenceSpec(name, run.lang(a), run.lang(b) if two else None, flags, (run.span(kind, a),)),
            label=f"{run.lang(a)}-{run.lang(b)}" if two else run.lang(a),
            reference=run.text(b),
        )
        for a, b in items
    ]


def put_answers(run: Evaluation, one: TaskVariant, key: str, asked: Sequence[TextQuestion]) -> list[str]:
    """Ask, and put the scores of a variant's answers, which are returned, under a key."""
    answers = [result.text or "" for result in run.model.run([PromptRequest(plan=each.plan) for each in asked])]
    found = [(each.label, each.reference, answer) for each, answer in zip(asked, answers)]
    (put_translation_scores if "bleu" in one.variant.metrics else put_error_rates)(run, key, found)
    return answers


def _evaluate_text(run: Evaluation, one: TaskVariant, key: str, split: str) -> None:
    """Scores of a variant, and examples of one that has a heading."""
    asked = text_questions(run, one, run.limited(text_items(run, one, split)))
    asked = [asked[place] for place in run.answerable([PromptRequest(plan=each.plan) for each in asked], key)]
    if not asked:
        return
    answers = put_answers(run, one, key, asked)
    (kind,) = one.variant.given or ("text",)
    for each, output in list(zip(asked, answers))[:5] if one.variant.title and split == run.split else ():
        sound = run.sound(each.row) if kind in SPEECH_KINDS else None
        source = f"{each.label}: {run.text(each.row)}" if one.task.languages == 2 else ""
        run.examples.append(Example(key, each.reference, output, source=source, reference_audio=sound))


# -- speaking ---------------------------------------------------------------------------------------------------


def evaluate_speech(run: Evaluation) -> None:
    """Synthesis through units and through codes, read by the judge and by ears."""
    if (run.judge is None and run.ears is None) or run.model.vocoder is None:
        return
    rows = run.rows(run.split, "text_ids")
    if not rows:
        return
    for output in ("units", "codes"):
        if run.model.can_speak(output) and run.knows(TOKEN_VARIANTS[f"tts.{output}"]):
            _evaluate_speech(run, rows, output)


def _evaluate_speech(run: Evaluation, rows: Sequence[int], output: str) -> None:
    """Scores of rows' texts, spoken through units or codes."""
    voices: list[str | None] = list(run.model.voices_of(output)) or [None]
    asked = voices_in_turn(voices, [run.lang(row) for row in rows])
    requests = [
        run.model.prompt_request(
            Request(task="tts", source=run.lang(row), text=run.text(row), voice=voice, output=output)
        )
        for row, voice in zip(rows, asked)
    ]
    kept = run.answerable(requests, f"tts.{output}")
    if not kept:
        return
    rows, asked = [rows[place] for place in kept], [asked[place] for place in kept]
    requests = [requests[place] for place in kept]
    results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling(output))
    heard = [run.spoken(result.audio) for result in results]
    read = _read_by_judge(run, f"tts.{output}", rows, heard, asked)
    for name, reason in (("length_limited_share", "length"), ("loop_share", "loop")):
        run.put(f"tts.{output}.{name}", float(np.mean([one.finish_reason == reason for one in results])))
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


def voices_in_turn(voices: Sequence[T], langs: Sequence[str]) -> list[T]:
    """A voice for each of some items in these languages, every language in all voices: items alternate between them."""
    turns: Counter[str] = Counter()
    found = []
    for lang in langs:
        found.append(voices[turns[lang] % len(voices)])
        turns[lang] += 1
    return found


def _put_voice_match(run: Evaluation, key: str, named: Sequence[str], asked: Sequence[str | None]) -> None:
    """Put how often the judge names the voice that was asked for, of those that it knows."""
    assert run.judge is not None and run.judge.speakers is not None
    known = set(run.judge.speakers.names)
    right = [name == voice for name, voice in zip(named, asked) if voice in known]
    if right:
        run.put(f"{key}.voice_match", float(np.mean(right)))


def _read_by_judge(
    run: Evaluation, key: str, rows: Sequence[int], heard: Sequence[np.ndarray], asked: Sequence[str | None]
) -> list[str]:
    """Put what the judge makes of synthesized rows; returns its transcripts, none without a judge."""
    if run.judge is None:
        return []
    given = run.for_judge(heard)
    read = run.judge.transcribe(given)
    put_error_rates(run, key, [(run.lang(row), run.text(row), text) for row, text in zip(rows, read)])
    place = run.metrics["tts"][key.split(".")[1]]
    run.put(f"{key}.judge_wer", place.pop("wer"))
    if run.judge.speakers is not None and asked[0] is not None:
        _put_voice_match(run, key, run.judge.speakers.predict(given), asked)
    return read


def evaluate_speech_translation(run: Evaluation) -> None:
    """Speech to speech, chained and direct; the judge's reading is scored (ASR-BLEU)."""
    if run.judge is None or not run.model.can_speak("units"):
        return
    everything = run.pairs(run.split, "units", answers=("text_ids",))
    voices: list[str | None] = list(run.model.voices_of("units")) or [None]
    for key, name in (("s2st_chained", "s2st.chain"), ("s2st", "s2st")):
        one = TOKEN_VARIANTS[name]
        if not everything or not run.knows(one):
            continue
        asked = [
            PromptRequest(
                plan=SequenceSpec("s2st", run.lang(a), run.lang(b), one.variant.flags, (run.span("units", a),)),
                voice=voice,
                speak=True,
            )
            for (a, b), voice in zip(everything, voices_in_turn(voices, [run.lang(b) for _, b in everything]))
        ]
        kept = run.answerable(asked, key)
        if not kept:
            continue
        pairs, requests = [everything[place] for place in kept], [asked[place] for place in kept]
        results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling("units"))
        heard = [run.spoken(result.audio) for result in results]
        read = run.judge.transcribe(run.for_judge(heard))
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


# -- saying again --------------------------------------------------------------------------------------------------

REMADE = ("se", "tse", "edit", "vc")
"""Tasks whose answer is the speech that is given, changed."""


def evaluate_remaking(run: Evaluation) -> None:
    """Speech that is said again, beside what was given and the right answer, both through the codec alone."""
    model = run.model
    if (run.judge is None and run.ears is None) or model.vocoder is None or not model.can_speak("codes"):
        return
    for key in filter(lambda key: run.knows(TOKEN_VARIANTS[key]), REMADE):
        try:
            rows, plans = remade_items(run, key)
        except InputError:  # the shards have no rows for it
            continue
        _put_remade(run, key, rows, plans)


def remade_items(
    run: Evaluation, key: str, options: ExampleOptions | None = None
) -> tuple[list[int], list[SequenceSpec]]:
    """Rows of which a variant gives something, at most as many as are scored, and plans with the right answers.

    Raises:
        InputError: the shards have no rows for it.
    """
    options, pieces = replace(options or ExampleOptions(), split=run.split), run.model.tokenizers.text.pieces()
    mixture = Mixture(tasks={key: 1.0})
    source = ExampleSource(run.shards, run.model.vocabulary, mixture, seed=run.seed, options=options, pieces=pieces)
    items = run.limited(range(source.usable()[key]))
    named = {str(name): row for row, name in enumerate(run.shards.table["id"].to_pylist())}
    rows = [named[source.document(item).name.partition(" example from row ")[2]] for item in items]
    return rows, [source.plan(item) for item in items]


def _put_remade(run: Evaluation, key: str, rows: Sequence[int], plans: Sequence[SequenceSpec]) -> None:
    """Put what was made of rows by plans, whose outputs are the right answers."""
    speakers: list[str | None] = [str(run.shards.speaker[row]) or None for row in rows]
    if key == "vc":
        plans, speakers = _swapped_voices(plans, speakers)
    requests = [PromptRequest(plan=replace(plan, outputs=()), speak=True) for plan in plans]
    results = run.model.run(seeded(requests, run.seed), sampling=run.model_sampling("codes"))
    run.put(f"{key}.count", len(rows))
    heard = [run.spoken(result.audio) for result in results]
    _put_heard(run, key, rows, heard, speakers)
    if key in ("se", "tse"):
        for name, spans in (
            ("given", [plan.conditions for plan in plans]),
            ("copied", [plan.outputs for plan in plans]),
        ):
            found = [run.model.speak(one) for one in spans]
            _put_heard(run, f"{key}.{name}", rows, [run.spoken(one) for one in found if one is not None], speakers)
    if key == "edit":
        kept = [kept_share(result.outputs[0], plan) for result, plan in zip(results, plans)]
        run.put(f"{key}.kept_share", float(np.mean(kept)))
    for index in range(min(5, len(rows))):
        run.show(
            key, run.text(rows[index]), "", audio=heard[index], reference_audio=run.sound(rows[index]),
            note="" if speakers[index] is None else f"voice {speakers[index]}",
        )  # fmt: skip


def _put_heard(
    run: Evaluation, key: str, rows: Sequence[int], heard: Sequence[np.ndarray], speakers: Sequence[str | None]
) -> None:
    """Put noise, words and voices of recordings of rows' texts."""
    texts = [run.text(row) for row in rows]
    run.put(f"{key}.noise_db", float(np.mean([noise_db(one, run.model.sample_rate) for one in heard])))
    if run.judge is not None:
        given = run.for_judge(heard)
        run.put(f"{key}.judge_wer", wer(texts, run.judge.transcribe(given)))
        run.put(f"{key}.unit", error_unit(texts))
        if run.judge.speakers is not None:
            _put_voice_match(run, key, run.judge.speakers.predict(given), speakers)
    put_ears(run, f"{key}.ears", rows, heard, speakers)


def _swapped_voices(
    plans: Sequence[SequenceSpec], speakers: Sequence[str | None]
) -> tuple[list[SequenceSpec], list[str | None]]:
    """Plans with the voice of the next one by another speaker, and whose that is; their own where there is none."""
    found, wanted, count = list[SequenceSpec](), list[str | None](), len(plans)
    for place, plan in enumerate(plans):
        following = ((place + step) % count for step in range(1, count))
        other = next((one for one in following if speakers[one] != speakers[place]), place)
        voice = tuple(span for span in plans[other].conditions if span.kind == "voice")
        found.append(replace(plan, conditions=(*voice, *(span for span in plan.conditions if span.kind != "voice"))))
        wanted.append(speakers[other])
    return found, wanted


def kept_share(made: Span, plan: SequenceSpec) -> float:
    """Share of the frames around a cut that are as they were."""
    before, behind = (span.content for span in plan.conditions if span.kind == "codes")
    same = [(made.content[: len(before)] == before).all(1), (made.content[-len(behind) :] == behind).all(1)]
    return float(np.concatenate(same).mean())


# -- language models --------------------------------------------------------------------------------------------


TASKS: tuple[Callable[[Evaluation], None], ...] = (
    evaluate_texts,
    evaluate_resynthesis,
    evaluate_speech,
    evaluate_speech_translation,
    evaluate_remaking,
    evaluate_text_lm,
    evaluate_speech_lm,
    evaluate_interleaved,
    evaluate_tokens,
)
LANGUAGE = {evaluate_text_lm: "lm", evaluate_speech_lm: "slm", evaluate_interleaved: "ilm"}
"""What says nothing of a model that has not learned the task."""


def evaluate(run: Evaluation, *, progress: Callable[[str], None] | None = None) -> Evaluation:
    """Run every task that the model and the shards allow.

    Raises:
        InputError: the shards are not this model's, or hold no test rows.
    """
    run.model.vocabulary.check_all(run.shards.streams, str(run.shards.folder), "the model's vocabulary")
    if not (run.shards.split == run.split).any():
        found = sorted(set(run.shards.split.tolist()))
        raise InputError(f"{run.shards.folder}: no rows of split {run.split!r}; it holds {', '.join(found)}")
    if run.ears is not None and progress is not None:
        progress(about_ears(run))
    for number, task in enumerate(TASKS):
        if task in LANGUAGE and not run.knows(VARIANTS[LANGUAGE[task]]):
            continue
        begin = time.perf_counter()
        name = task.__name__.removeprefix("evaluate_").replace("_", " ")
        with part_of_work(f"task {number + 1} of {len(TASKS)}, {name}", number, len(TASKS)):
            advance("task", 0, 1)
            task(run)
        if progress is not None:
            progress(f"{task.__name__}: {time.perf_counter() - begin:.1f} s")
    return run
