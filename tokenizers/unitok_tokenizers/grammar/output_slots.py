"""What an output is made of while it is generated: marks that are forced, and runs of content.

Ranges of ids, half-open, say what may stand somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of ids, ascending and apart."""


@dataclass(frozen=True)
class Mark:
    """One forced id."""

    id: int

    shortest = 1


@dataclass(frozen=True)
class Content:
    """A run of items, each one id per codebook, closed by `close`; what `behind` has stands between the two."""

    codebooks: tuple[Ranges, ...]
    close: int
    limit: int
    """Most items; further ones are not allowed."""
    behind: tuple[Ranges, ...] = ()
    """What is forced behind the last item: a mark, or marks for what is delayed."""
    again: tuple[Ranges, ...] = ()
    """Codebooks of a second pass behind that, over all items."""
    slots: bool = False
    """Codes stand beside the last id of an item and beside the ids of `behind`."""
    heard: bool = False
    """These are units whose order the codes after them keep."""
    follows: bool = False
    """These are codes whose first codebook says the units before them, each for a frame or more, in their order."""
    single: bool = False
    """The grammar gives one item: to close behind it cuts nothing."""
    counted: bool = False
    """These are units for each of which one item follows in a later slot."""
    paired: bool = False
    """These are those items: as many as there were units."""
    kind: str = ""
    """Kind of the span."""

    @cached_property
    def stop(self) -> Ranges:
        """What ends the items: the closer, or what comes before it."""
        return self.behind[0] if self.behind else (only(self.close),)

    @cached_property
    def choice(self) -> Ranges:
        """The first codebook or the end: what a frame boundary leaves open."""
        return merge([*self.codebooks[0], *self.stop])

    @property
    def shortest(self) -> int:
        """Ids of one item and the closer."""
        return len(self.codebooks) + self.owed(1) + 1

    def owed(self, items: int) -> int:
        """Ids between so many items and the closer."""
        return len(self.behind) + items * len(self.again) if items else 0

    def forced(self, place: int, items: int) -> Ranges:
        """What stands at a place behind so many items, the closer at last."""
        if place < len(self.behind):
            return self.behind[place]
        if place < self.owed(items):
            return self.again[(place - len(self.behind)) % len(self.again)]
        return (only(self.close),)


def only(token: int) -> tuple[int, int]:
    """The range of one id."""
    return (token, token + 1)


def merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Half-open ranges in any order, made ascending and apart."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def without(ranges: Ranges, banned: Sequence[int]) -> Ranges:
    """Take single ids out of ranges: a host model's bos, eos and pad stand among its text pieces."""
    for token in banned:
        halves = [((a, token), (token + 1, b)) if a <= token < b else ((a, b),) for a, b in ranges]
        ranges = tuple(part for parts in halves for part in parts if part[0] < part[1])
    return ranges
