"""What a model says of itself, over temperature: perplexity of the recognized texts (PPX) against their variety (VERT).

Speech that is drawn cold is likely and repeats itself, drawn hot it is varied and wrong; real texts are a point between
(Lakhotia et al. 2021). Recognized is either by the model's own <asr>, from the units, or by an ear, from what the
vocoder makes of them; PPX is that of a 5-gram model of the training texts, which owes nothing to the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_tokenizers.text.score_normalizer import words
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.diversity import vert
from unitok_training.speech_lm.intervals import bootstrap_ratio
from unitok_training.speech_lm.prediction import need_speech_lm

ORDER = 5
"""Of the model that says how likely a text is."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was recognized of some speech."""

    langs: Sequence[str]
    """Language of each."""
    texts: Sequence[str]
    """Text of each; empty where nothing was understood."""
    cut: float = 0.0
    """Share that a limit ended."""


class TextLikelihood:
    """n-gram models of the ids of the training texts, one a language."""

    def __init__(self, run: Evaluation) -> None:
        self.run, size = run, run.model.tokenizers.text.size
        sequences: dict[str, list[list[int]]] = {}
        for row in run.rows_of_training("text_ids"):
            sequences.setdefault(run.lang(row), []).append([*run.cell("text_ids", row).tolist(), size])
        self.models = {lang: NgramModel.fit(some, order=ORDER, size=size + 1) for lang, some in sequences.items()}

    def nats(self, text: str, lang: str) -> tuple[float, int]:
        """(negative log-probability, ids) of a text and its end."""
        model = self.models[lang]
        ids = [*self.run.model.tokenizers.text.encode(text), model.size - 1]
        parts = (math.log(model.probability(one, ids[max(0, at - ORDER + 1) : at])) for at, one in enumerate(ids))
        return -sum(parts), len(ids)


def said_figures(said: Said, likelihood: TextLikelihood, *, seed: int) -> dict[str, float]:
    """`ppx` an id with its interval, `vert` and its parts, `empty` and `cut` shares, `words` of a text.

    Texts that are empty count neither for PPX nor for VERT. VERT is that of texts of one language, the mean over
    languages by how many texts there are.
    """
    kept = [(text, lang) for text, lang in zip(said.texts, said.langs) if words(text)]
    figures = {
        "count": float(len(said.texts)),
        "empty": 1 - len(kept) / max(len(said.texts), 1),
        "cut": said.cut,
        "words": float(np.mean([len(words(text)) for text, _ in kept])) if kept else 0.0,
    }
    if not kept:
        return {**figures, **dict.fromkeys(("ppx", "ppx_low", "ppx_high", "self_bleu", "auto_bleu", "vert"), math.nan)}
    nats, ids = zip(*(likelihood.nats(*one) for one in kept))
    low, high = bootstrap_ratio(nats, ids, seed=seed)
    figures |= {"ppx": math.exp(sum(nats) / sum(ids)), "ppx_low": math.exp(low), "ppx_high": math.exp(high)}
    langs = sorted({lang for _, lang in kept})
    groups = [[words(text) for text, lang in kept if lang == one] for one in langs]
    groups = [group for group in groups if len(group) > 1] or groups[:1]
    total = sum(map(len, groups))
    found = [vert(group) for group in groups]
    return figures | {
        name: sum(one[name] * len(group) for one, group in zip(found, groups)) / total for name in found[0]
    }


# -- who recognizes --------------------------------------------------------------------------------------------------

Reader = Callable[[Sequence[np.ndarray], Sequence[str]], list[str]]
"""(units (N,) of utterances, their languages) → texts."""


def reader_of(run: Evaluation) -> tuple[str, Reader]:
    """(who recognizes, how): the run's ear where it has one, else the model itself. InputError where neither can."""
    model, ear = run.model, None if run.ears is None else run.ears.ear
    if ear is not None:
        if not model.can_speak("units"):
            raise InputError("this model has no vocoder for its units, so that an ear hears nothing; leave out --ears")

        def hear(units: Sequence[np.ndarray], langs: Sequence[str]) -> list[str]:
            sounds = [model.speak([Span("units", one)]) if len(one) else np.zeros(0, np.float32) for one in units]
            assert model.vocoder is not None
            rate = model.vocoder.sample_rate
            given = [resample(one, rate, ear.sample_rate) for one in sounds if one is not None and len(one)]
            read = iter(ear.transcribe(given))
            return [next(read) if one is not None and len(one) else "" for one in sounds]

        return "ear", hear
    if not run.knows(VARIANTS["asr"]):
        raise InputError("nobody recognizes what is said: the model was not trained on asr; give --ears")

    def ask(units: Sequence[np.ndarray], langs: Sequence[str]) -> list[str]:
        plans = [SequenceSpec("asr", lang, conditions=(Span("units", one),)) for one, lang in zip(units, langs)]
        answers = iter(model.run([PromptRequest(plan=plan) for plan, one in zip(plans, units) if len(one)]))
        return [(next(answers).text or "") if len(one) else "" for one in units]

    return "the model's own asr", ask


