"""Which documents share a pack: a pure function of (seed, window), the same for every number of processes.

A window is a fixed count of consecutive examples. All of its documents are packed together; the packs are shuffled and
numbered; a process takes the packs whose number, modulo the number of processes, is its own. The state of the data is
therefore two integers, the window and the next pack in it, and no document is split, truncated or left out.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_training.batch import Document, Pack, collate

PACK_ORDER = 0x9AC4
"""Separates the random stream that shuffles packs from those that draw examples."""


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: indices per pack; every index in exactly one pack, no pack above `capacity`."""
    packs: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (room left, pack), sorted
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert 0 < length <= capacity, f"document {index} has {length} positions, a pack {capacity}"
        place = bisect_left(free, (length, -1))
        if place == len(free):
            packs.append([index])
            insort(free, (capacity - length, len(packs) - 1))
            continue
        room, pack = free.pop(place)
        packs[pack].append(index)
        insort(free, (room - length, pack))
    return packs


def spread_fit(lengths: Sequence[int], capacity: int, count: int) -> list[list[int]] | None:
    """Longest document first, each into the emptiest of `count` packs; None where that does not fit.

    Every pack then holds long and short documents, hence a mix of tasks, and all are filled about equally: best fit
    alone gives packs of one kind of document, which makes the gradient of a step with few packs lopsided.
    """
    packs: list[list[int]] = [[] for _ in range(count)]
    load = [(0, pack) for pack in range(count)]
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        filled, pack = load[0]
        if filled + lengths[index] > capacity:
            return None
        packs[pack].append(index)
        heapq.heapreplace(load, (filled + lengths[index], pack))
    return packs


def pack_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As few packs as best fit needs, spread evenly where that is possible."""
    packs = best_fit(lengths, capacity)
    return spread_fit(lengths, capacity, len(packs)) or packs


@dataclass(frozen=True, kw_only=True)
class DataState:
    """Where the stream of packs stands: all there is to save."""

    window: int = 0
    """Window of examples."""
    pack: int = 0
    """Next pack of that window."""


class PackStream:
    """The endless stream of packs made from `document(index)`, a pure function of the example's index.

    It must also be pure in the seed; `document` may be called in any order and more than once.
    """

    def __init__(
        self,
        document: Callable[[int], Document],
        *,
        capacity: int,
        window: int,
        seed: int,
        pad: int,
    ) -> None:
        if capacity < 2:
            raise InputError(f"train.pack_size is {capacity}: a pack needs at least two positions")
        if window < 1:
            raise InputError(f"train.window is {window}: a window holds at least one example")
        self.document, self.capacity, self.window, self.seed, self.pad = document, capacity, window, seed, pad
        self.drawn = self.placed = 0
        self._cached: tuple[int, list[list[Document]]] | None = None

    @property
    def dropped_share(self) -> float:
        """Examples drawn so far that are in no pack ÷ all drawn: 0 by construction, and counted all the same."""
        return 1.0 - self.placed / self.drawn if self.drawn else 0.0

    def packs(self, window: int) -> list[list[Document]]:
        """Documents of every pack of a window, in the order in which they are read."""
        if self._cached is None or self._cached[0] != window:
            self._cached = (window, self._pack(window))
        return self._cached[1]

    def _pack(self, window: int) -> list[list[Document]]:
        first = window * self.window
        documents = [self.document(index) for index in range(first, first + self.window)]
        lengths = [len(document.ids) for document in documents]
        for document, length in zip(documents, lengths):
            if length > self.capacity:
                raise InputError(
                    f"{document.name or 'an example'} has {length} tokens, a pack holds {self.capacity}: "
                    f"raise train.pack_size, or leave the row out of the shards (prepare --max-seconds)"
                )
        packs = pack_lengths(lengths, self.capacity)
        self.drawn += len(documents)
        self.placed += len({index for pack in packs for index in pack})
        order = np.random.default_rng([self.seed, PACK_ORDER, window]).permutation(len(packs))
        return [[documents[i] for i in sorted(packs[place])] for place in order]

    def steps(
        self, state: DataState, *, packs_per_step: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[list[Pack], DataState]]:
        """For each step the packs of one process, and the state after the step, which all processes share.

        A step is the next `packs_per_step` packs of the global stream, whatever the number of processes.
        """
        if packs_per_step % world_size:
            raise InputError(
                f"train.packs_per_step is {packs_per_step} with {world_size} processes: "
                "make it a multiple, so that every process has the same number of packs in a step"
            )
        mine: list[Pack] = []
        number = 0
        window, place = state.window, state.pack
        while True:
            packs = self.packs(window)
            while place < len(packs):
                if number % world_size == rank:
                    mine.append(self.collate(packs[place]))
                number, place = number + 1, place + 1
                if number % packs_per_step == 0:
                    yield mine, DataState(window=window, pack=place)
                    mine = []
            window, place = window + 1, 0

    def collate(self, documents: Sequence[Document]) -> Pack:
        """One pack. The number of cells grows in powers of two, so that shapes repeat for a compiled step."""
        cells = 1 << (len(documents) + 1).bit_length()
        return collate(documents, capacity=self.capacity, pad=self.pad, cells=cells)

    def statistics(self, window: int) -> PackStatistics:
        """How well one window fills its packs."""
        packs = self.packs(window)
        used = sum(len(document.ids) for pack in packs for document in pack)
        return PackStatistics(
            packs=len(packs),
            documents=sum(map(len, packs)),
            padding_share=1.0 - used / (len(packs) * self.capacity),
            dropped_share=1.0 - sum(map(len, packs)) / self.window,
        )


@dataclass(frozen=True, kw_only=True)
class PackStatistics:
    """What packing made of one window."""

    packs: int
    """Packs of the window."""
    documents: int
    """Documents in them."""
    padding_share: float
    """Positions that hold no document ÷ all positions."""
    dropped_share: float
    """Examples of the window that are in no pack ÷ all its examples."""
