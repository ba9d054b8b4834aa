"""AIFF, AU, CAF, NIST Sphere and VOC: what their headers tell of the length of the samples, and what is there.

Sources: Apple's descriptions of AIFF-C and CAF, Sun's AU header, NIST's SPHERE header,
Creative's VOC blocks.
"""

from __future__ import annotations

from typing import BinaryIO, Literal

from unitok_tokenizers.audio.containers.base import ContainerPart, Layout, Part, never_filled_in, read_at
from unitok_tokenizers.audio.containers.chunks import Chunk, Family, chunks, followed, not_there, only_chunks

AIFF = Family(order="big")
CAF = Family(order="big", size_bytes=8, align=1, first=8)
LARGEST = 0xFFFFFFFE
VOC_SOUND = (1, 2, 9)
"""Kinds of VOC blocks that hold sound."""


def is_aiff(head: bytes) -> bool:
    """Whether these bytes begin an AIFF or AIFF-C file."""
    return head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC")


def is_au(head: bytes) -> bool:
    """Whether these bytes begin an AU file of either byte order."""
    return head[:4] in (b".snd", b"dns.")


def is_caf(head: bytes) -> bool:
    """Whether these bytes begin a CAF file."""
    return head[:4] == b"caff" and head[4:6] == b"\0\1"


def is_sphere(head: bytes) -> bool:
    """Whether these bytes begin a NIST Sphere file."""
    return head[:8] == b"NIST_1A\n"


def is_voc(head: bytes) -> bool:
    """Whether these bytes begin a Creative Voice file."""
    return head.startswith(b"Creative Voice File\x1a")


def voc_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What a VOC file says: blocks of a kind and 24 bits of length, of which the decoder reads one with sound."""
    position = start + int.from_bytes(read_at(source, start + 20, 2), "little")
    whole = (ContainerPart(parts=((start, size),)),)
    sounds = 0
    while len(head := read_at(source, position, 4)) == 4 and head[0]:
        length = int.from_bytes(head[1:], "little")
        if missing := not_there(length, size - position - 4):
            return Layout(pieces=whole, missing=missing)
        sounds += head[0] in VOC_SOUND
        position += 4 + length
    if sounds > 1:
        return Layout(pieces=whole, trouble=f"it has {sounds} blocks of sound; convert it to WAV or FLAC")
    return Layout(pieces=whole)


def aiff_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What an AIFF file that begins at `start` says; None where it has no format or no samples."""
    common = data = None
    for chunk in chunks(source, AIFF, start + AIFF.first, size):
        if chunk.name == b"COMM":
            common = chunk
        if chunk.name == b"SSND":
            data = chunk
            if common is not None:
                break
    if common is None or data is None:
        return None
    whole = (ContainerPart(parts=((start, size),)),)
    first = data.start + 8  # behind an offset and a block size
    declared, present = data.length - 8, max(0, size - first)
    if declared <= 0 and only_chunks(source, AIFF, first, size):
        return Layout(pieces=whole)
    open_ended = never_filled_in(declared) or never_filled_in(data.length)
    if open_ended and not 0 < declared <= present:
        return Layout(pieces=(_filled_in(source, common, data, present, start, size),))
    if missing := not_there(declared, present):
        return Layout(pieces=whole, missing=missing)
    return followed(
        whole, source, end=first + declared, length=declared, size=size, family=AIFF, begins=is_aiff, read=aiff_layout
    )


def _filled_in(source: BinaryIO, common: Chunk, data: Chunk, present: int, start: int, size: int) -> ContainerPart:
    """A view of an AIFF file whose sizes are filled in."""
    form = read_at(source, common.start, 8)
    width = max(1, int.from_bytes(form[:2], "big") * -(-int.from_bytes(form[6:8], "big") // 8))

    def number(value: int) -> bytes:
        return min(value, LARGEST).to_bytes(4, "big")

    return ContainerPart(
        parts=(
            (start, start + 4), number(size - start - 8),
            (start + 8, common.start + 2), number(present // width),
            (common.start + 6, data.start - 4), number(present + 8),
            (data.start, size),
        )
    )  # fmt: skip


def au_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What an AU file that begins at `start` says; a size of all ones reaches to the end."""
    head = read_at(source, start, 24)
    if len(head) < 24:
        return None
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    first = start + int.from_bytes(head[4:8], order)
    declared, present = int.from_bytes(head[8:12], order), size - first
    if never_filled_in(declared) and not 0 < declared <= present:
        field = min(max(present, 0), LARGEST).to_bytes(4, order)
        parts: tuple[Part, ...] = ((start, start + 8), field, (start + 12, size))
        return Layout(pieces=(ContainerPart(parts=parts),))
    whole = (ContainerPart(parts=((start, size),)),)
    if missing := not_there(declared, present):
        return Layout(pieces=whole, missing=missing)
    return followed(
        whole, source, end=first + declared, length=declared, size=size, family=None, begins=is_au, read=au_layout
    )


def caf_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What a CAF file that begins at `start` says; a size of −1 reaches to the end."""
    for chunk in chunks(source, CAF, start + CAF.first, size):
        if chunk.name != b"data":
            continue
        present = size - chunk.start
        if never_filled_in(chunk.length, bits=64):
            parts: tuple[Part, ...] = ((start, chunk.start - 8), present.to_bytes(8, "big"), (chunk.start, size))
            return Layout(pieces=(ContainerPart(parts=parts),))
        whole = (ContainerPart(parts=((start, size),)),)
        if missing := not_there(chunk.length, present):
            return Layout(pieces=whole, missing=missing)
        end = chunk.start + chunk.length
        return followed(
            whole, source, end=end, length=chunk.length, size=size, family=CAF, begins=is_caf, read=caf_layout
        )
    return None


def sphere_layout(source: BinaryIO, size: int, start: int = 0) -> Layout | None:
    """What a NIST Sphere file says: its header is text, and tells of samples and their width."""
    lines = read_at(source, start, 1024).split(b"\n")
    fields = {name: value for name, _, value in (line.split(b" ", 2) for line in lines if line.count(b" ") >= 2)}
    try:
        width = int(fields[b"sample_n_bytes"]) * int(fields.get(b"channel_count", b"1"))
        declared, present = int(fields[b"sample_count"]) * width, size - start - int(lines[1])
    except (KeyError, ValueError, IndexError):
        return None
    coded = b"," in fields.get(b"sample_coding", b"")  # "pcm,embedded-shorten-v2.00": fewer bytes than samples
    return Layout(
        pieces=(ContainerPart(parts=((start, size),)),), missing="" if coded else not_there(declared, present)
    )
