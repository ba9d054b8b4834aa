"""Scores of an approach: the same test rows, the same scorers, whatever way speech comes in.

The keys are those of the evaluation (`asr.wer`, `s2tt.bleu`, `s2st.asr_bleu`), with what only a comparison asks:
perplexity of held-out text, decoder tokens per second of speech, and where a cascade errs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok.generation.sampling import GREEDY, Sampling
from unitok.nbest.correction import edits
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.requests.request import Request
from unitok.results import Result
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.text.score_normalizer import words
from unitok_training.evaluation.by_ears import put_ears
from unitok_training.evaluation.evaluate import evaluate_speech_translation, voices_in_turn
from unitok_training.evaluation.language import evaluate_text_lm
from unitok_training.evaluation.run import Evaluation, put_error_rates, put_translation_scores
from unitok_training.experiments.compare.recipes import CODES_IN
from unitok_training.systems.base.code_bench import CODES_ALONE

LATENT = "latent"
AT_ONCE = 16
"""Recordings that a front end encodes together."""

# A request that leaves a model no room for an answer is answered with nothing: what is compared stands on the same rows
# whatever way speech comes in, and some ways are longer. How many these are stands beside the scores (`left_out`).


def text_ability(run: Evaluation) -> dict[str, Any]:
    """Perplexity of held-out text per piece (E8), and translation of text."""
    evaluate_text_lm(run)
    put_mt(run)
    found = run.metrics.get("lm", {})
    ppl = {"after": found.get("ppl"), "five_gram": found.get("five_gram_ppl")}
    return {"ppl": ppl, "mt": run.metrics.get("mt", {})}


def put_mt(run: Evaluation) -> None:
    """Translation of reference texts."""
    pairs = run.pairs(run.split, "text_ids")
    if pairs:
        texts, _ = translated(run, "mt", [run.text(a) for a, _ in pairs], pairs)
        put_translation_scores(run, "mt", labeled(run, pairs, texts))


def score_arm(run: Evaluation, approach: str) -> dict[str, Any]:
    """Everything that is compared of a trained approach; keys as in the results, without the approach's name. Beside
    them `rows`: errors and words of each sentence that was spoken, by who read them."""
    begin = time.monotonic()
    kind = "codes" if approach.startswith(CODES_IN) else LATENT if approach == LATENT else "units"
    text = text_ability(run)
    rows = run.rows(run.split, "units", "text_ids")
    pairs = run.pairs(run.split, "units", answers=("text_ids",))
    seconds = sum(float(run.shards.seconds[a]) for a, _ in pairs)
    heard, _ = answers(run, "asr", [SequenceSpec("asr", run.lang(row)) for row in rows], rows, kind)
    put_error_rates(run, "asr", [(run.lang(row), run.text(row), one) for row, one in zip(rows, heard)])
    if approach == "cascade":
        used = put_cascade(run, pairs)
    else:
        plans = [SequenceSpec("s2tt", run.lang(a), run.lang(b)) for a, b in pairs]
        outputs, used = answers(run, "s2tt", plans, [a for a, _ in pairs], kind)
        put_translation_scores(run, "s2tt", labeled(run, pairs, outputs))
        if approach == "tokens":
            evaluate_speech_translation(run)
    spoken = {} if kind == LATENT else put_spoken(run, rows, kind)
    run.put("decoder_tokens_per_second", used / max(seconds, 1e-9))
    run.put("scoring.seconds", time.monotonic() - begin)
    return {**{name: value for name, value in run.metrics.items() if name != "lm"}, "text": text, "rows": spoken}


def labeled(run: Evaluation, pairs: Sequence[tuple[int, int]], outputs: Sequence[str]) -> list[tuple[str, str, str]]:
    """(direction, reference, output) of each pair."""
    return [(f"{run.lang(a)}-{run.lang(b)}", run.text(b), one) for (a, b), one in zip(pairs, outputs)]


def answers(
    run: Evaluation, key: str, plans: Sequence[SequenceSpec], rows: Sequence[int], kind: str = "units"
) -> tuple[list[str], int]:
    """(text that answers each plan about the speech of a row, decoder tokens read and written).

    `kind` is how the speech is given: as units, as codes, or as vectors of a front end (`LATENT`).
    """
    requests: list[PromptRequest] = []
    for begin in range(0, len(rows), AT_ONCE):
        part = rows[begin : begin + AT_ONCE]
        if kind == LATENT:
            rate = run.model.sample_rate
            heard = run.model.heard([(run.audio(row), rate) for row in part], LATENT)
        else:
            heard = [(run.span(kind, row), None) for row in part]
        requests += [
            PromptRequest(plan=SequenceSpec(plan.task, plan.source, plan.target, conditions=(span,)), vectors=vectors)
            for plan, (span, vectors) in zip(plans[begin : begin + AT_ONCE], heard)
        ]
    found, used = answered(run, key, requests)
    return [one.text or "" if one else "" for one in found], used


def answered(
    run: Evaluation, key: str, requests: Sequence[PromptRequest], sampling: Sampling = GREEDY
) -> tuple[list[Result | None], int]:
    """(answer to each request, None to one that leaves no room for it, positions that the decoder read and wrote)."""
    found: list[Result | None] = [None] * len(requests)
    kept = run.answerable(requests, key)
    asked = [requests[place] for place in kept]
    results = run.model.run(asked, sampling=sampling)
    for place, result in zip(kept, results):
        found[place] = result
    prompts = sum(len(render_prompt(request.plan, run.model.vocabulary)) for request in asked)
    return found, prompts + sum(len(result.ids) for result in results)


# -- the cascade --------------------------------------------------------------------------------------------------


def translated(
    run: Evaluation, key: str, texts: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> tuple[list[str], int]:
    """(each text in the language of its pair's other side, decoder tokens it took); an empty text stays empty."""
    kept = [index for index, text in enumerate(texts) if text.strip()]
    requests = [
        PromptRequest(
            plan=SequenceSpec("mt", run.lang(a), run.lang(b), conditions=(run.model.text_span(texts[index]),))
        )
        for index, (a, b) in ((index, pairs[index]) for index in kept)
    ]
    results, used = answered(run, key, requests)
    found = [""] * len(texts)
    for index, result in zip(kept, results):
        found[index] = result.text or "" if result else ""
    return found, used


def put_cascade(run: Evaluation, pairs: Sequence[tuple[int, int]]) -> int:
    """Recognize, translate, speak, as `pipelines.cascade` does one by one; returns the tokens up to the translation.

    Each stage is scored on what it was given, so that the errors of the ones before it are not its own.
    """
    clock = [time.monotonic()]
    plans = [SequenceSpec("asr", run.lang(a)) for a, _ in pairs]
    heard, used = answers(run, "s2st.stages.recognise", plans, [a for a, _ in pairs])
    clock.append(time.monotonic())
    texts, more = translated(run, "s2st.stages.translate", heard, pairs)
    clock.append(time.monotonic())
    put_translation_scores(run, "s2tt", labeled(run, pairs, texts))
    known = [(run.lang(a), run.text(a), one) for (a, _), one in zip(pairs, heard) if run.text(a)]
    if known:
        put_error_rates(run, "s2st.stages.recognise", known)
    for name, task in (("bleu", "mt"), ("bleu_of_recognised", "s2tt")):
        if task in run.metrics:
            run.put(f"s2st.stages.translate.{name}", run.metrics[task]["bleu"])
    if run.judge is not None and run.model.vocoder is not None:
        read = spoken_and_read(run, texts, [run.lang(b) for _, b in pairs])
        clock.append(time.monotonic())
        said = [(run.lang(b), text, one) for (_, b), text, one in zip(pairs, texts, read) if text.strip()]
        if said:
            put_error_rates(run, "s2st.stages.speak", said)
        put_translation_scores(run, "s2st", labeled(run, pairs, read), "asr_bleu")
    for name, one, other in zip(("recognise", "translate", "speak"), clock, clock[1:]):
        run.put(f"s2st.stages.{name}.seconds", other - one)
    return used + more


def spoken_and_read(run: Evaluation, texts: Sequence[str], langs: Sequence[str]) -> list[str]:
    """What the judge reads in texts that were spoken through units; empty ones stay empty."""
    kept = [index for index, text in enumerate(texts) if text.strip()]
    said = [texts[index] for index in kept], [langs[index] for index in kept]
    sounds = spoken(run, "s2st.stages.speak", *said, "units")
    found = [""] * len(texts)
    for index, text in zip(kept, read_by_judge(run, sounds)):
        found[index] = text
    return found


# -- speaking -----------------------------------------------------------------------------------------------------


def spoken(run: Evaluation, key: str, texts: Sequence[str], langs: Sequence[str], kind: str) -> list[np.ndarray]:
    """(S,) of each text, said in codes by the voice that comes, or in units by known voices, every language in turn by
    all of them, as an evaluation asks; nothing of an empty answer."""
    voices: list[str | None] = list(run.model.voices_of(kind)) or [None]
    if kind == "codes":
        plans = [SequenceSpec(CODES_ALONE, lang, conditions=(run.model.text_span(one),)) for one, lang in
                 zip(texts, langs)]  # fmt: skip
        requests = [PromptRequest(plan=plan, speak=True) for plan in plans]
    else:
        requests = [
            run.model.prompt_request(Request(task="tts", source=lang, text=text, voice=voice, output=kind))
            for text, lang, voice in zip(texts, langs, voices_in_turn(voices, langs))
        ]
    results, _ = answered(run, key, seeded(requests, run.seed), run.model_sampling(kind))
    return [run.spoken(one.audio) if one and one.audio is not None else np.zeros(0, np.float32) for one in results]


def read_by_judge(run: Evaluation, sounds: Sequence[np.ndarray]) -> list[str]:
    """What the judge reads in recordings (S,); nothing where there is no sound."""
    assert run.judge is not None
    loud = [number for number, sound in enumerate(sounds) if len(sound)]
    found = [""] * len(sounds)
    for number, text in zip(loud, run.judge.transcribe(run.for_judge([sounds[number] for number in loud]))):
        found[number] = text
    return found


def put_spoken(run: Evaluation, rows: Sequence[int], kind: str) -> dict[str, dict[str, list[float]]]:
    """Say reference texts, and put what the judge and ears read, and what a second of sound took of the processor.

    Returns:
        `tts` and, where there are ears, `tts.ears` → {"counts", "sizes"}: errors and words of each sentence.
    """
    if run.judge is None or run.model.vocoder is None:
        return {}
    begin = time.process_time()
    sounds = spoken(run, "tts", [run.text(row) for row in rows], [run.lang(row) for row in rows], kind)
    milliseconds = 1000 * (time.process_time() - begin)
    length = sum(len(one) for one in sounds) / run.model.sample_rate
    run.put("tts.ms_per_second", milliseconds / max(length, 1e-9))
    read = read_by_judge(run, sounds)
    put_error_rates(run, "tts", [(run.lang(row), run.text(row), one) for row, one in zip(rows, read)])
    found = {"tts": errors_of([run.text(row) for row in rows], read)}
    if by_ear := put_ears(run, "tts.ears", rows, sounds, [None] * len(rows)):
        found["tts.ears"] = errors_of([run.text(row) for row in by_ear], list(by_ear.values()))
    return found


def errors_of(references: Sequence[str], outputs: Sequence[str]) -> dict[str, list[float]]:
    """Word errors and words of each sentence, as word error rates count them."""
    pairs = [(words(one), words(other)) for one, other in zip(references, outputs, strict=True)]
    return {"counts": [float(edits(*pair)) for pair in pairs], "sizes": [float(len(one)) for one, _ in pairs]}
