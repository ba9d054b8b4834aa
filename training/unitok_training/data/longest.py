"""How long examples can be: told of every item before training begins, without drawing any.

I items of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_training.data.columns import Columns, Items, stretches
from unitok_training.data.mixture import Needs, TaskKey


def segment_maximum(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(I,) maximum of values[start:stop] for each segment; segments are not empty."""
    bounds = np.stack([start, stop], axis=1).reshape(-1)
    last = bounds == len(values)  # of stops; reduceat knows no end but that of all values
    bounds[last] = len(values) - 1
    found = np.maximum.reduceat(values, bounds)[::2]
    return np.where(last[1::2], np.maximum(found, values[-1]), found)


def most_ids(
    columns: Columns, parsed: TaskKey, items: Items, *, sentences: int, aligned: bool, voice_frames: int
) -> Iterator[np.ndarray]:
    """Most ids that an example of an item can render to, whatever is drawn around it: int64 of all items, a stretch
    at a time."""
    needs = Needs.of(parsed.of)
    marks = 24  # header, flags, at most seven spans with two marks each, eos

    def sizes(streams: Sequence[str], rows: np.ndarray) -> np.ndarray:
        return sum((columns.ids(stream, rows) for stream in streams), np.zeros(len(rows), np.int64))

    parts = list(stretches(len(items.source)))
    if parsed.of.task.interleaved:
        most = max(int(sizes((one,), items.source[part]).max()) for part in parts for one in ("text", "units"))
        rows = max(sentences, 2)
        others = most * (rows - 1) + marks + max(0, 2 * rows - 14)  # that take turns with it, each between two marks
        for part in parts:
            of = items.source[part]
            cut = sizes(("text", "units"), of) * 2 + marks
            own = np.maximum(sizes(("text",), of), sizes(("units",), of))
            yield np.maximum(cut, own + others)  # what cannot be cut at its words takes turns row by row
        return
    if parsed.of.task.infills:
        marks += 2 * int(columns.code_ids(1))  # codes in three spans: of each what a layout puts behind its last frame
    if "voice" in (parsed.of.variant.given or ()):
        marks += int(columns.code_ids(voice_frames))
    if items.pool is None:
        yield from (sizes(needs.source, items.source[part]) + marks for part in parts)
        return
    assert needs.target is not None
    answers = np.empty(len(items.pool), np.int32)
    for part in stretches(len(answers)):
        answers[part] = sizes(needs.target, items.pool[part])
    for part in parts:
        some = items.part(part)
        assert some.start is not None
        yield sizes(needs.source, some.source) + segment_maximum(answers, some.start, some.stop) + marks


@dataclass(frozen=True)
class Longest:
    """The item of a task whose examples can be longest."""

    item: int
    """Its number, the first of several."""
    ids: int
    """How many ids they can have."""
    above: int
    """Items of the task whose examples can have more than were asked about."""

    @staticmethod
    def of(bounds: Iterable[np.ndarray], capacity: int) -> Longest:
        """Of what `most_ids` gives."""
        item, ids, above, before = 0, -1, 0, 0
        for part in bounds:
            worst = int(np.argmax(part))
            if part[worst] > ids:
                item, ids = before + worst, int(part[worst])
            above += int(np.count_nonzero(part > capacity))
            before += len(part)
        return Longest(item, ids, above)
