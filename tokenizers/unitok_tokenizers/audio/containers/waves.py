"""WAV and its descendants RIFX, RF64, BW64 and Wave64: the decoder is shown a plain WAV of format and samples.

Sources: Microsoft's RIFF description, EBU Tech 3306 (RF64), Sony's Wave64 description.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from unitok_tokenizers.audio.containers.base import ContainerPart, Layout, Part, never_filled_in, read_at
from unitok_tokenizers.audio.containers.chunks import Family, chunks, followed, not_there, only_chunks
from unitok_tokenizers.audio.containers.mpeg import mpeg_layout

MPEG_TAGS = (0x50, 0x55)
PLAIN_TAGS = (1, 3, 6, 7, 0xFFFE)
"""PCM, float, A-law, µ-law and the extensible form of these: as many samples as bytes tell."""
HEADER_BYTES = 8
"""Of a file, which its own size leaves out."""
TAIL_BYTES = 4096
"""In which a chunk behind the samples would show."""
IN_DS64 = 0xFFFFFFFF
"""A size that stands in 64 bits elsewhere."""
LONGEST_FORMAT = 1024
LARGEST = 0xFFFF0000
"""Bytes of samples from which a view says "to the end", for want of bits."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """What stands before the samples."""

    family: Family
    form: bytes
    """Body of the format chunk."""
    start: int
    """Where the samples begin."""
    declared: int
    """Bytes of samples that it tells of."""
    bits: int
    """Width of that number."""
    frames: int
    """Samples a channel that a fact chunk tells of; 0 where none does."""


def is_wave(head: bytes) -> bool:
    """Whether these bytes begin one of these files."""
    plain = head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE"
    return plain or head[:4] == b"riff" and head[24:28] == b"wave"


def _header(source: BinaryIO, size: int, start: int) -> _Header | None:
    magic = read_at(source, start, 4)
    family = Family(order="big" if magic == b"RIFX" else "little")
    if magic == b"riff":
        family = Family(name_bytes=16, size_bytes=8, with_header=True, align=8, first=40)
    form, frames, wide = b"", 0, None
    for chunk in chunks(source, family, start + family.first, size):
        match chunk.name:
            case b"fmt ":
                form = read_at(source, chunk.start, min(chunk.length, LONGEST_FORMAT))
            case b"fact":
                frames = int.from_bytes(read_at(source, chunk.start, 4), family.order)
            case b"ds64":
                wide = struct.unpack("<QQ", read_at(source, chunk.start + 8, 16).ljust(16, b"\0"))
            case b"data":
                if len(form) < 16:
                    return None
                declared, bits = chunk.length, 8 * family.size_bytes
                if wide is not None and declared == IN_DS64:
                    declared, bits, frames = wide[0], 64, frames if frames != IN_DS64 else wide[1]
                return _Header(family=family, form=form, start=chunk.start, declared=declared, bits=bits, frames=frames)
    return None


def wave_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What a wave file that begins at `start` says; None where it has no format or no samples."""
    head = _header(source, size, start)
    if head is None:
        return None
    declared, present = head.declared, size - head.start
    if head.bits == 32 and present > declared + (1 << 32):  # a size beyond 4 GiB lost its upper bits
        declared += (present - declared) >> 32 << 32
    if declared == 0 and only_chunks(source, head.family, head.start, size):
        return Layout(pieces=_pieces(source, head, 0))
    if never_filled_in(declared, bits=head.bits) and not 0 < declared <= present:
        declared = present
    counted = declared in (size - start, size - start - HEADER_BYTES)  # some recorders count the header, or most of it
    if counted and b"LIST" not in read_at(source, max(head.start, size - TAIL_BYTES), TAIL_BYTES):
        declared = present
    pieces = _pieces(source, head, min(declared, present))
    if missing := not_there(declared, present):
        return Layout(pieces=pieces, missing=missing)
    end = head.start + declared
    return followed(
        pieces, source, end=end, length=declared, size=size, family=head.family, begins=is_wave, read=wave_layout
    )


def _pieces(source: BinaryIO, head: _Header, length: int) -> tuple[ContainerPart, ...]:
    """The view: a header without anything that is not needed, and the samples."""
    order = head.family.order
    tag = int.from_bytes(head.form[:2], order)
    if tag in MPEG_TAGS:
        return mpeg_layout(source, head.start, head.start + length).pieces
    form = head.form.ljust(len(head.form) + len(head.form) % 2, b"\0")
    # libsndfile reads sizes of 8 and 0 as "to the end"
    riff, data = (20 + len(form) + length, length) if length < LARGEST else (8, 0)
    front = b"".join((
        b"RIFX" if order == "big" else b"RIFF", riff.to_bytes(4, order), b"WAVE",
        b"fmt ", len(head.form).to_bytes(4, order), form,
        b"data", data.to_bytes(4, order),
    ))  # fmt: skip
    parts: tuple[Part, ...] = (front, (head.start, head.start + length))
    return (ContainerPart(parts=parts, frames=head.frames if head.frames and tag not in PLAIN_TAGS else None),)
