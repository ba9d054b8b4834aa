"""Ogg (Vorbis, Opus, FLAC): pages are walked, chained streams are told apart, and what is missing is found.

Source: RFC 3533. A page is 27 bytes, a table of segment lengths, and the segments; its flags tell where a logical
stream begins (2) and ends (4), and pages of a stream are numbered. A segment of 255 bytes goes on in the next one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from unitok_tokenizers.audio.containers.base import ContainerPart, Layout, Part, end_of_tags, read_at, unexplained

MARK = b"OggS"
BEGINS, ENDS = 2, 4
WINDOW = 1 << 16
CHECKSUM = slice(22, 26)
TURNED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
TORN = "its last page is not whole"
GOES_ON = "its last page goes on, and the next one is not there"


@dataclass(frozen=True)
class Page:
    """A page's header."""

    start: int
    """Where it begins."""
    length: int
    """Bytes, header included."""
    flags: int
    """Whether a stream begins or ends here."""
    serial: int
    """Its stream."""
    number: int
    """Its place in the stream."""
    open: bool
    """Whether its last packet goes on in the next page."""
    sound: bool
    """Whether its checksum is right: a decoder passes over one whose is not."""

    @property
    def end(self) -> int:
        """Where the next page begins."""
        return self.start + self.length


def ogg_layout(source: BinaryIO, size: int, start: int = 0) -> Layout:
    """Every link of a chain of streams, and what of its pages is not there."""
    links, ends = list[int](), list[Page | None]()
    newest: dict[int, Page] = {}
    begun = False
    missing, end = "", start
    for page in _pages(source, start, size):
        running = any(not one.flags & ENDS for one in newest.values())
        if page.start > end and running:
            missing = missing or f"{page.start - end:,} bytes between its pages are none"
        if page.flags & BEGINS:
            if begun or not links:
                if any(one.open for one in newest.values()):
                    missing = missing or GOES_ON
                if links:
                    ends.append(_alone(newest))
                links.append(page.start)
                newest, begun = {}, False
        else:
            begun = True
            before = newest.get(page.serial)
            if before is not None and page.number > before.number + 1:
                missing = missing or f"{page.number - before.number - 1:,} of its pages are not there"
        if not page.sound:
            missing = missing or f"its page {page.number} is damaged"
        newest[page.serial] = page
        end = page.end
    if end > size:
        missing = missing or TORN
    elif any(not one.flags & ENDS for one in newest.values()):  # an end that was never written is none that was lost
        rest = read_at(source, end, min(size - end, len(MARK)))
        if MARK.startswith(rest) and rest:
            missing = missing or TORN
        elif any(one.open for one in newest.values()):
            missing = missing or GOES_ON
    size = end_of_tags(source, start, size)
    if unexplained(size - end, end - start):
        missing = missing or f"{size - end:,} bytes behind its pages are none"
    links, ends = links or [start], [*ends, _alone(newest)]
    pieces = [
        ContainerPart(parts=((begin, to),) if last is None or missing else _ended(source, begin, last))
        for begin, to, last in zip(links, [*links[1:], size], ends)
    ]
    return Layout(pieces=tuple(pieces), missing=missing)


def _alone(newest: Mapping[int, Page]) -> Page | None:
    """The last page of a link with one stream; None of one with several."""
    return next(iter(newest.values())) if len(newest) == 1 else None


def _ended(source: BinaryIO, start: int, last: Page) -> tuple[Part, ...]:
    """The link from `start` to its last page, which says so: without that, Opus has no length for libsndfile."""
    page = bytearray(read_at(source, last.start, last.length))
    page[5] |= ENDS
    page[CHECKSUM] = checksum(bytes(page)).to_bytes(4, "little")
    return (start, last.start), bytes(page)


def checksum(page: bytes) -> int:
    """A page's CRC-32 (polynomial 0x04C11DB7 from the highest bit on, from 0, not inverted), its own field taken as 0.

    zlib has the same polynomial from the lowest bit on, so bits are turned around before and after.
    """
    clean = page[: CHECKSUM.start] + bytes(4) + page[CHECKSUM.stop :]
    turned = zlib.crc32(clean.translate(TURNED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)


def _pages(source: BinaryIO, position: int, size: int) -> Iterator[Page]:
    """Pages in order; the last may reach beyond the end."""
    while position < size:
        head = read_at(source, position, 27 + 255)
        if head[:4] != MARK:
            found = _next_page(source, position + 1, size)
            if found is None:
                return
            position = found
            continue
        if len(head) < 27 or len(head) < 27 + head[26]:
            yield Page(position, size - position + 1, 0, -1, 0, open=True, sound=True)
            return
        segments = head[27 : 27 + head[26]]
        length = 27 + len(segments) + sum(segments)
        whole = read_at(source, position, length)
        yield Page(
            position,
            length,
            head[5],
            int.from_bytes(head[14:18], "little"),
            int.from_bytes(head[18:22], "little"),
            open=bool(segments) and segments[-1] == 255,
            sound=len(whole) < length or checksum(whole) == int.from_bytes(whole[CHECKSUM], "little"),
        )
        position += length


def _next_page(source: BinaryIO, position: int, size: int) -> int | None:
    """Where the next page begins."""
    while position < size:
        found = read_at(source, position, WINDOW + len(MARK) - 1).find(MARK)
        if found >= 0:
            return position + found
        position += WINDOW
    return None
