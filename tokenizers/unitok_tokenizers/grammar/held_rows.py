"""Rows of a host model that are no text and stay where they are: codes that it writes, and rows of no known meaning."""

from __future__ import annotations

from collections.abc import Sequence

from unitok_tokenizers.grammar.extents import Extent
from unitok_tokenizers.grammar.streams import StreamInfo

HOST = "host"
"""Block of ids that stand for nothing here: no stream has them, and nothing reads or writes one."""
Held = tuple[StreamInfo, tuple[int, ...]] | int
"""(a stream, its codebooks that have rows, in their order), or so many rows that stand for nothing here."""


def held_extents(held: Sequence[Held], start: int) -> list[Extent]:
    """Extents of what a host's rows from `start` on hold."""
    extents, unknown = list[Extent](), 0
    for one in held:
        if isinstance(one, int):
            extents.append(Extent(HOST, "", 0, unknown, start, one))
            unknown, start = unknown + one, start + one
            continue
        stream, books = one
        for codebook in books:
            extents.append(Extent(stream.kind, stream.name, codebook, 0, start, stream.cardinalities[codebook]))
            start += stream.cardinalities[codebook]
    return extents
