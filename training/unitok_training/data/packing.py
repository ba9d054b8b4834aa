"""Which documents share a pack: a pure function of (seed, window), the same for every number of processes.

A window is a fixed count of consecutive examples. All of its documents are packed together; the packs are shuffled and
numbered; a process takes the packs whose number, modulo the number of processes, is its own. The state of the data is
therefore two integers, the window and the next pack in it, and no document is split, truncated or left out.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_training.data.batch import Pack, collate_packs
from unitok_training.data.documents import Documents

PACK_ORDER = 0x9AC4
"""Separates the random stream that shuffles packs from those that draw examples."""
LAID_OUT = 1 << 18
"""Positions that are laid out at once: enough to forget the cost of a call, few enough to stay in the cache."""
HELD_BACK = (6, 8)
"""Held back from the dealing to fill the room that is left: one document in so many, but at most so many a pack."""


def pack_lengths(lengths: Sequence[int] | np.ndarray, capacity: int) -> np.ndarray:
    """(D,) number of the pack of each document, 0 … P - 1; no pack above `capacity`.

    Most documents are dealt like cards, longest first, each round's longest to the emptiest pack; the others fill what
    room is left by best fit. Dealing costs next to nothing, and every pack then holds long and short documents, hence a
    mix of tasks: best fit alone gives packs of one kind, which makes the gradient of a step with few packs lopsided.
    Best fit over all needs fewer packs now and then, where windows are small: the better of the two is taken.
    """
    sizes = np.asarray(lengths, np.int64)
    assert len(sizes) and sizes.min() > 0 and sizes.max() <= capacity, f"lengths lie in 1 … {capacity}"
    order = by_number(int(sizes.max()) - sizes)  # longest first
    least = -(-int(sizes.sum()) // capacity)
    every = max(HELD_BACK[0], len(sizes) // (HELD_BACK[1] * least))
    pack, load = _deal(sizes, np.delete(order, np.s_[::every]), capacity, least)
    count = _fill(sizes, order, pack, load, capacity)
    if count > least and len(sizes) <= FEW:
        alone = np.full(len(sizes), -1)
        if _fill(sizes, order, alone, np.zeros(0, np.int64), capacity) < count:
            return alone
    return pack


FEW = 4096
"""Documents up to which packing twice costs nothing that matters."""


def by_number(keys: np.ndarray) -> np.ndarray:
    """(D,) stable order of whole numbers of 0 or more; numbers of 16 bits are sorted by their digits, not compared."""
    small = len(keys) and int(keys.max()) < 1 << 16
    return np.argsort(keys.astype(np.uint16) if small else keys, kind="stable")


def _deal(sizes: np.ndarray, order: np.ndarray, capacity: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(pack of each document or -1, (count,) load), dealing in rounds until one does not fit."""
    pack, load = np.full(len(sizes), -1), np.zeros(count, np.int64)
    for start in range(0, len(order), count):
        dealt = order[start : start + count]
        emptiest = np.argsort(load, kind="stable")[: len(dealt)]
        filled = load[emptiest] + sizes[dealt]
        if filled.max() > capacity:
            break
        load[emptiest] = filled
        pack[dealt] = emptiest
    return pack, load


def _fill(sizes: np.ndarray, order: np.ndarray, pack: np.ndarray, load: np.ndarray, capacity: int) -> int:
    """Place what has no pack yet, in order, each where it leaves the least room; returns the number of packs."""
    free = sorted((capacity - filled, number) for number, filled in enumerate(load.tolist()))  # (room, pack)
    count = len(load)
    for document in order[pack[order] < 0].tolist():
        length = int(sizes[document])
        place = bisect_left(free, (length, -1))
        if place == len(free):
            room, chosen = capacity, count
            count += 1
        else:
            room, chosen = free.pop(place)
        pack[document] = chosen
        insort(free, (room - length, chosen))
    return count


