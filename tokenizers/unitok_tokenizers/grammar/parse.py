"""From ids back to a plan: the inverse of rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.positions import FINE, FLUSH, FRAME, Frames, codes_of, places_with_slots
from unitok_tokenizers.grammar.sequence import (
    STREAM_OF_KIND,
    Parsed,
    Span,
    check_conditions,
    check_flags,
    check_interleaved,
)
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS, FLAGS, MODALITIES, STATES, TaskSpec, closer, opener
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary


@dataclass
class _Reader:
    """A cursor over ids that names what it stumbles on."""

    ids: np.ndarray
    vocabulary: Vocabulary
    frames: Frames | None = None
    at: int = 0
    beside: int = 0
    """Positions with slots that were read."""

    def more(self) -> bool:
        return self.at < len(self.ids)

    def name(self) -> str:
        """What stands here, for messages and for look-ups by name."""
        return (self.vocabulary.describe(int(self.ids[self.at])).name or "text") if self.more() else "the end"

    def take(self, name: str) -> bool:
        # By id, not by name: a host model may use one id for several roles.
        if self.more() and int(self.ids[self.at]) == self.vocabulary.control(name):
            self.at += 1
            return True
        return False

    def expect(self, name: str) -> None:
        if not self.take(name):
            raise InputError(f"position {self.at}: expected {name}, found {self.name()}")

    def inside(self, offset: int, stream: str, codebook: int) -> bool:
        """Whether the id `offset` places on belongs to a codebook of a stream."""
        at = self.at + offset
        ranges = self.vocabulary.block_ranges(stream, codebook)
        return at < len(self.ids) and any(start <= self.ids[at] < stop for start, stop in ranges)

    def frames_at(self, info: StreamInfo) -> bool:
        """Whether ids of a codec's first codebook begin frames, and are not units that view it."""
        pattern = self.vocabulary.patterns.get(info.name)
        if pattern is None:  # no second codebook after the first: units
            return len(info.cardinalities) < 2 or self.inside(1, info.name, 1)
        if pattern.slots and self.frames is not None:
            return self.at + len(pattern.inline) - 1 in self.frames.index
        first = pattern.inline[: pattern.coarse or None]
        behind = self.at + self.count(*(self.vocabulary.block_ranges(info.name, q) for q in first))
        mark = FINE if pattern.coarse else FLUSH if pattern.flush else None
        return mark is None or behind >= len(self.ids) or int(self.ids[behind]) == self.vocabulary.control(mark)

    def count(self, *places: Sequence[tuple[int, int]]) -> int:
        """Ids from here on that belong to ranges that come round in turn."""
        rest = self.ids[self.at :]
        inside = np.zeros(len(rest), dtype=np.bool_)
        for place, ranges in enumerate(places):
            for start, stop in ranges:
                here = rest[place :: len(places)]
                inside[place :: len(places)] |= (here >= start) & (here < stop)
        inside &= ~np.isin(rest, list(self.vocabulary.roles.values()))
        return len(rest) if inside.all() else int(inside.argmin())

    def run(self, stream: str) -> np.ndarray:
        """Content of one stream from here on: (N,), or (F, Q) for codes."""
        vocabulary = self.vocabulary
        info, pattern = vocabulary.streams[stream], vocabulary.patterns.get(stream)
        if pattern is not None:
            return self._two_passes(pattern) if pattern.coarse else self._framed(pattern)
        books = range(len(info.cardinalities))
        taken = self._taken(stream, books, self.count(*(vocabulary.block_ranges(stream, q) for q in books)))
        return taken if info.kind == "codes" else taken[:, 0]

    def _taken(self, stream: str, books: Sequence[int], count: int) -> np.ndarray:
        """(F, Q) local ids of the next `count` ids, whose codebooks come round in turn; InputError within a frame."""
        taken, width = self.ids[self.at : self.at + count], len(books)
        self.at += count
        if count % width and self.more():
            raise InputError(f"position {self.at}: {stream} stop inside a frame of {width} codebooks")
        rows = taken[: count // width * width].reshape(-1, width)
        return np.stack([self.vocabulary.to_local(stream, rows[:, i], book) for i, book in enumerate(books)], axis=1)

    def _two_passes(self, pattern: FramePattern) -> np.ndarray:
        """(F, Q) codes whose first codebooks stand before `<fine>`; of the frames that have all of theirs."""
        stream, books = pattern.stream, pattern.inline
        first, rest = books[: pattern.coarse], books[pattern.coarse :]
        found = self._taken(stream, first, self.count(*(self.vocabulary.block_ranges(stream, q) for q in first)))
        fine, frames = np.zeros((0, len(rest)), np.int64), len(found)
        if frames and self.more():
            self.expect(FINE)
            count = self.count(*(self.vocabulary.block_ranges(stream, q) for q in rest))
            fine = self._taken(stream, rest, min(count, frames * len(rest)))
            if len(fine) < frames and self.more():
                raise InputError(f"position {self.at}: {FINE} has {len(fine)} frames of {stream}, not {frames}")
        codes = np.zeros((len(fine), len(books)), np.int64)
        codes[:, list(books)] = np.concatenate([found[: len(fine)], fine], axis=1)
        return codes

    def _framed(self, pattern: FramePattern) -> np.ndarray:
        """(F, Q) codes that stand beside ids, of the frames that are complete; -1 where nobody says what they are."""
        vocabulary, start = self.vocabulary, self.at
        if pattern.inline:
            ranges = [vocabulary.block_ranges(pattern.stream, q) for q in pattern.inline]
            inline = self._taken(pattern.stream, pattern.inline, self.count(*ranges))
        else:
            count = self.count([(mark := vocabulary.control(FRAME), mark + 1)])
            self.at += count
            inline = np.zeros((count, 0), np.int64)
        flushed = 0
        while flushed < pattern.flush and len(inline) and self.take(FLUSH):
            flushed += 1
        if len(inline) and flushed < pattern.flush and self.more():
            raise InputError(f"position {self.at}: {flushed} {FLUSH} before {self.name()}, not {pattern.flush}")
        slots = None
        if self.frames is not None:
            slots = self._slots(self.frames, start + places_with_slots(pattern, len(inline), flushed))
        return codes_of(pattern, inline, flushed, slots)

    def _slots(self, frames: Frames, places: np.ndarray) -> np.ndarray:
        """(P, S) codes beside ids; InputError where there are none."""
        rows = np.searchsorted(frames.index, places)
        known = rows < len(frames)
        known[known] = frames.index[rows[known]] == places[known]
        if not known.all():
            raise InputError(f"position {places[~known][0]}: no codes stand beside this id of a frame")
        self.beside += len(places)
        return frames.slots[rows]


def parse(ids: np.ndarray | Sequence[int], vocabulary: Vocabulary, frames: Frames | None = None) -> Parsed:
    """The plan that ids say, and `frames` beside them; the inverse of `render` (a forced prefix is part of its output).

    Where a layout has codes beside ids and no frames are given, these codes are -1.

    Raises:
        InputError: the ids break the grammar, or codes stand beside others than those of frames; the message names the
            position and what stood there. Ids that merely stop early, anywhere after the conditions, give
            `complete=False`.
    """
    reader = _Reader(np.asarray(ids, dtype=np.int64), vocabulary, frames)
    reader.expect("<bos>")
    line = task_spec(reader.name().strip("<>"))
    reader.at += 1
    languages = [_read_language(reader) for _ in range(line.languages)]
    flags = []
    while (name := reader.name()) in FLAGS:
        flags.append(name)
        reader.at += 1
    check_flags(line, flags)
    conditions = []
    while not line.interleaved and (kind := _take_opener(reader)) is not None:
        conditions.append(_read_content(reader, kind))
        reader.expect(closer(kind))
    check_conditions(line, [span.kind for span in conditions])
    # Interleaved outputs begin here, others after their first generate mark.
    start = reader.at if line.interleaved else reader.at + 1 if reader.more() else None
    outputs, complete = _read_interleaved(reader) if line.interleaved else _read_outputs(reader, line, flags)
    if complete and reader.more():
        raise InputError(f"position {reader.at}: {reader.name()} after the end of the sequence")
    if frames is not None and reader.beside != len(frames):
        raise InputError(f"codes stand beside {len(frames)} ids, of which {reader.beside} are of frames; lay them anew")
    target = languages[1] if line.languages == 2 else None
    return Parsed(line.name, languages[0], target, tuple(flags), tuple(conditions), tuple(outputs), complete, start)


def _read_language(reader: _Reader) -> str:
    name = reader.name()
    code = name.removeprefix("<lang:").removesuffix(">")
    if not name.startswith("<lang:") or code not in reader.vocabulary.languages:
        raise InputError(f"position {reader.at}: expected a language, found {name}")
    reader.at += 1
    return code


def _take_opener(reader: _Reader) -> str | None:
    return next((kind for kind in CONDITION_KINDS if reader.take(opener(kind))), None)


def _stream_at(reader: _Reader, kind: str) -> str | None:
    """Stream of a span's content: its first id tells, and the main stream is assumed where there is none."""
    streams = reader.vocabulary.streams
    main = reader.vocabulary.main("codes" if kind == "voice" else STREAM_OF_KIND[kind])
    usual = None if main is None else main.name
    token = reader.vocabulary.describe(int(reader.ids[reader.at])) if reader.more() else None
    framed = reader.vocabulary.framed
    if token is not None and token.name == FRAME and framed is not None and kind in ("codes", "voice"):
        return framed.stream
    if token is None or token.tokenizer not in streams or kind in ("text", "hyp", "kw", "tool"):
        return usual
    info = streams[token.tokenizer]
    views = [name for name, stream in streams.items() if stream.views == info.name]
    units = reader.vocabulary.main("units")
    view = units.name if units is not None and units.name in views else next(iter(views), None)
    if view is not None and kind == "units":
        return view
    if view is not None and kind == "voice" and not reader.frames_at(info):
        return view
    fits = info.kind == kind or (kind == "voice" and info.kind in ("units", "codes"))
    return info.name if fits else usual


def _read_content(reader: _Reader, kind: str) -> Span:
    if kind == "lat":
        start = reader.at
        while reader.take("<lat>"):
            pass
        return Span(kind, np.zeros(reader.at - start, dtype=np.int64))
    if kind == "state":
        found = next((place for place, name in enumerate(STATES) if reader.take(name)), None)
        if found is None:
            raise InputError(f"position {reader.at}: expected one of {' '.join(STATES)}, found {reader.name()}")
        return Span(kind, np.asarray([found]))
    stream = _stream_at(reader, kind)
    if stream is None:
        return Span(kind, np.zeros(0, dtype=np.int64), "codes" if kind == "voice" else None)
    content = reader.run(stream)
    usual = Span(kind, content)  # a main stream goes by its kind's name, as in what was rendered
    main = reader.vocabulary.main(usual.stream or "")
    return usual if main is not None and main.name == stream else Span(kind, content, stream)


def _read_outputs(reader: _Reader, line: TaskSpec, flags: Sequence[str]) -> tuple[list[Span], bool]:
    outputs: list[Span] = []
    for index, kind in enumerate(output_kinds(line.name, flags)):
        marks = (["<then>"] if index and line.then else []) + [f"<gen:{kind}>"]
        for mark in marks:
            if not reader.more():
                return outputs, False
            reader.expect(mark)
        if kind == "state" and not reader.more():
            return outputs, False
        outputs.append(_read_content(reader, kind))
        if not reader.more():
            return outputs, False
        reader.expect(closer(kind))
    if not reader.more():
        return outputs, False
    reader.expect("<eos>")
    return outputs, True


def _read_interleaved(reader: _Reader) -> tuple[list[Span], bool]:
    outputs: list[Span] = []
    while reader.more():
        if outputs and reader.take("<eos>"):
            check_interleaved(outputs)
            return outputs, True
        kind = next((kind for kind in MODALITIES if reader.take(opener(kind))), None)
        if kind is None:
            raise InputError(f"position {reader.at}: expected <text>, <units> or <eos>, found {reader.name()}")
        if outputs and outputs[-1].kind == kind:
            place = f"position {reader.at - 1}"
            raise InputError(f"{place}: an interleaved sequence alternates text and units; {kind} follows {kind}")
        outputs.append(_read_content(reader, kind))
    if outputs:
        check_interleaved(outputs if len(outputs[-1]) else outputs[:-1])
    return outputs, False
