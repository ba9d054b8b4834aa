"""The columns of shards that plans are drawn from, and what a task needs of them.

R rows, I items of a task, S stretches of a column, N values, Q codebooks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from unitok_tokenizers.data.joined_rows import SPLIT as JOINED
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.registry import TaskVariant
from unitok_tokenizers.grammar.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows that a task cannot use."""

    key: str
    """Key of the mixture."""
    reason: str
    """Why."""
    rows: int
    """How many."""


@cache
def _counted(power: int, dtype: np.dtype) -> np.ndarray:
    return np.arange(1 << power, dtype=dtype)


def counting(count: int, dtype: np.dtype = np.dtype(np.int64)) -> np.ndarray:
    """(count,): 0, 1, 2, …, a view of what is made once: a new array of this size is paid for page by page."""
    return _counted(max(count, 2).bit_length(), dtype)[:count]


def spread(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """(sum of lengths,) int64: start[i], start[i] + 1, … for each of the (S,) stretches, one after another."""
    ends = np.cumsum(length)
    found = np.repeat(start - (ends - length), length)
    found += counting(len(found))
    return found


class Column:
    """Local ids of one stream, row after row, and what they are in the vocabulary.

    Args:
        name: the stream.
        parts: (N_i,) int32 values of each file, as they are mapped.
        vocabulary: turns them into global ids.
        where: the shards, for messages.
    """

    def __init__(self, name: str, parts: Sequence[np.ndarray], vocabulary: Vocabulary, where: str) -> None:
        self.name, self.parts, self.vocabulary, self.where = name, list(parts), vocabulary, where
        self.starts = np.cumsum([0, *(len(part) for part in self.parts)])
        sizes = vocabulary.streams[name].cardinalities
        self.books, self.width = len(sizes), max(sizes)
        table = np.full((self.books, self.width), -1, np.int32)  # (Q, size); -1 marks what must not occur
        for book, size in enumerate(sizes):
            table[book, :size] = vocabulary.to_ids(name, np.arange(size), book)
        if vocabulary.streams[name].kind == "text":
            table[np.isin(table, list(vocabulary.roles.values()))] = -1
        self.table = table.reshape(-1)
        self.shift: int | None = None
        """What turns every local id into a global one, where one number does and all ids may occur."""
        if self.books == 1 and (table == table[0, 0] + np.arange(self.width)).all():
            self.shift = int(table[0, 0])

    def local(self, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """(N,) int32 local ids of stretches, of which none crosses from one file into the next."""
        if len(self.parts) == 1:
            return self.parts[0].take(spread(start, length))
        found = np.empty(int(length.sum()), np.int32)
        place = np.cumsum(length) - length
        file = np.searchsorted(self.starts, start, side="right") - 1
        for number in np.unique(file):
            of = np.flatnonzero(file == number)
            values = self.parts[number].take(spread(start[of] - self.starts[number], length[of]))
            found[spread(place[of], length[of])] = values
        return found

    def ids(self, start: np.ndarray, length: np.ndarray, out: np.ndarray) -> None:
        """Global ids of stretches into `out` (N,) int32; InputError where they are none that the tokenizer makes."""
        values = self.local(start, length)
        outside = len(values) and int(values.view(np.uint32).max()) >= self.width  # a negative id reads as a huge one
        if not outside and self.shift is not None:
            np.add(values, np.int32(self.shift), out=out)
            return
        if not outside:
            places = values if self.books == 1 else values + np.tile(self._offsets, len(values) // self.books)
            self.table.take(places, out=out, mode="clip")  # checked above, and faster than checking each
            if not len(out) or int(out.min()) >= 0:
                return
        raise self._wrong(values)

    @property
    def _offsets(self) -> np.ndarray:
        return np.arange(self.books, dtype=np.int32) * self.width

    def _wrong(self, values: np.ndarray) -> InputError:
        table = self.table.reshape(self.books, self.width)
        frames = values.reshape(-1, self.books)
        for book in range(self.books):
            column = frames[:, book]
            known = (column >= 0) & (column < self.width)
            bad = ~known | (table[book][np.where(known, column, 0)] < 0)
            if bad.any():
                return InputError(
                    f"{self.where}: stream {self.name!r} codebook {book} holds id {column[bad][0]}, which its "
                    "tokenizer does not make (or which is bos, eos or pad); check with `unitok validate`, prepare again"
                )
        raise AssertionError("an id was refused that is known")


class Columns:
    """The shards' columns as arrays: names of each row in memory, ids as the files are mapped."""

    def __init__(self, shards: Shards, vocabulary: Vocabulary, split: str) -> None:
        self.shards, self.vocabulary = shards, vocabulary
        self.ids = shards.id
        self.speaker = np.asarray(shards.speaker)
        self.group = np.asarray(shards.group)
        splits = np.asarray(shards.split)
        self.split = splits == split
        """(R,) rows that examples are made of."""
        self.joined = splits == JOINED if split == "train" else np.zeros(len(splits), np.bool_)
        """(R,) rows of several utterances, for tasks that listen."""
        lang = np.asarray(shards.lang)
        self.known_language = np.isin(lang, list(vocabulary.languages))
        self.languages = sorted(set(lang.tolist()))
        self.language = np.searchsorted(self.languages, lang)  # (R,) index of the row's language
        codes = self.stream("codes")
        self.codebooks = 1 if codes is None else len(codes.cardinalities)
        self._parts: dict[str, tuple[list[np.ndarray], np.ndarray] | None] = {}

    def __len__(self) -> int:
        return len(self.language)

    def stream(self, kind: str) -> StreamInfo | None:
        """The model's main stream of a kind, None where it or the shards have none."""
        main = self.vocabulary.main(kind)
        return None if main is None else self.shards.streams.get(main.name)

    def parts(self, name: str) -> tuple[list[np.ndarray], np.ndarray] | None:
        """(values of each file, (R + 1,) offsets) of a column, None where the shards have no such stream.

        Here and below a column that is named after a kind is that of the kind's main stream.
        """
        if name not in self._parts:
            held = self.vocabulary.column(name)
            self._parts[name] = self.shards.parts(held) if held in self.shards.ragged_columns else None
        return self._parts[name]

    def offsets(self, name: str) -> np.ndarray:
        """(R + 1,) where each row's values begin."""
        found = self.parts(name)
        return np.zeros(len(self) + 1, np.int64) if found is None else found[1]

    def lengths(self, name: str) -> np.ndarray:
        """(R,) values of each row; 0 where the column is absent."""
        return np.diff(self.offsets(name))

    def column(self, name: str) -> Column | None:
        """A column of ids, None where the shards or the model have no such stream."""
        found, stream = self.parts(name), self.shards.ragged_columns.get(self.vocabulary.column(name))
        if found is None or stream is None or stream not in self.vocabulary.streams:
            return None
        return Column(stream, found[0], self.vocabulary, str(getattr(self.shards, "folder", "shards")))

    def get(self, name: str, row: int) -> np.ndarray:
        """Values of one row."""
        found = self.parts(name)
        assert found is not None, f"column {name} is absent"
        start, stop = found[1][row], found[1][row + 1]
        for part in found[0]:
            if start < len(part):
                return part[start:stop]
            start, stop = start - len(part), stop - len(part)
        return np.zeros(0, np.int32)

    @cached_property
    def _words(self) -> list[str]:
        return self.shards.table["words"].to_pylist()

    @cached_property
    def extras(self) -> list[str]:
        """Extras of each row, as the JSON they are stored in."""
        return self.shards.table["extras"].to_pylist()

    def words(self, row: int) -> list[tuple[str, float, float]]:
        """(word, start, end) in seconds; empty where a row's words are not aligned."""
        return json.loads(self._words[row])


@dataclass(frozen=True)
class Items:
    """What a task can be made of: one source row each, and for pairs the rows that may be its target."""

    source: np.ndarray
    """(I,) row of the source."""
    start: np.ndarray | None = None
    """(I,) first candidate in `pool`."""
    stop: np.ndarray | None = None
    """(I,) behind the last candidate in `pool`."""
    pool: np.ndarray | None = None
    """Rows, those of one group and language side by side."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the rows of a task variant must have."""

    source: tuple[str, ...]
    """Streams of the row that is given."""
    target: tuple[str, ...] | None
    """Streams of the row that answers; None where it is the same row."""

    @staticmethod
    def of(one: TaskVariant) -> Needs:
        """Of a variant that token shards make."""
        assert one.variant.given is not None, f"{one.key} is made of rows"
        first = int(one.opens_with_transcript)
        given = (*(kind for kind in one.variant.given if kind != "voice"), *one.outputs[:first])
        answer = one.outputs[first:]
        if one.task.pairs:
            return Needs(source=given, target=answer)
        return Needs(source=(*given, *answer), target=None)

    @property
    def text_only(self) -> bool:
        """Whether voices make no difference: what several of them say counts once."""
        return set((*self.source, *(self.target or ()))) == {"text"}


def segment_maximum(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(I,) maximum of values[start:stop] for each segment; segments are not empty."""
    padded = np.append(values, 0)
    return np.maximum.reduceat(padded, np.stack([start, stop], axis=1).reshape(-1))[::2]
