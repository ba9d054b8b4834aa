"""Figures about shards: lengths, languages, speakers, how much of each codebook is used, what occurs twice.

N rows, T ids, Q codebooks, K ids of a codebook.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.streams import StreamInfo, ids_column

EXAMPLES = 5
"""Duplicates that are shown."""


@dataclass(frozen=True, kw_only=True)
class CodebookUse:
    """How the ids of one codebook are used."""

    stream: str
    """Whose."""
    codebook: int
    """Number, from 0."""
    size: int
    """K."""
    count: int
    """Ids in all."""
    used: int
    """How many different ones."""
    perplexity: float
    """Two to the entropy of their shares: as if so many were used equally often."""

    @property
    def share(self) -> float:
        """Used ids ÷ K."""
        return self.used / self.size


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Rows that are equal in something."""

    what: str
    """Text, or the stream whose ids are equal."""
    rows: int
    """Rows that equal an earlier one."""
    examples: tuple[tuple[str, ...], ...]
    """Ids of some that are equal to one another."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a folder of shards holds."""

    rows: int
    """N."""
    hours: float
    """Of recordings."""
    splits: Mapping[str, int]
    """Name → rows."""
    languages: Mapping[str, tuple[int, float]]
    """Code → rows and hours."""
    speakers: Mapping[str, tuple[int, float]]
    """Name → rows and hours, those with most first; empty where unknown."""
    codebooks: tuple[CodebookUse, ...]
    """Of every stream, text's too."""
    duplicates: tuple[Duplicates, ...]
    """Of texts within a language, and of each stream made from recordings."""


def statistics(shards: Shards) -> Statistics:
    """Count everything; needs as much memory as the longest column of ids."""
    streams = list(shards.streams.values())
    speech = [info for info in streams if info.kind != "text"]
    return Statistics(
        rows=len(shards),
        hours=float(shards.seconds.sum()) / 3600,
        splits={name: rows for name, (rows, _) in _by(shards, "split").items()},
        languages=_by(shards, "lang"),
        speakers=_by(shards, "speaker"),
        codebooks=tuple(use for info in streams for use in codebook_use(shards, info)),
        duplicates=(_equal_texts(shards), *(_equal_ids(shards, info) for info in speech)),
    )


def _by(shards: Shards, column: str) -> dict[str, tuple[int, float]]:
    """Rows and hours of each name in a column, those with most rows first."""
    numbers, names = shards.factors(column)
    rows = np.bincount(numbers, minlength=len(names))
    hours = np.bincount(numbers, shards.seconds, minlength=len(names)) / 3600
    found = zip(names.to_pylist(), rows.tolist(), hours.tolist())
    return {name: (count, length) for name, count, length in sorted(found, key=lambda one: (-one[1], one[0]))}


def codebook_use(shards: Shards, info: StreamInfo) -> list[CodebookUse]:
    """How a stream uses its codebooks; ids as they are stored, so that runs of deduplicated units count once."""
    counts = [np.zeros(size, np.int64) for size in info.cardinalities]
    for values in shards.values(ids_column(info.name)):
        frames = values.reshape(-1, len(counts))
        for book, sums in enumerate(counts):
            sums += np.bincount(frames[:, book], minlength=len(sums))
    return [_use(info.name, book, sums) for book, sums in enumerate(counts)]


def _use(stream: str, codebook: int, counts: np.ndarray) -> CodebookUse:
    total = int(counts.sum())
    shares = counts[counts > 0] / max(total, 1)
    return CodebookUse(
        stream=stream,
        codebook=codebook,
        size=len(counts),
        count=total,
        used=len(shares),
        perplexity=float(np.exp2(-(shares * np.log2(shares)).sum())) if total else 0.0,
    )


def _equal_texts(shards: Shards) -> Duplicates:
    numbers, _ = shards.factors("lang")
    told = ((index, f"{numbers[index]} {text}".encode()) for index, text in enumerate(shards.text) if text)
    return _equal(shards, "text", told)


def _equal_ids(shards: Shards, info: StreamInfo) -> Duplicates:
    column = ids_column(info.name)
    cells = ((index, shards.cell(column, index)) for index in range(len(shards)))
    return _equal(shards, info.name, ((index, cell.tobytes()) for index, cell in cells if len(cell)))


def _equal(shards: Shards, what: str, contents: Iterable[tuple[int, bytes]]) -> Duplicates:
    """Rows of equal content: 16 bytes of a hash stand for each."""
    first: dict[bytes, int] = {}
    again: list[tuple[int, int]] = []
    for index, content in contents:
        own = first.setdefault(hashlib.blake2b(content, digest_size=16).digest(), index)
        if own != index:
            again.append((own, index))
    groups: dict[int, list[int]] = {}
    for own, index in again:
        if own in groups or len(groups) < EXAMPLES:
            groups.setdefault(own, [own]).append(index)
    examples = tuple(tuple(shards.id[group[:EXAMPLES]].tolist()) for group in groups.values())
    return Duplicates(what=what, rows=len(again), examples=examples)


def histogram(values: np.ndarray, bins: int = 24) -> list[tuple[float, float, int]]:
    """(from, to, how many) of values (N,), in equal steps; the last one holds the longest hundredth too."""
    if not len(values):
        return []
    end = float(np.quantile(values, 0.99)) or float(values.max()) or 1.0
    counts, edges = np.histogram(np.minimum(values, end), bins=bins, range=(0.0, end))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist()))


def chosen_rows(shards: Shards, count: int) -> list[int]:
    """At most `count` rows to look at: the first of each language, then others spread over the folder."""
    numbers, names = shards.factors("lang")
    some = [int(np.argmax(numbers == number)) for number in range(len(names))]
    spread = [round(place) for place in np.linspace(0, max(len(shards) - 1, 0), count)]
    found = dict.fromkeys([*some, *spread] if len(shards) else [])
    return sorted(list(found)[:count])
