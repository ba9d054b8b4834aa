"""Rows of a host model that are no text and stay where they are: codes that it writes, and rows of no known meaning."""

from __future__ import annotations

from collections.abc import Sequence

from unitok_tokenizers.grammar.extents import Extent
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.streams import StreamInfo

HOST = "host"
"""Block of ids that stand for nothing here: no stream has them, and nothing reads or writes one."""
Held = tuple[StreamInfo, FramePattern | None] | int
"""(a stream, where its codes stand; flat where None), or so many rows that stand for nothing here."""


def held_extents(held: Sequence[Held], start: int) -> list[Extent]:
    """Extents of what a host's rows from `start` on hold; of a stream only codebooks whose ids stand in sequences."""
    extents, unknown = list[Extent](), 0
    for one in held:
        if isinstance(one, int):
            extents.append(Extent(HOST, "", 0, unknown, start, one))
            unknown, start = unknown + one, start + one
            continue
        stream, pattern = one
        if pattern is not None:
            pattern.check(stream)
        for codebook in range(len(stream.cardinalities)) if pattern is None else pattern.inline:
            extents.append(Extent(stream.kind, stream.name, codebook, 0, start, stream.cardinalities[codebook]))
            start += stream.cardinalities[codebook]
    return extents


def first_extents(text: StreamInfo, held: Sequence[Held], *, control: int, language: int) -> tuple[Extent, ...]:
    """What a vocabulary begins with: text, what a host's rows behind it hold, then control and language ids."""
    size = text.cardinalities[0]
    rows = held_extents(held, size)
    start = size + sum(extent.size for extent in rows)
    return (
        Extent("text", text.name, 0, 0, 0, size),
        *rows,
        Extent("control", "", 0, 0, start, control),
        Extent("language", "", 0, 0, start + control, language),
    )


def held_streams(held: Sequence[Held]) -> tuple[dict[str, StreamInfo], dict[str, FramePattern]]:
    """(streams by name, the patterns of those that are not flat)."""
    known = [one for one in held if not isinstance(one, int)]
    patterns = {stream.name: pattern for stream, pattern in known if pattern is not None and not pattern.plain}
    return {stream.name: stream for stream, _ in known}, patterns