def drawn(run: Evaluation, langs: Sequence[str], temperature: float, reader: Reader) -> Said:
    """Speech that a model says of itself, recognized: one utterance for each language that is named."""
    requests = [PromptRequest(plan=SequenceSpec("slm", lang)) for lang in langs]
    results = run.model.run(seeded(requests, run.seed), sampling=Sampling(temperature=temperature))
    units = [next((span.content for span in one.outputs if span.kind == "units"), np.zeros(0)) for one in results]
    cut = float(np.mean([one.finish_reason == "length" for one in results]))
    return Said(langs=langs, texts=reader([one.astype(np.int64) for one in units], langs), cut=cut)


Kept = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
"""(name, what makes figures) → the figures, made once and kept."""


def curve_figures(
    run: Evaluation, temperatures: Sequence[float], *, samples: int, keep: Kept = lambda name, make: make()
) -> dict[str, Any]:
    """PPX and VERT of `samples` utterances at each temperature, beside real texts and real speech as it is recognized.

    `ppx_at_vert` is where the curve, straight lines between its points in both logarithms, has the VERT of recognized
    real speech, and `vert_at_ppx` the other way; None where it does not come there.

    Raises:
        InputError: no temperature, or fewer than two samples; a model that does not continue speech; nobody who
            recognizes; no texts.
    """
    if samples < 2 or not temperatures:
        raise InputError(f"{samples} samples at {len(temperatures)} temperatures: give 2 or more, and one temperature")
    need_speech_lm(run)
    name, reader = reader_of(run)
    if run.ears is not None and run.ears.ear is not None:
        rows = [row for row in run.rows(run.split, "units", "text_ids") if run.lang(row) == run.ears.ear.lang]
    else:
        rows = run.rows(run.split, "units", "text_ids")
    likelihood = TextLikelihood(run)
    rows = [row for row in rows if run.lang(row) in likelihood.models]
    if not rows:
        raise InputError(f"no rows of split {run.split!r} have units and a text in a language of the training texts")
    langs, texts = [run.lang(row) for row in rows], [run.text(row) for row in rows]

    def real() -> dict[str, Any]:
        return said_figures(Said(langs=langs, texts=texts), likelihood, seed=run.seed)

    def recognized() -> dict[str, Any]:
        read = reader([run.cell("units", row).astype(np.int64) for row in rows], langs)
        return said_figures(Said(langs=langs, texts=read), likelihood, seed=run.seed)

    def at(temperature: float) -> dict[str, Any]:
        wanted = [langs[number % len(langs)] for number in range(samples)]
        return said_figures(drawn(run, wanted, temperature, reader), likelihood, seed=run.seed)

    points = {f"{one:g}": keep(f"temperature {one:g}", partial(at, one)) for one in sorted(set(temperatures))}
    reference = keep("real speech", recognized)
    return {
        "recognized_by": name,
        "real_texts": keep("real texts", real),
        "real_speech": reference,
        "temperatures": points,
        "ppx_at_vert": crossing(list(points.values()), "vert", "ppx", reference["vert"]),
        "vert_at_ppx": crossing(list(points.values()), "ppx", "vert", reference["ppx"]),
    }


def crossing(points: Sequence[Mapping[str, float | None]], along: str, wanted: str, at: float | None) -> float | None:
    """The figure `wanted` where the line through points first comes to `at` along another figure; None where it never
    does. Both are logarithms."""
    for one, other in zip(points, points[1:]):
        values = [one[along], other[along], one[wanted], other[wanted], at]
        known = [value for value in values if value is not None and math.isfinite(value) and value > 0]
        if len(known) < len(values):
            continue
        begin, end, first, last, place = map(math.log, known)
        if min(begin, end) <= place <= max(begin, end):
            share = 0.0 if begin == end else (place - begin) / (end - begin)
            return math.exp(first + share * (last - first))
    return None
