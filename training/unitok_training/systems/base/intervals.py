"""How sure a figure is: intervals over seeds, and over sentences where two systems answer the same ones.

N sentences, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np

Figures = dict[str, float]
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""0.975 quantiles of Student's t distribution for 1 to 9 degrees of freedom."""


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """(mean, half of the 95 % interval by Student's t) of the values of all seeds; no interval of one value."""
    if len(values) < 2:
        return fmean(values), None
    return fmean(values), STUDENT_T[len(values) - 2] * stdev(values) / math.sqrt(len(values))


def over_seeds(key: str, values: Sequence[float]) -> dict[str, float]:
    """{key: mean, `key.interval`: half of the 95 % interval, where there are several values}."""
    mean, half = interval(values)
    return {key: mean} if half is None else {key: mean, f"{key}.interval": half}


@dataclass(frozen=True, kw_only=True, eq=False)
class Counted:
    """A rate that is counted by sentence: errors of words, right answers, nats of ids."""

    counts: np.ndarray
    """(N,) float64: what is counted in each sentence."""
    sizes: np.ndarray
    """(N,) float64: how many could be; the rate is the one sum ÷ the other."""
    sentences: tuple[str, ...] = ()
    """N names, where several may be of one sentence, in other voices or languages; else each is of its own."""

    @property
    def rate(self) -> float:
        """Pooled over the sentences."""
        return float(self.counts.sum() / self.sizes.sum())

    @staticmethod
    def pooled(parts: Sequence[Counted]) -> Counted:
        """The same N sentences as several seeds answered them."""
        return Counted(
            counts=np.sum([one.counts for one in parts], axis=0), sizes=np.sum([one.sizes for one in parts], axis=0),
            sentences=parts[0].sentences,
        )  # fmt: skip

    @staticmethod
    def joined(parts: Sequence[Counted]) -> Counted:
        """Those of several groups, one after another."""
        return Counted(
            counts=np.concatenate([one.counts for one in parts]), sizes=np.concatenate([one.sizes for one in parts]),
            sentences=tuple(name for one in parts for name in one.sentences),
        )  # fmt: skip

    def of(self, sentences: Sequence[str]) -> Counted:
        """The same, told which sentence each is of."""
        return replace(self, sentences=tuple(sentences))

    def by_sentence(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts and sizes of each sentence: what is said in several voices is drawn as one."""
        if not self.sentences:
            return self.counts, self.sizes
        places = np.unique(self.sentences, return_inverse=True)[1]
        return np.bincount(places, self.counts), np.bincount(places, self.sizes)


def paired_difference(one: Counted, other: Counted, *, resamples: int, seed: int) -> tuple[float, float, float]:
    """(rate of one − rate of the other, lower and upper end of its 95 % interval) by a paired bootstrap.

    Each resample draws N sentences with replacement, the same for both (Koehn 2004; Bisani and Ney 2004).
    """
    assert len(one.counts) == len(other.counts), "a paired bootstrap is of the same sentences"
    assert one.sentences == other.sentences, "… in the same order"
    parts = [part.by_sentence() for part in (one, other)]
    count = len(parts[0][0])
    drawn = np.random.default_rng([seed, count]).integers(count, size=(resamples, count))  # (R, N)
    rates = [counts[drawn].sum(1) / sizes[drawn].sum(1) for counts, sizes in parts]
    low, high = np.quantile(rates[0] - rates[1], (0.025, 0.975))
    return one.rate - other.rate, float(low), float(high)


def compared(key: str, one: Sequence[Counted], other: Sequence[Counted], *, resamples: int, seed: int) -> Figures:
    """`key`, `key.low` and `key.high`: how much larger the rate of one system is than of another, over all seeds."""
    found = paired_difference(Counted.pooled(one), Counted.pooled(other), resamples=resamples, seed=seed)
    return dict(zip((key, f"{key}.low", f"{key}.high"), found))


def seeds_and_rates(arms: Mapping[str, Sequence[Counted]], key: str) -> Figures:
    """`ARM.key` and its interval, of every arm."""
    found: Figures = {}
    for arm, parts in arms.items():
        found |= over_seeds(f"{arm}.{key}", [one.rate for one in parts])
    return found
