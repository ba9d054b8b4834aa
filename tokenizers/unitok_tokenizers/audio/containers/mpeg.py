"""MPEG audio (MP3 and its older layers): frames are counted, because nothing else tells their number for certain.

Without a Xing, Info or VBRI frame libsndfile estimates the length from the first frame's bit rate and stops there. The
decoder is shown an Info frame of our own with the number that was counted.

Sources: ISO/IEC 11172-3 and 13818-3 (frame headers), the Xing and VBRI headers as mpg123 and LAME write and read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import BinaryIO

from unitok_tokenizers.audio.containers.base import (
    ContainerPart,
    Layout,
    end_of_tags,
    id3v2_length,
    read_at,
    unexplained,
    without_zeros,
)

KILOBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(MPEG version, layer) → kilobits a second by bit rate index, from 1; MPEG 2.5 has those of MPEG 2."""
RATES = {0b11: (44100, 48000, 32000), 0b10: (22050, 24000, 16000), 0b00: (11025, 12000, 8000)}
"""Version bits → sample rates in Hz by index."""
CHAIN = 4
"""Frames in a row, all alike, that are no accident."""
FIRST_BYTES = 1 << 16
"""How far into a file the first frame may be."""
WINDOW, STRETCH = 1 << 20, 1 << 16
MONO = 0b11
DELAY = 529
"""Samples that mpg123 takes away where an Info frame makes it cut exactly: the delay of its synthesis."""
LAME_BYTES = 20
"""Room from which a LAME tag is looked for in an Info frame."""
LINEAR = bytes(index * 256 // 100 for index in range(100))
"""The table of contents of a recording of constant bit rate."""

PADDING = 1 << 14
"""Zeros behind the last frame that writers leave, in bytes; more of them are what was to be written."""


@dataclass(frozen=True)
class Frame:
    """A frame's header."""

    head: bytes
    """Its four bytes."""
    length: int
    """Bytes, header included."""
    samples: int
    """Samples a channel."""
    rate: int
    """Hz."""
    mono: bool
    """Whether it has one channel."""

    @property
    def kind(self) -> tuple[int, int, bool]:
        """What is the same in all frames of a recording: version and layer, rate, one channel or two."""
        return self.head[1] & 0x1E, self.rate, self.mono

    @property
    def side(self) -> int:
        """Where a Xing or Info header begins in it: behind the side information."""
        first = self.head[1] & 0b1000
        return 4 + ((17 if self.mono else 32) if first else (9 if self.mono else 17))


def frame_of(head: bytes) -> Frame | None:
    """The frame that begins with these four bytes; None where none does, or one of free bit rate."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 0b11, 4 - (head[1] >> 1 & 0b11)
    kilobits, rate, padding = head[2] >> 4, head[2] >> 2 & 0b11, head[2] >> 1 & 1
    if version == 0b01 or layer == 4 or kilobits in (0, 15) or rate == 3:
        return None
    first = version == 0b11
    hertz = RATES[version][rate]
    bits = KILOBITS[1 if first else 2, layer][kilobits - 1] * 1000
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    length = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    return Frame(bytes(head[:4]), length, samples, hertz, head[3] >> 6 == MONO)


class _Window:
    """Bytes of a file by position, read in large blocks: frames are a few hundred bytes each."""

    def __init__(self, source: BinaryIO) -> None:
        self.source, self.start, self.data = source, 0, b""

    def at(self, position: int, count: int) -> bytes:
        if not self.start <= position <= position + count <= self.start + len(self.data):
            self.source.seek(position)
            self.start, self.data = position, self.source.read(max(count, WINDOW))
        return self.data[position - self.start : position - self.start + count]


@dataclass(kw_only=True)
class _Run:
    """Frames in a row that are one recording."""

    start: int
    """Where its first frame with sound begins."""
    first: Frame
    """That frame."""
    info: Frame | None = None
    """The Xing, Info or VBRI frame before it."""
    info_start: int = 0
    """Where that begins."""
    told: int = 0
    """Frames that it tells of; 0 where it tells none."""
    told_at: int = 0
    """Where in that frame the number stands."""
    end: int = 0
    """Behind the last frame."""
    count: int = 0
    """Frames with sound."""


def first_frame(source: BinaryIO, start: int, size: int) -> int | None:
    """Where frames in a row begin, at `start` or a little behind it: what was cut out of a stream begins in the middle
    of a frame. None where nothing does."""
    return _next_chain(_Window(source), start, size, start + FIRST_BYTES)


def mpeg_layout(source: BinaryIO, start: int, size: int) -> Layout:
    """Every recording in [start, size), and whether the last frame is whole."""
    window = _Window(source)
    end = end_of_tags(source, start, size)
    runs = list(_runs(window, start, end))
    if not runs:
        return Layout(pieces=(ContainerPart(parts=((start, size),), counted=False),))
    missing = ""
    for place, run in enumerate(runs):
        if run.told and (there := run.count + _continued(run, runs[place + 1 :])) < run.told - 1:
            missing = f"its header tells of {run.told:,} frames, {there:,} are there"
    last = runs[-1]
    lost = _between(source, runs)
    if not (last.told and last.count >= last.told):  # a file whose frames are all there may have something behind it
        filled = without_zeros(source, last.end, end)
        padding = end - filled
        lost += filled - last.end + (padding if padding > PADDING else 0)  # a copy that never got further is zeros
    if unexplained(lost, sum(run.end - run.start for run in runs)):
        missing = missing or f"{lost:,} bytes between its frames or behind them are none"
    rest = window.at(last.end, 4) if last.end < end else b""
    partial = frame_of(rest)
    torn = (partial and partial.kind == last.first.kind) or (0 < end - last.end < 4 and rest[:1] == b"\xff")
    if torn and not (last.told and last.count >= last.told):
        missing = missing or "its last frame is not whole"
    return Layout(pieces=tuple(_piece(window, run) for run in runs), missing=missing)


def _continued(run: _Run, others: Sequence[_Run]) -> int:
    """Frames of the same kind behind stray bytes, up to the next recording that says how long it is."""
    following = takewhile(lambda one: one.info is None and one.first.kind == run.first.kind, others)
    return sum(one.count for one in following)


def _between(source: BinaryIO, runs: Sequence[_Run]) -> int:
    """Bytes between recordings that are neither frames nor tags."""
    count = 0
    for one, other in pairwise(runs):
        begin, end = one.end, other.info_start if other.info is not None else other.start
        while tag := id3v2_length(read_at(source, begin, min(10, max(0, end - begin)))):
            begin += tag
        count += max(0, end_of_tags(source, begin, end) - begin) if end > begin else 0
    return count


def _chained(window: _Window, position: int, end: int) -> bool:
    """Whether frames of one kind follow one another from here on, up to `CHAIN` of them or to the end."""
    kind = None
    for _ in range(CHAIN):
        if position == end and kind is not None:
            return True
        frame = frame_of(window.at(position, 4)) if position + 4 <= end else None
        if frame is None or (kind is not None and frame.kind != kind):
            return False
        kind, position = frame.kind, position + frame.length
    return True


def _next_chain(window: _Window, position: int, end: int, latest: int) -> int | None:
    """Where the next frames in a row begin, before `latest`."""
    latest = min(latest, end - 3)
    while position < latest:
        data = window.at(position, min(STRETCH, latest - position))
        found = data.find(b"\xff")
        while found >= 0:
            if _chained(window, position + found, end):
                return position + found
            found = data.find(b"\xff", found + 1)
        position += max(1, len(data))
    return None


def _runs(window: _Window, position: int, end: int) -> Iterator[_Run]:
    """Recordings, in order; what stands between them (tags, what no frame begins with) belongs to none."""
    run: _Run | None = None
    while position < end:
        head = window.at(position, min(10, end - position))
        if tag := id3v2_length(head):
            if run is not None:
                yield run
            run, position = None, position + tag
            continue
        frame = frame_of(head)
        if frame is None or (run is None or frame.kind != run.first.kind) and not _chained(window, position, end):
            if run is not None:
                yield run
                run = None
            found = _next_chain(window, position, end, end)
            if found is None:
                return
            position = found
            continue
        if position + frame.length > end:  # half a frame: `mpeg_layout` judges it
            break
        told = _told(window.at(position, frame.length), frame)
        if told is not None or run is None or frame.kind != run.first.kind:
            if run is not None:
                yield run
            run = _Run(start=position, first=frame, end=position)
        if told is not None:
            run.info, run.info_start, (run.told, run.told_at) = frame, position, told
            run.start = run.end = position + frame.length
        else:
            run.count += 1
            run.end = position + frame.length
        position += frame.length
    if run is not None:
        yield run


def _told(data: bytes, frame: Frame) -> tuple[int, int] | None:
    """(frames, where the number stands) of a Xing, Info or VBRI frame, 0 frames where it has no number; else None."""
    side = frame.side
    if data[side : side + 4] in (b"Xing", b"Info"):
        has_frames = int.from_bytes(data[side + 4 : side + 8], "big") & 1
        return (int.from_bytes(data[side + 8 : side + 12], "big"), side + 8) if has_frames else (0, 0)
    if data[36:40] == b"VBRI":
        return int.from_bytes(data[50:54], "big"), 50
    return None


def _piece(window: _Window, run: _Run) -> ContainerPart:
    """The recording behind an Info frame that tells the number of its frames: the file's own where it has one."""
    sound = (run.start, run.end)
    if not run.count or (run.first.head[1] >> 1 & 0b11) != 0b01:  # only layer III has such frames
        return ContainerPart(parts=(sound,), frames=run.count * run.first.samples, counted=False)
    if run.info is not None and run.told and abs(run.told - run.count) <= 1:
        at, behind = run.info_start + run.told_at, run.info_start + run.info.length
        return ContainerPart(parts=((run.info_start, at), run.count.to_bytes(4, "big"), (at + 4, behind), sound))
    return ContainerPart(parts=(_front(run.first, run.count), sound), skipped=run.first.samples - DELAY)


def _front(first: Frame, count: int) -> bytes:
    """An Info frame that tells of `count` frames like `first` and one of silence, and that one.

    Where there is an Info frame, mpg123 takes its own delay of 529 samples away from the sound; here, from silence.
    """
    for bits in range(1, 15):
        # no checksum, no padding
        frame = frame_of(bytes((0xFF, first.head[1] | 1, bits << 4 | first.head[2] & 0x0C, first.head[3])))
        assert frame is not None
        info = frame.head.ljust(frame.side, b"\0") + b"Info" + (1).to_bytes(4, "big") + (count + 1).to_bytes(4, "big")
        if len(info) <= frame.length:
            return info.ljust(frame.length, b"\0") + frame.head.ljust(frame.length, b"\0")
    raise AssertionError("some frame is long enough")
