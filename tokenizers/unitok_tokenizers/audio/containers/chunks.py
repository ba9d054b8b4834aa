"""Containers made of chunks: a name, a size, a body. How each kind writes them, and what may follow the samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from unitok_tokenizers.audio.containers.base import (
    ContainerPart,
    Layout,
    clipped,
    end_of_tags,
    read_at,
    unexplained,
    without_zeros,
)

HEAD = 40
"""Bytes by which the beginning of a file is recognized."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One chunk of a container."""

    name: bytes
    """Four characters."""
    start: int
    """Where its body begins, in bytes from the file's start."""
    length: int
    """Bytes of its body as its header tells them."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a kind of file writes its chunks."""

    order: Literal["little", "big"] = "little"
    """Of numbers."""
    name_bytes: int = 4
    """Of a chunk's name; Wave64 has GUIDs, whose first four bytes are the name."""
    size_bytes: int = 4
    """Of a chunk's size."""
    with_header: bool = False
    """Whether the size counts the chunk's header too."""
    align: int = 2
    """Chunks begin at multiples of this many bytes."""
    first: int = 12
    """Where the first chunk begins."""

    @property
    def header(self) -> int:
        """Bytes of a chunk's header."""
        return self.name_bytes + self.size_bytes

    def chunk_at(self, source: BinaryIO, position: int, size: int) -> Chunk | None:
        """The chunk that begins at `position`; None where nothing does that looks like one."""
        if not 0 <= position <= size - self.header:
            return None
        head = read_at(source, position, self.header)
        printable = all(32 <= byte < 127 for byte in head[:4]) and head[:4].strip() != b""
        if len(head) < self.header or not printable:
            return None
        length = int.from_bytes(head[self.name_bytes :], self.order, signed=self.size_bytes == 8)
        return Chunk(
            name=head[:4],
            start=position + self.header,
            length=length - (self.header if self.with_header else 0),
        )

    def after(self, source: BinaryIO, end: int, size: int) -> int:
        """Where a chunk begins behind one that ends at `end`: aligned, unless its writer forgot to pad."""
        padded = end + (-end) % self.align
        forgotten = padded != end and self.chunk_at(source, end, size) and not self.chunk_at(source, padded, size)
        return end if forgotten else padded


def chunks(source: BinaryIO, family: Family, position: int, size: int) -> Iterator[Chunk]:
    """Chunks from `position` on, until the end or something that is none; the last may reach beyond the end."""
    while (chunk := family.chunk_at(source, position, size)) is not None:
        yield chunk
        if chunk.length < 0:
            return
        position = family.after(source, chunk.start + chunk.length, size)


def only_chunks(source: BinaryIO, family: Family, position: int, size: int) -> bool:
    """Whether there is nothing in [position, size) but whole chunks."""
    for chunk in chunks(source, family, position, size):
        position = chunk.start + max(0, chunk.length)
    return position in (size, size + 1)


def not_there(declared: int, present: int) -> str:
    """What is missing of samples; empty where nothing is."""
    if present >= declared:
        return ""
    return f"its header tells of {declared:,} bytes of samples, {max(0, present):,} are there"


def followed(
    pieces: tuple[ContainerPart, ...],
    source: BinaryIO,
    *,
    end: int,
    length: int,
    size: int,
    family: Family | None,
    begins: Callable[[bytes], bool],
    read: Callable[[BinaryIO, int, int], Layout | None],
) -> Layout:
    """The layout of `pieces` with what stands behind their samples: chunks, tags, or another recording.

    Args:
        pieces: what was found so far.
        source: the file.
        end: where the samples end.
        length: bytes of the samples.
        size: bytes of the file.
        family: how chunks are written; None where there are none.
        begins: whether bytes begin a recording of the same kind.
        read: reads the layout of one; takes file, size and start.
    """
    position = end if family is None else family.after(source, end, size)
    behind = [] if family is None else list(chunks(source, family, position, size))
    starts = [end, position, *(chunk.start - family.header for chunk in behind if family is not None)]
    for start in dict.fromkeys(starts):
        if start < size and begins(read_at(source, start, HEAD)) and (further := read(source, size, start)):
            own = tuple(clipped(piece, start) for piece in pieces)
            return Layout(pieces=(*own, *further.pieces), missing=further.missing, trouble=further.trouble)
    strange = 0
    for chunk in behind:
        if not 0 <= chunk.length <= size + 1 - chunk.start:
            break
        strange += chunk.length if chunk.name in (b"data", b"SSND") else 0  # a decoder reads the first of these alone
        position = chunk.start + chunk.length
    position = min(position, size)
    strange += without_zeros(source, position, end_of_tags(source, position, size)) - position
    if not unexplained(strange, length):
        return Layout(pieces=tuple(clipped(piece, position) for piece in pieces))
    return Layout(
        pieces=pieces,
        trouble=f"its header tells of {length:,} bytes of samples, and {strange:,} bytes behind them are of no known "
        "kind; mend the header, or convert the file again",
    )
