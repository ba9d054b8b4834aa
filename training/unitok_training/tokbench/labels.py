"""What was said in each frame, and how well clusters agree with it: purity and normalized mutual information.

T frames, K clusters, P labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic

PHONES, CHARACTERS = "phones", "characters of timed words"
"""What a corpus names the frames by: `extras.segments`, or the letters of `words`, each word's time shared evenly."""

Span = tuple[str, float, float]
"""(name, start, end) in seconds."""


@dataclass(frozen=True, kw_only=True)
class Labeling:
    """How the frames of a corpus are named."""

    kind: str
    """`PHONES` or `CHARACTERS`."""
    numbers: Mapping[str, int]
    """Name → number."""

    @staticmethod
    def of(rows: Sequence[Row]) -> Labeling | None:
        """Phones where any row has them, else characters where any row has timed words, else None."""
        for kind in (PHONES, CHARACTERS):
            names = sorted({name for row in rows for name, _, _ in spans_of(row, kind)})
            if names:
                return Labeling(kind=kind, numbers={name: number for number, name in enumerate(names)})
        return None

    def frames(self, row: Row, frames: int, rate: float) -> np.ndarray:
        """(T,) number of what is said at the middle of each frame of a row; -1 where nothing is, or nobody knows."""
        return frame_labels(spans_of(row, self.kind), frames, rate, self.numbers)


def spans_of(row: Row, kind: str) -> Iterator[Span]:
    """What is said when; InputError, naming the row, for segments that are not understood."""
    if kind == CHARACTERS:
        for word, start, end in row.words:
            letters = basic(word).replace(" ", "")
            edges = np.linspace(start, end, len(letters) + 1).tolist()
            yield from zip(letters, edges, edges[1:])
        return
    segments = row.extras.get("segments") or ()
    try:
        found = [(str(name), float(start), float(end)) for name, start, end in segments]
    except (TypeError, ValueError):
        raise InputError(
            f"row {row.id}: segments are {repr(segments)[:60]}: write a list of [phone, start, end] in seconds"
        ) from None
    yield from found


def frame_labels(spans: Iterator[Span], frames: int, rate: float, numbers: Mapping[str, int]) -> np.ndarray:
    """(T,) number of the span at the middle of each frame, at `rate` frames a second; -1 where there is none."""
    found = np.full(frames, -1)
    middles = (np.arange(frames) + 0.5) / rate
    for name, start, end in spans:
        found[(middles >= start) & (middles < end)] = numbers[name]
    return found


def joint_counts(clusters: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
    """(K, P) frames of each cluster and label; frames of label -1 do not count, nor those that one of both lacks."""
    pairs = [(a[: len(b)], b[: len(a)]) for a, b in zip(clusters, labels, strict=True)]
    units = np.concatenate([np.zeros(0, np.int64), *(a for a, _ in pairs)])
    said = np.concatenate([np.zeros(0, np.int64), *(b for _, b in pairs)])
    units, said = units[said >= 0], said[said >= 0]
    table = np.zeros((units.max(initial=0) + 1, said.max(initial=0) + 1), dtype=np.int64)
    np.add.at(table, (units, said), 1)
    return table


def purity(clusters: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """Share of frames whose phone is the commonest of their cluster: phone purity (Hsu et al. 2021)."""
    table = joint_counts(clusters, labels)
    return float(table.max(axis=1).sum() / max(table.sum(), 1))


def cluster_purity(clusters: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> float:
    """Share of frames whose cluster is the commonest of their phone."""
    table = joint_counts(clusters, labels)
    return float(table.max(axis=0).sum() / max(table.sum(), 1))


def shared_information(table: np.ndarray) -> tuple[float, float, float]:
    """Counts (K, P) → mutual information, entropy of the clusters and of the labels, in nats."""
    shares = table / max(table.sum(), 1)
    one, other = entropy(shares.sum(axis=1)), entropy(shares.sum(axis=0))
    return one + other - entropy(shares.ravel()), one, other


def nmi(table: np.ndarray) -> float:
    """Counts (K, P) → mutual information ÷ mean of both entropies; 0 where there is no entropy."""
    shared, one, other = shared_information(table)
    return shared / ((one + other) / 2) if one + other > 0 else 0.0


def pnmi(table: np.ndarray) -> float:
    """Counts (K, P) → mutual information ÷ entropy of the labels: phone-normalized (Hsu et al. 2021)."""
    shared, _, other = shared_information(table)
    return shared / other if other > 0 else 0.0


def entropy(shares: np.ndarray) -> float:
    """Of probabilities (N,), in nats."""
    kept = shares[shares > 0]
    return float(-(kept * np.log(kept)).sum())
