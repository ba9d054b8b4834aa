"""Random numbers and orders by name: a pure function of whole-number keys, so that any draw can be repeated alone.

A generator object per example costs more than rendering the example. These numbers come from a counter instead: the
keys (seed, task, number, which draw) are folded one after another through the finalizer of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", 2014), for whole arrays at once. N draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Key = int | np.ndarray
"""A key of a draw: one whole number for all, or one for each (N,)."""

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def bits(*keys: Key) -> np.ndarray:
    """64 random bits for each combination of keys: uint64, of the keys' common shape."""
    state = np.zeros((), np.uint64)
    for key in keys:
        part = np.uint64(key & _MASK) if isinstance(key, int) else np.asarray(key).astype(np.uint64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is meant
            state = state + part + np.uint64(_GOLDEN)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def uniform(*keys: Key) -> np.ndarray:
    """Floats in [0, 1) with 53 random bits."""
    return (bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(limit: int | np.ndarray, *keys: Key) -> np.ndarray:
    """Whole numbers in [0, limit), int64; `limit` is 1 or more, for all or for each draw."""
    return (uniform(*keys) * limit).astype(np.int64)


HELD, HELD_SHARE = 1 << 16, 16
"""Places of an epoch's order that are held at least, and one in so many of all of them."""


class EpochOrder:
    """The order in which items come: a permutation of all of them, a new one for every epoch.

    Items are drawn one after another, so a stretch of the order is held, a sixteenth of it: the permutation is made
    again for the next stretch, which costs an item 2 microseconds where a million are shuffled.

    Args:
        count: I items.
        before: keys of the order in front of the epoch's number.
        after: and behind it.
    """

    def __init__(self, count: int, before: Sequence[int], after: Sequence[int] = ()) -> None:
        self.count, self.before, self.after = count, tuple(before), tuple(after)
        self._epoch, self._first = -1, 0
        self._stretch: np.ndarray = np.zeros(0, np.int32)

    def item(self, number: int) -> int:
        """The item that comes after so many others."""
        return int(self.items(np.array([number]))[0])

    def items(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) int64: `item` of each number (N,)."""
        epoch, place = np.divmod(numbers, self.count)
        found = np.empty(len(numbers), np.int64)
        for one in np.unique(epoch).tolist():
            of = epoch == one
            found[of] = self._taken(one, place[of])
        return found

    def _taken(self, epoch: int, place: np.ndarray) -> np.ndarray:
        first, last = int(place.min()), int(place.max())
        if epoch != self._epoch or not self._first <= first <= last < self._first + len(self._stretch):
            if self.count <= HELD:
                first, last = 0, self.count
            order: np.ndarray = np.arange(self.count, dtype=np.int32 if self.count <= 1 << 31 else np.int64)
            np.random.default_rng([*self.before, epoch, *self.after]).shuffle(order)
            self._epoch, self._first = epoch, first
            self._stretch = order[first : last + 1 + max(HELD, self.count // HELD_SHARE)].copy()
        return self._stretch.take(place - self._first)
