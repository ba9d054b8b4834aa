"""Pairs of which one is right, as units: the share in which a model finds the right one the more probable.

N units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.inputs import Audio
from unitok.model import Model
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.speech_lm.intervals import preferred
from unitok_training.speech_lm.scoring import alone, check_fits, fits, log_probabilities

RIGHT: Mapping[str | int, bool] = {True: True, False: False, "1": True, "0": False, "true": True, "false": False}
"""What may stand in the column `good` of a manifest of pairs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitPair:
    """Two utterances of which one is right."""

    name: str
    """What it is called, for people."""
    set: str
    """The set that it belongs to."""
    lang: str
    """Language code."""
    good: np.ndarray
    """(N,) int64 ids of the right one."""
    bad: np.ndarray
    """(N,) int64 ids of the other."""


def pair_fits(model: Model, pair: UnitPair) -> bool:
    """Whether a decoder has positions for both sides, and something to score of each."""
    plans = (SequenceSpec("slm", pair.lang, outputs=(Span("units", one),)) for one in (pair.good, pair.bad))
    return all(fits(model, one) and len(one.rest) for one in (alone(model, plan) for plan in plans))


def pair_figures(model: Model, pairs: Sequence[UnitPair], grams: Mapping[str, NgramModel]) -> dict[str, Any]:
    """Shares of pairs whose right one is the more probable.

    `per_id` compares means of log-probabilities and `sum` sums; `n_gram` compares means under the n-gram models of
    `grams` (language → a model of training units), where each language has one: what needs no network. The end of an
    utterance is not scored. `by_set` and `set_mean` are of `per_id`; pairs that sound alike are ties, and counted.
    """
    asked = []
    for pair in pairs:
        for side, units in (("good", pair.good), ("bad", pair.bad)):
            plan = SequenceSpec("slm", pair.lang, outputs=(Span("units", units),))
            asked.append(alone(model, plan))
            check_fits(model, asked[-1], f"the {side} side of pair {pair.name!r}")
    scores = log_probabilities(model, asked)
    good, bad = scores[0::2], scores[1::2]
    means = [float(one.mean()) for one in good], [float(one.mean()) for one in bad]
    figures: dict[str, Any] = {
        "per_id": preferred(*means).to_json(),
        "sum": preferred([float(one.sum()) for one in good], [float(one.sum()) for one in bad]).to_json(),
        "alike": sum(np.array_equal(pair.good, pair.bad) for pair in pairs),
    }
    if pairs and all(pair.lang in grams for pair in pairs):
        sides = [[_per_id(grams[pair.lang], units) for pair, units in zip(pairs, side)] for side in _sides(pairs)]
        figures["n_gram"] = preferred(*sides).to_json()
    names = sorted({pair.set for pair in pairs})
    if len(names) > 1:
        places = {name: [at for at, pair in enumerate(pairs) if pair.set == name] for name in names}
        figures["by_set"] = {
            name: preferred(*([side[at] for at in chosen] for side in means)).to_json()
            for name, chosen in places.items()
        }
        figures["set_mean"] = float(np.mean([one["accuracy"] for one in figures["by_set"].values()]))
    return figures


def _sides(pairs: Sequence[UnitPair]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [pair.good for pair in pairs], [pair.bad for pair in pairs]


def _per_id(gram: NgramModel, units: np.ndarray) -> float:
    """Mean log-probability of an id under an n-gram model."""
    ids = units.tolist()
    return float(np.mean([np.log(gram.probability(one, ids[:at])) for at, one in enumerate(ids)]))


# -- pairs that somebody has recorded --------------------------------------------------------------------------------


def read_pairs(path: Path | str, model: Model, *, lang: str) -> list[UnitPair]:
    """Pairs of a manifest: two rows with the same `pair`, of which one has `good` true; `set` may name their set.

    Each row has a recording, or the ids of the model's main stream of units in a column of its name.

    Raises:
        InputError: a row without `pair` or `good`, a pair that is not of two rows of one language, of which one is
            right, or what the model cannot read.
    """
    main = model.vocabulary.main("units")
    if main is None:
        raise InputError(f"{path}: this model has no units, and pairs are scored as units")
    rows = read_manifest(path, default_lang=lang, streams=() if main.name == "units" else (main.name,))
    found: dict[str, dict[bool, Row]] = {}
    for row in rows:
        where = f"{path}: row {row.id}"
        name, right = row.extras.get("pair"), row.extras.get("good")
        if not isinstance(name, str | int) or not isinstance(right, str | int) or right not in RIGHT:
            raise InputError(f"{where} has pair {name!r} and good {right!r}: give a name, and true or false")
        sides = found.setdefault(str(name), {})
        if RIGHT[right] in sides:
            raise InputError(f"{where}: pair {str(name)!r} has two rows whose good is {right!r}; give one of each")
        sides[RIGHT[right]] = row
    for name, sides in found.items():
        if len(sides) < 2:
            raise InputError(f"{path}: pair {name!r} has one row; give a right one and a wrong one")
        if sides[True].lang != sides[False].lang:
            raise InputError(f"{path}: pair {name!r} is of two languages; give both sides in one")
    ordered = [sides[side] for sides in found.values() for side in (True, False)]
    units = model.units_of([_given(row, main.name, model, str(path)) for row in ordered])
    return [
        UnitPair(
            name=name, set=str(sides[True].extras.get("set", Path(path).stem)), lang=sides[True].lang,
            good=good, bad=bad,
        )
        for (name, sides), good, bad in zip(found.items(), units[0::2], units[1::2])
    ]  # fmt: skip


def _given(row: Row, stream: str, model: Model, path: str) -> Audio:
    """What a row has to be read of: its ids, or its samples and their rate."""
    if stream in row.tokens:
        return np.asarray(row.tokens[stream], np.int64)
    if row.recorded:
        return row.load(model.sample_rate), model.sample_rate
    raise InputError(f"{path}: row {row.id} has neither a recording nor {stream}; give one of them")