@dataclass(frozen=True)
class Window:
    """The packs of a window of examples."""

    documents: Documents
    """Its examples."""
    order: np.ndarray
    """(D,) documents, those of a pack side by side."""
    bounds: np.ndarray
    """(P + 1,) where each pack begins in `order`."""
    first: int = 0
    """Number of the example that its first document is."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, place: int) -> np.ndarray:
        """Documents of a pack."""
        return self.order[self.bounds[place] : self.bounds[place + 1]]


@dataclass(frozen=True, kw_only=True)
class DataState:
    """Where the stream of packs stands: all there is to save."""

    window: int = 0
    """Window of examples."""
    pack: int = 0
    """Next pack of that window."""


class PackStream:
    """The endless stream of packs made from `documents(indices)`, a pure function of the examples' indices.

    It must also be pure in the seed; `documents` may be called in any order and more than once.
    """

    def __init__(
        self,
        documents: Callable[[np.ndarray], Documents],
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
        self.documents, self.capacity, self.window, self.seed, self.pad = documents, capacity, window, seed, pad
        self.drawn = self.placed = 0
        self._cached: tuple[int, Window] | None = None

    @property
    def dropped_share(self) -> float:
        """Examples drawn so far that are in no pack ÷ all drawn: 0 by construction, and counted all the same."""
        return 1.0 - self.placed / self.drawn if self.drawn else 0.0

    def packs(self, window: int) -> Window:
        """The packs of a window, in the order in which they are read."""
        if self._cached is None or self._cached[0] != window:
            self._cached = (window, self._pack(window))
        return self._cached[1]

    def _pack(self, window: int) -> Window:
        documents = self.documents(np.arange(window * self.window, (window + 1) * self.window))
        longest = int(np.argmax(documents.lengths))
        if documents.lengths[longest] > self.capacity:
            raise InputError(
                f"{documents.name(longest) or 'an example'} has {documents.lengths[longest]} tokens, a pack holds "
                f"{self.capacity}: raise train.pack_size, or leave the row out of the shards (prepare --max-seconds)"
            )
        pack = pack_lengths(documents.lengths, self.capacity)
        sizes = np.bincount(pack)
        place = np.random.default_rng([self.seed, PACK_ORDER, window]).permutation(len(sizes))
        read = np.argsort(place)  # pack `read[i]` is the i-th
        order = by_number(place[pack])
        self.drawn += self.window
        self.placed += int(np.count_nonzero(np.bincount(order)))
        return Window(documents, order, np.cumsum([0, *sizes[read]]), window * self.window)

    def steps(
        self, state: DataState, *, packs_per_step: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[list[Pack], DataState]]:
        """For each step the packs of one process, and the state after the step, which all processes share.

        A step is the next `packs_per_step` packs of the global stream, whatever the number of processes.
        """
        check_shared(packs_per_step, world_size)
        mine: list[Pack] = []
        number = 0
        window, place = state.window, state.pack
        while True:
            packs = self.packs(window)
            laid = self._laid_out(packs, range(place + (rank - number) % world_size, len(packs), world_size))
            while place < len(packs):
                if number % world_size == rank:
                    mine.append(next(laid))
                number, place = number + 1, place + 1
                if number % packs_per_step == 0:
                    yield mine, DataState(window=window, pack=place)
                    mine = []
            window, place = window + 1, 0

    def chosen(
        self, state: DataState, *, packs_per_step: int, rank: int = 0, world_size: int = 1
    ) -> Iterator[tuple[list[tuple[Documents, np.ndarray]], DataState]]:
        """`steps` before anything is laid out: the window's documents, and the numbers of those of each pack."""
        check_shared(packs_per_step, world_size)
        mine: list[tuple[Documents, np.ndarray]] = []
        number, window, place = 0, state.window, state.pack
        while True:
            packs = self.packs(window)
            if place >= len(packs):
                window, place = window + 1, 0
                continue
            if number % world_size == rank:
                mine.append((packs.documents, packs[place]))
            number, place = number + 1, place + 1
            if number % packs_per_step == 0:
                yield mine, DataState(window=window, pack=place)
                mine = []

    def _laid_out(self, packs: Window, places: range) -> Iterator[Pack]:
        """Packs of a window, a few hundred thousand positions at a time.

        The number of cells is one power of two for the whole window, so that shapes repeat for a compiled step.
        """
        cells = 1 << (int(np.diff(packs.bounds).max()) + 1).bit_length()
        together = max(LAID_OUT // self.capacity, 1)
        for start in range(0, len(places), together):
            chosen = [packs[place] for place in places[start : start + together]]
            bounds = np.cumsum([0, *map(len, chosen)])
            yield from collate_packs(
                packs.documents, np.concatenate(chosen), bounds, capacity=self.capacity, pad=self.pad, cells=cells,
                first=packs.first,
            )  # fmt: skip

    def statistics(self, window: int) -> PackStatistics:
        """How well one window fills its packs."""
        packs = self.packs(window)
        used = int(packs.documents.lengths[packs.order].sum())
        return PackStatistics(
            packs=len(packs),
            documents=len(packs.order),
            padding_share=1.0 - used / (len(packs) * self.capacity),
            dropped_share=1.0 - np.count_nonzero(np.bincount(packs.order)) / self.window,
        )


def check_shared(packs_per_step: int, world_size: int) -> None:
    """InputError where a step's packs cannot be shared out evenly among the processes."""
    if packs_per_step % world_size:
        raise InputError(
            f"train.packs_per_step is {packs_per_step} with {world_size} processes: "
            "make it a multiple, so that every process has the same number of packs in a step"
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
