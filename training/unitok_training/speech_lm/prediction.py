"""How well units are predicted beside n-gram models of them, and whether real order is told from another one.

N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_training.evaluation.language import joined_units, word_units
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.intervals import bootstrap_mean, bootstrap_ratio, preferred
from unitok_training.speech_lm.scoring import Scored, alone, fits, log_probabilities

ORDERS = (1, 2, 3, 5)
"""Of the n-gram models beside the decoder."""
FEWEST_WORDS = 4
"""Words of a sentence whose order is changed."""


def need_speech_lm(run: Evaluation) -> None:
    """InputError for a model that has no units, or was not trained to continue them."""
    if run.model.vocabulary.main("units") is None:
        raise InputError("this model has no stream of units; what is scored here is one")
    if not run.knows(VARIANTS["slm"]):
        raise InputError("this model was not trained on slm, speech as units and nothing else")


def speech_scored(run: Evaluation, row: int) -> Scored:
    """A row's units and their end."""
    plan = SequenceSpec("slm", run.lang(row), outputs=(Span("units", run.cell("units", row)),))
    return alone(run.model, plan, end=True)


def unit_grams(run: Evaluation, *, order: int, end: bool) -> dict[str, NgramModel]:
    """Language → an n-gram model of the units of the training rows; with `end` of their end, too."""
    size = run.model.vocabulary.streams[_units(run)].cardinalities[0]
    sequences: dict[str, list[list[int]]] = {}
    for row in run.rows_of_training("units"):
        ids = run.cell("units", row).tolist()
        sequences.setdefault(run.lang(row), []).append([*ids, size] if end else ids)
    return {lang: NgramModel.fit(some, order=order, size=size + end) for lang, some in sequences.items()}


def _units(run: Evaluation) -> str:
    main = run.model.vocabulary.main("units")
    assert main is not None
    return main.name


def prediction_figures(run: Evaluation) -> dict[str, Any]:
    """Perplexity of an id and bits a second of speech, of the decoder and of n-gram models; an end counts as an id.

    `bits_per_second` and `seconds` are there where units have a frame rate; `less_than_n_gram` is the mean over rows of
    the bits per id that the decoder saves beside the best n-gram model, with its interval.
    """
    need_speech_lm(run)
    rows = run.rows(run.split, "units", "units_durations")
    asked = [speech_scored(run, row) for row in rows]
    rows = [row for row, one in zip(rows, asked) if fits(run.model, one)]
    if not rows:
        raise InputError(f"no rows of split {run.split!r} have units that the model has positions for")
    scores = log_probabilities(run.model, [one for one in asked if fits(run.model, one)])
    nats = {"model": np.array([-float(one.sum()) for one in scores])}
    trained = {order: unit_grams(run, order=order, end=True) for order in ORDERS}
    if all(run.lang(row) in trained[1] for row in rows):
        for order, grams in trained.items():
            nats[f"{order}_gram"] = np.array([gram_nats(grams[run.lang(row)], run, row) for row in rows])
    ids = np.array([len(one) for one in scores])
    stream = run.stream("units")
    seconds = None
    if stream is not None and stream.frame_rate is not None:
        seconds = np.array([run.cell("units_durations", row).sum() for row in rows]) / float(stream.frame_rate)
    figures: dict[str, Any] = {"count": len(rows), "ids": int(ids.sum()), "left_out": len(asked) - len(rows)}
    for name, found in nats.items():
        figures[name] = _predicted(found, ids, seconds, run.seed)
    if seconds is not None:
        figures["seconds"] = float(seconds.sum())
        figures["ids_per_second"] = float((ids - 1).sum() / seconds.sum())
    others = [name for name in nats if name != "model"]
    if others:
        best = min(others, key=lambda name: float(nats[name].sum()))
        saved = (nats[best] - nats["model"]) / ids / math.log(2)
        low, high = bootstrap_mean(saved, seed=run.seed)
        figures["less_than_n_gram"] = {"of": best, "bits_per_id": float(saved.mean()), "low": low, "high": high}
    return figures


def _predicted(nats: np.ndarray, ids: np.ndarray, seconds: np.ndarray | None, seed: int) -> dict[str, float]:
    low, high = bootstrap_ratio(nats, ids, seed=seed)
    found = {"ppl": math.exp(nats.sum() / ids.sum()), "ppl_low": math.exp(low), "ppl_high": math.exp(high)}
    if seconds is not None:
        bits = nats / math.log(2)
        low, high = bootstrap_ratio(bits, seconds, seed=seed)
        found |= {
            "bits_per_second": float(bits.sum() / seconds.sum()),
            "bits_per_second_low": low,
            "bits_per_second_high": high,
        }
    return found


def gram_nats(gram: NgramModel, run: Evaluation, row: int) -> float:
    """Negative log-probability of a row's units and their end under an n-gram model that knows ends."""
    ids = [*run.cell("units", row).tolist(), gram.size - 1]
    return -sum(math.log(gram.probability(one, ids[max(0, at - gram.order + 1) : at])) for at, one in enumerate(ids))


def order_figures(run: Evaluation) -> dict[str, Any]:
    """Real sentences against the same words in another order: `per_id` of the decoder, `n_gram` of a 5-gram of units.

    The words' units are cut out by the rows' alignments; equal neighbors become one where units are deduplicated.
    """
    need_speech_lm(run)
    random = np.random.default_rng(run.seed)
    grams = unit_grams(run, order=5, end=False)
    real, scrambled, langs = list[np.ndarray](), list[np.ndarray](), list[str]()
    for row in run.rows(run.split, "units", "units_durations"):
        pieces = word_units(run, row)
        if len(pieces) < FEWEST_WORDS:
            continue
        order = random.permutation(len(pieces))
        if (order == np.arange(len(pieces))).all():
            continue
        real.append(run.cell("units", row))
        scrambled.append(joined_units(run, [pieces[at] for at in order]))
        langs.append(run.lang(row))
    if not real:
        raise InputError(f"no rows of split {run.split!r} have times of {FEWEST_WORDS} words, and units with a rate")
    asked = [
        alone(run.model, SequenceSpec("slm", lang, outputs=(Span("units", units),)))
        for lang, both in zip(langs, zip(real, scrambled))
        for units in both
    ]
    whole = [fits(run.model, one) and fits(run.model, other) for one, other in zip(asked[0::2], asked[1::2])]
    kept = [at for at, fit in enumerate(whole) if fit]
    scores = log_probabilities(run.model, [one for at in kept for one in asked[2 * at : 2 * at + 2]])
    means = [float(one.mean()) for one in scores]
    figures = {"per_id": preferred(means[0::2], means[1::2]).to_json(), "left_out": len(whole) - len(kept)}
    if all(langs[at] in grams for at in kept):
        sides = [[_gram_mean(grams[langs[at]], side[at]) for at in kept] for side in (real, scrambled)]
        figures["n_gram"] = preferred(*sides).to_json()
    return figures


def _gram_mean(gram: NgramModel, units: Sequence[int] | np.ndarray) -> float:
    ids = np.asarray(units).tolist()
    return float(np.mean([math.log(gram.probability(one, ids[:at])) for at, one in enumerate(ids)]))
