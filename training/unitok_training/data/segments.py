"""Documents as segments: stretches of a shard's columns between control ids, made into ids for many documents at once.

A rendered example is a header, some marks, and stretches of rows that stand in the shards already. A segment says which
column, where it begins, how long it is and whether it is learnt; ids come into being only when packs are laid out, by a
few gathers over a few hundred thousand positions.

D documents, S segments, N positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.tasks.base import closer, opener
from unitok_tokenizers.grammar.tasks.registry import task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.columns import Column, spread


@dataclass(frozen=True)
class ColumnSpans:
    """One stretch of a column for each document."""

    column: int
    """Which column of the batch; 0 are the control ids."""
    start: np.ndarray
    """(D,) first value."""
    length: np.ndarray
    """(D,) values; 0 where a document has none."""

    def parted(self, first: np.ndarray, stop: np.ndarray) -> tuple[ColumnSpans, ColumnSpans, ColumnSpans]:
        """What stands before the values from `first` (D,) to `stop` (D,), these, and what stands behind them."""
        before = ColumnSpans(self.column, self.start, first)
        inside = ColumnSpans(self.column, self.start + first, stop - first)
        return before, inside, ColumnSpans(self.column, self.start + stop, self.length - stop)


@dataclass(frozen=True)
class Segments:
    """Documents of one kind, their segments one after another."""

    count: np.ndarray
    """(D,) segments of each document."""
    column: np.ndarray
    """(S,) int16; several folders of shards have their own."""
    start: np.ndarray
    """(S,) int64."""
    length: np.ndarray
    """(S,) int64."""
    weight: np.ndarray
    """(S,) float32; 1 where the segment is learnt."""

    @staticmethod
    def of(parts: Sequence[tuple[ColumnSpans, float]]) -> Segments:
        """Documents that all have the same parts, each with its weight."""
        documents = len(parts[0][0].start)
        return Segments(
            count=np.full(documents, len(parts)),
            column=np.tile(np.array([part.column for part, _ in parts], np.int16), documents),
            start=np.stack([part.start for part, _ in parts], axis=1).reshape(-1),
            length=np.stack([part.length for part, _ in parts], axis=1).reshape(-1),
            weight=np.tile(np.array([weight for _, weight in parts], np.float32), documents),
        )


@dataclass
class SpecialTokens:
    """The control ids that documents are made with, each run of them stored once."""

    vocabulary: Vocabulary
    """Names the ids."""
    ids: list[int] = field(default_factory=list)
    """All runs one after another."""
    known: dict[tuple[int, ...], int] = field(default_factory=dict)
    """Run → where it begins."""

    def place(self, run: tuple[int, ...]) -> int:
        """Where a run of ids stands."""
        if run not in self.known:
            self.known[run] = len(self.ids)
            self.ids += run
        return self.known[run]

    def same(self, names: Sequence[str], documents: int | np.ndarray) -> ColumnSpans:
        """The same marks in D documents, or where a (D,) mask says so. `<eos>` is the end of a sequence."""
        run = tuple(self.vocabulary.eos if name == "<eos>" else self.vocabulary.control(name) for name in names)
        there = np.ones(documents, np.bool_) if isinstance(documents, int) else documents
        return ColumnSpans(0, np.full(len(there), self.place(run)), there * len(run))

    def headers(
        self, task: str, flags: Sequence[str], languages: Sequence[str], source: np.ndarray, target: np.ndarray
    ) -> ColumnSpans:
        """bos, task, languages and flags of D documents; (D,) indices into `languages`, -1 for no target."""
        vocabulary, width = self.vocabulary, len(languages) + 1
        flagged = tuple(vocabulary.control(flag) for flag in flags)
        pair = source * width + target + 1
        places = np.zeros(width * width, np.int64)
        for code in np.flatnonzero(np.bincount(pair)).tolist():
            named = (languages[code // width], *([languages[code % width - 1]] if code % width else []))
            said = tuple(vocabulary.language(name) for name in named)
            places[code] = self.place((vocabulary.bos, vocabulary.control(f"<{task}>"), *said, *flagged))
        return ColumnSpans(0, places[pair], np.full(len(pair), 2 + task_spec(task).languages + len(flagged)))


def left_out(
    conditions: Sequence[tuple[str, ColumnSpans]], there: np.ndarray, kinds: Sequence[str]
) -> list[tuple[str, ColumnSpans]]:
    """(kind, content) of conditions, of length 0 where a (D,) mask says so: those of some kinds, or all without any."""
    return [
        (kind, replace(one, length=np.where(there, 0, one.length)) if not kinds or kind in kinds else one)
        for kind, one in conditions
    ]


def compose(
    task: str,
    header: ColumnSpans,
    conditions: Sequence[tuple[str, ColumnSpans]],
    outputs: Sequence[tuple[str, ColumnSpans]],
    marks: SpecialTokens,
) -> Segments:
    """Documents of a task that is not interleaved, as `render` makes them of plans with these (kind, content) spans.

    A condition of length 0 is left out with its marks. Loss starts behind the first generate mark.
    """
    documents = len(header.start)
    parts: list[tuple[ColumnSpans, float]] = [(header, 0.0)]
    for kind, content in conditions:
        there = content.length > 0
        parts += [(marks.same((opener(kind),), there), 0.0), (content, 0.0), (marks.same((closer(kind),), there), 0.0)]
    then = ("<then>",) if task_spec(task).then else ()
    before: tuple[str, ...] = (f"<gen:{outputs[0][0]}>",)
    for number, (kind, content) in enumerate(outputs):
        parts += [(marks.same(before, documents), float(number > 0)), (content, 1.0)]
        following = (*then, f"<gen:{outputs[number + 1][0]}>") if number + 1 < len(outputs) else ("<eos>",)
        before = (closer(kind), *following)
    return Segments.of([*parts, (marks.same(before, documents), 1.0)])


def compose_interleaved(
    header: ColumnSpans, spans: Sequence[Sequence[tuple[str, int, int, int]]], marks: SpecialTokens
) -> Segments:
    """Interleaved documents: of each its (kind, column, start, length) spans in turn."""
    switch = {kind: marks.same((opener(kind),), 1) for kind in ("text", "units")}
    end = marks.same(("<eos>",), 1)
    column, start, length, weight = [], [], [], []
    for number, found in enumerate(spans):
        column.append(0)
        start.append(header.start[number])
        length.append(header.length[number])
        weight.append(0.0)
        for kind, source, first, size in found:
            column += [0, source]
            start += [switch[kind].start[0], first]
            length += [1, size]
            weight += [1.0, 1.0]
        column.append(0)
        start.append(end.start[0])
        length.append(1)
        weight.append(1.0)
    return Segments(
        count=np.array([2 + 2 * len(found) for found in spans]),
        column=np.array(column, np.int16),
        start=np.array(start, np.int64),
        length=np.array(length, np.int64),
        weight=np.array(weight, np.float32),
    )


class DrawnDocuments:
    """Documents of several kinds in the order of their numbers.

    Args:
        columns: what segments refer to, from 1 on; control ids are column 0.
        marks: those control ids.
        groups: for each kind its documents' numbers (D_i,) and segments.
        tasks: (D,) index of the task line of each document.
        id_weights: (V,) float32 weight of every id as a label, or None where all weigh the same.
        name: what a document was made from.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        marks: SpecialTokens,
        groups: Sequence[tuple[np.ndarray, Segments]],
        tasks: np.ndarray,
        *,
        id_weights: np.ndarray | None,
        name: Callable[[int], str],
    ) -> None:
        self.columns, self.marks, self.id_weights, self.name, self.tasks = columns, marks, id_weights, name, tasks
        self.first, self.count = np.zeros(len(tasks), np.int64), np.zeros(len(tasks), np.int64)
        self.lengths, self.prefix_lengths = np.zeros(len(tasks), np.int64), np.zeros(len(tasks), np.int64)
        behind = 0
        self.laid = [number for number, one in enumerate(columns, 1) if one.pattern is not None]
        """Columns whose values are no ids yet, codes of a layout: such segments have another size than length."""
        sizes = []
        for numbers, group in groups:
            ends, size = np.cumsum(group.count), self._sizes(group)
            sizes.append(size)
            self.first[numbers], self.count[numbers] = behind + ends - group.count, group.count
            self.lengths[numbers] = np.add.reduceat(size, ends - group.count)
            given = np.where(group.weight > 0, 0, size)
            self.prefix_lengths[numbers] = np.add.reduceat(given, ends - group.count)
            behind += len(group.start)
        parts = [group for _, group in groups]
        self.column = np.concatenate([group.column for group in parts])
        self.start = np.concatenate([group.start for group in parts])
        self.length = np.concatenate([group.length for group in parts])
        self.size = np.concatenate(sizes) if self.laid else self.length
        self.weight = np.concatenate([group.weight for group in parts])

    def _sizes(self, group: Segments) -> np.ndarray:
        """(S,) ids of segments."""
        size = group.length.copy() if self.laid else group.length
        for number in self.laid:
            of = group.column == number
            size[of] = self.columns[number - 1].sizes(size[of])
        return size

    def rendered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First each column's stretches, joined behind the control ids; then all segments in order from there."""
        which = spread(self.first[chosen], self.count[chosen])
        column, start, length, size = (one[which] for one in (self.column, self.start, self.length, self.size))
        behind = len(self.marks.ids)
        bank = np.empty(behind + int(size[column > 0].sum()), np.int32)
        bank[:behind] = self.marks.ids
        for number, source in enumerate(self.columns, 1):
            of = np.flatnonzero(column == number)
            if len(of):
                sizes = size[of]
                ends = behind + np.cumsum(sizes)
                if number in self.laid:
                    bank[behind : ends[-1]] = np.concatenate([one.ids for one in source.laid(start[of], length[of])])
                else:
                    source.ids(start[of], sizes, out=bank[behind : ends[-1]])
                start[of], behind = ends - sizes, int(ends[-1])
        ids = bank.take(spread(start, size))
        weight = np.repeat(self.weight[which], size)
        if self.id_weights is not None:
            weight *= self.id_weights.take(ids)
        return ids, weight

    def frames(self, chosen: np.ndarray) -> Frames | None:
        """Codes beside the ids that `rendered` gives; None where the vocabulary has no slots."""
        pattern = self.marks.vocabulary.framed
        if pattern is None:
            return None
        which = spread(self.first[chosen], self.count[chosen])
        column, start, length, size = (one[which] for one in (self.column, self.start, self.length, self.size))
        begin, found = np.cumsum(size) - size, list[Frames]()
        for number in self.laid:
            of = np.flatnonzero(column == number)
            laid = self.columns[number - 1].laid(start[of], length[of])
            found += [one.frames.shifted(int(begin[at])) for at, one in zip(of, laid) if one.frames is not None]
        found.sort(key=lambda one: int(one.index[0]) if len(one) else -1)  # several folders have a column each
        return Frames.joined([(0, one) for one in found], len(pattern.slots))
