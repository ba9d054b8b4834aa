"""What a recording is, by its first bytes, never by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from unitok_tokenizers.audio.containers import flac, mpeg, ogg, sized, waves
from unitok_tokenizers.audio.containers.base import Layout, id3v2_length, read_at, whole_file
from unitok_tokenizers.audio.containers.chunks import HEAD

Reader = Callable[[BinaryIO, int, int], Layout | None]
READERS: tuple[tuple[Callable[[bytes], bool], Reader], ...] = (
    (waves.is_wave, waves.wave_layout),
    (sized.is_aiff, sized.aiff_layout),
    (sized.is_au, sized.au_layout),
    (sized.is_caf, sized.caf_layout),
    (sized.is_sphere, sized.sphere_layout),
    (sized.is_voc, sized.voc_layout),
    (lambda head: head.startswith(ogg.MARK), ogg.ogg_layout),
    (lambda head: head.startswith(flac.MARK), flac.flac_layout),
)


def probe(source: BinaryIO, size: int) -> Layout:
    """The layout of a recording of `size` bytes; the decoder's own judgment where its kind is not known here."""
    start = 0
    while tag := id3v2_length(read_at(source, start, 10)):
        start += tag
    head = read_at(source, start, HEAD)
    for begins, read in READERS:
        if begins(head):
            return read(source, size, start) or whole_file(size)
    first = mpeg.first_frame(source, start, size)
    return whole_file(size) if first is None else mpeg.mpeg_layout(source, first, size)
