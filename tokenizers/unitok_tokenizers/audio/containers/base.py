"""A recording as the decoder is shown it: views of its bytes with headers mended, and what of it is missing.

libsndfile decodes; it also believes headers. A size that was never filled in, a length that was estimated from the
first frames, a second file behind the first: each makes it stop early without a word. So the container is read here
first, and the decoder is given one *view* for each piece, whose header tells the truth.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO

Part = bytes | tuple[int, int]
"""Bytes of our own, or a range [start, end) of the file."""

PLACEHOLDER = 0x7FFF0000
"""A 32-bit size from here on was written to a pipe and never filled in: the largest sizes that there are."""
ROUND, LEAST_ROUND = 1_000_000, 1_000_000_000
"""So was a multiple of a million bytes beyond a billion: nobody records exactly that."""
UNEXPLAINED_BYTES, UNEXPLAINED_SHARE = 4096, 4
"""Bytes behind the samples that are no chunk, tag or recording: more than this many and than this share (one in …) of
the samples are too many to be passed over, because a header may have told too small a size."""


@dataclass(frozen=True, kw_only=True)
class ContainerPart:
    """One recording inside a file; files that were joined have several."""

    parts: tuple[Part, ...]
    """What the decoder is shown, in order."""
    frames: int | None = None
    """Samples a channel, where the container counts them and the decoder, which knows whole blocks, has some more."""
    skipped: int = 0
    """Samples a channel at the beginning of the view that are not the recording's."""
    counted: bool = True
    """Whether the decoder's own count of samples is exact: fewer decoded samples are then a fault."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All that a container says."""

    pieces: tuple[ContainerPart, ...]
    """Recordings in the order in which they play; at least one."""
    missing: str = ""
    """What shows that the file was cut; empty where it is whole."""
    trouble: str = ""
    """Why the file cannot be read as it is, with the remedy; empty where it can."""
    known: bool = True
    """False where only the decoder knows the container."""
    self_delimiting: bool = field(default=True)
    """False where the decoder alone finds the end (FLAC): bytes that it never looked at are then a fault."""


def whole_file(size: int) -> Layout:
    """A container that only the decoder knows."""
    return Layout(pieces=(ContainerPart(parts=((0, size),)),), known=False)


def never_filled_in(size: int, *, bits: int = 32) -> bool:
    """Whether a declared size in bytes is what writers to a pipe leave; 0 is, where bytes follow."""
    return (
        size <= 0
        or size >= (PLACEHOLDER if bits == 32 else 1 << 62)
        or (size >= LEAST_ROUND and size % ROUND == 0)
    )  # fmt: skip


def unexplained(behind: int, samples: int) -> bool:
    """Whether `behind` bytes of no known kind are too many to ignore beside `samples` bytes of samples."""
    return behind > max(UNEXPLAINED_BYTES, samples // UNEXPLAINED_SHARE)


def read_at(source: BinaryIO, start: int, count: int) -> bytes:
    """Up to `count` bytes from `start`; none where a damaged header leads before the file or beyond any."""
    if not 0 <= start < 1 << 62 or count <= 0:
        return b""
    source.seek(start)
    return source.read(count)


def end_of_tags(source: BinaryIO, start: int, size: int) -> int:
    """Where the samples end in [start, size): before tags that players put at a file's end, and zeros behind them."""
    while True:
        end = without_zeros(source, start, size)
        if end - start >= 128 and read_at(source, end - 128, 3) == b"TAG":  # ID3v1, always 128 bytes
            size = end - 128
        elif size - start >= 128 and read_at(source, size - 128, 3) == b"TAG":
            size -= 128
        elif size - start >= 32 and read_at(source, size - 32, 8) == b"APETAGEX":
            footer = read_at(source, size - 32, 32)
            length = int.from_bytes(footer[12:16], "little") + (32 if footer[23] & 0x80 else 0)  # with its header
            if not 32 <= length <= size - start:
                return size
            size -= length
        elif size - start >= 9 and read_at(source, size - 9, 9) == b"LYRICS200":
            digits = read_at(source, size - 15, 6)
            if not digits.isdigit() or int(digits) + 15 > size - start:
                return size
            size -= int(digits) + 15
        else:
            return size


def without_zeros(source: BinaryIO, start: int, size: int) -> int:
    """The end of [start, size) without zeros behind it, if these are many."""
    end = size
    while end > start:
        block = read_at(source, max(start, end - 4096), min(4096, end - start))
        kept = len(block.rstrip(b"\0"))
        end -= len(block) - kept
        if kept:
            break
    return end


def clipped(piece: ContainerPart, end: int) -> ContainerPart:
    """The piece without what stands behind byte `end` of the file."""
    parts: list[Part] = []
    for part in piece.parts:
        if isinstance(part, bytes):
            parts.append(part)
        elif part[0] < end:
            parts.append((part[0], min(part[1], end)))
    return replace(piece, parts=tuple(parts))


def id3v2_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag that begins with these ten bytes; 0 where none does."""
    if len(head) < 10 or head[:3] != b"ID3" or head[3] == 0xFF or any(byte & 0x80 for byte in head[6:10]):
        return 0
    length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + length + (10 if head[5] & 0x10 else 0)  # with its footer


class View(io.RawIOBase):
    """A read-only file of parts, for the decoder."""

    def __init__(self, source: BinaryIO, parts: Sequence[Part]) -> None:
        super().__init__()
        self.source = source
        self.parts = [part for part in parts if (len(part) if isinstance(part, bytes) else part[1] - part[0]) > 0]
        lengths = [len(part) if isinstance(part, bytes) else part[1] - part[0] for part in self.parts]
        self.starts = [sum(lengths[:index]) for index in range(len(lengths))]
        self.size = sum(lengths)
        self.position = 0
        self.reached = 0
        """The furthest byte that was read."""

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position."""
        return self.position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, never before the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes."""
        done, wanted = 0, min(len(buffer), max(0, self.size - self.position))
        while done < wanted:
            index = bisect_right(self.starts, self.position) - 1
            part, inside = self.parts[index], self.position - self.starts[index]
            if isinstance(part, bytes):
                data = part[inside : inside + wanted - done]
            else:
                data = read_at(self.source, part[0] + inside, min(wanted - done, part[1] - part[0] - inside))
            if not data:  # the file became shorter while it was read
                break
            buffer[done : done + len(data)] = data
            done += len(data)
            self.position += len(data)
        self.reached = max(self.reached, self.position)
        return done
