"""The columns of shards that plans are drawn from, and what a task needs of them.

R rows, I items of a task, S stretches of a column, N values, Q codebooks.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from unitok_tokenizers.data.joined_rows import SPLIT as JOINED
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.data.tables.base import MIXED
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.positions import Laid, ids_of_frames, lay_codes
from unitok_tokenizers.grammar.streams import StreamInfo, ids_column
from unitok_tokenizers.grammar.vocabulary import Vocabulary


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


STRETCH = 1 << 16
"""Rows that are looked at together: numbers of all rows of a million-row folder would be 8 MB for each step."""


def stretches(count: int) -> Iterator[slice]:
    """Slices of so many rows, one after another."""
    return (slice(start, min(start + STRETCH, count)) for start in range(0, count, STRETCH))


def rows_in(mask: np.ndarray) -> Iterator[np.ndarray]:
    """int64 rows where a mask (R,) holds, a stretch at a time."""
    for part in stretches(len(mask)):
        yield np.flatnonzero(mask[part]) + part.start


def rows_where(mask: np.ndarray) -> np.ndarray:
    """(K,) rows where a mask (R,) holds, in 4 bytes each while these hold them."""
    found = np.empty(np.count_nonzero(mask), row_type(len(mask)))
    filled = 0
    for rows in rows_in(mask):
        found[filled : filled + len(rows)] = rows
        filled += len(rows)
    return found


def looked_up(table: np.ndarray, index: np.ndarray) -> np.ndarray:
    """table[index], without the index in 8 bytes each that numpy makes of it."""
    found = np.empty(len(index), table.dtype)
    for part in stretches(len(index)):
        found[part] = table[index[part]]
    return found


def row_type(count: int) -> np.dtype:
    """What holds so many rows, or places among them."""
    return np.dtype(np.int32 if count < 1 << 31 else np.int64)


def signed(numbers: np.ndarray) -> np.ndarray:
    """Numbers of -1 and more in as few bytes as hold them."""
    return numbers.astype(np.min_scalar_type(-1 - int(numbers.max(initial=0))))


def side_by_side(mask: np.ndarray, key: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows where a mask (R,) holds, those of one key side by side and in order.

    Args:
        mask: (R,) bool.
        key: (R,) key of each row, 0 … keys - 1 where the mask holds.
        keys: K.

    Returns:
        (I,) rows, and (K + 1,) where those of each key begin.
    """
    first = np.zeros(keys + 1, row_type(len(mask)))
    for rows in rows_in(mask):
        first[1:] += np.bincount(key[rows], minlength=keys).astype(first.dtype)
    np.cumsum(first, out=first)
    found, free = np.empty(int(first[-1]), row_type(len(mask))), first[:-1].copy()
    for rows in rows_in(mask):
        rows = rows[np.argsort(key[rows], kind="stable")]
        own = key[rows]
        begins = np.flatnonzero(np.diff(own, prepend=-1))
        sizes = np.diff(begins, append=len(own))
        found[free[own] + np.arange(len(own)) - np.repeat(begins, sizes)] = rows
        free[own[begins]] += sizes.astype(free.dtype)
    return found, first


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
        self.shift: int | None = None
        """What turns every local id into a global one, where one number does and all ids may occur."""
        self.pattern = vocabulary.patterns.get(name)
        """Where codes stand, if not all of a frame's ids one after another: such a column is `laid`."""
        self.table = np.zeros(0, np.int32)
        if self.pattern is not None:
            return
        table = np.full((self.books, self.width), -1, np.int32)  # (Q, size); -1 marks what must not occur
        for book, size in enumerate(sizes):
            table[book, :size] = vocabulary.to_ids(name, np.arange(size), book)
        if vocabulary.streams[name].kind == "text":
            table[np.isin(table, list(vocabulary.roles.values()))] = -1
        self.table = table.reshape(-1)
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

    def sizes(self, length: np.ndarray) -> np.ndarray:
        """(S,) ids that stretches of so many values become."""
        return length if self.pattern is None else ids_of_frames(self.pattern, length // self.books, self.books)

    def laid(self, start: np.ndarray, length: np.ndarray) -> Iterator[Laid]:
        """Ids of each stretch, with what stands beside them; InputError for codes that the tokenizer does not make."""
        values, begin = self.local(start, length), 0
        for size in length.tolist():
            codes = values[begin : begin + size].reshape(-1, self.books)
            yield lay_codes(codes, self.name, self.vocabulary)
            begin += size

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
    """The shards' columns as training needs them: a few bytes a row in memory, ids and names as the files are mapped.

    A row costs 1 byte for its language, 1 more for its part of the split until `release`, 2.25 for each column of ids
    whose files are several (none where there is one, which is mapped; 4.25 where rows have thousands), and 2 for its
    speaker where voices matter; 1 more where there are more than 128 languages, 2 more where there are more than 32,768
    speakers.
    """

    def __init__(self, shards: Shards, vocabulary: Vocabulary, split: str) -> None:
        self.shards, self.vocabulary, self._split = shards, vocabulary, split
        _ = self._part  # one column after another: each takes more while it is read than what is kept of it
        number, names = shards.factors("lang")
        self.languages = sorted(names.to_pylist())
        place = signed(np.array([self.languages.index(name) for name in names.to_pylist()], np.int64))
        self.language = looked_up(place, number)
        """(R,) index of each row's language, in as few bytes as hold them."""
        codes = self.stream("codes")
        self.codebooks = 1 if codes is None else len(codes.cardinalities)
        self.pattern = None if codes is None else vocabulary.patterns.get(codes.name)

    def __len__(self) -> int:
        return len(self.language)

    @cached_property
    def _part(self) -> np.ndarray:
        """(R,) int8: 1 where a row is of the split, 2 where it is one of several utterances, 3 where it is a mixture of
        rows of the split, else 0."""
        number, names = self.shards.factors("split")
        known, part = names.to_pylist(), np.zeros(len(names), np.int8)
        if self._split in known:
            part[known.index(self._split)] = 1
        if self._split == "train" and JOINED in known:
            part[known.index(JOINED)] = 2
        if self._split + MIXED in known:
            part[known.index(self._split + MIXED)] = 3
        return looked_up(part, number)

    @property
    def split(self) -> np.ndarray:
        """(R,) bool: rows that examples are made of."""
        return self._part == 1

    @property
    def joined(self) -> np.ndarray:
        """(R,) bool: rows of several utterances, for tasks that listen."""
        return self._part == 2

    @property
    def mixed(self) -> np.ndarray:
        """(R,) bool: rows that were made of the split's, to be given and nothing else."""
        return self._part == 3

    def release(self) -> None:
        """Forget what is needed no more once rows are chosen; what is asked for all the same is read again."""
        self.__dict__.pop("_part", None)
        self.shards.release()

    def stream(self, kind: str) -> StreamInfo | None:
        """The model's main stream of a kind, None where it or the shards have none."""
        main = self.vocabulary.main(kind)
        return None if main is None else self.shards.streams.get(main.name)

    @property
    def known_language(self) -> np.ndarray:
        """(R,) rows in a language of the vocabulary."""
        return looked_up(np.isin(self.languages, list(self.vocabulary.languages)), self.language)

    @cached_property
    def speaker(self) -> np.ndarray:
        """(R,) number of each row's speaker, -1 where unknown, in as few bytes as hold them."""
        return signed(self.named("speaker"))

    def named(self, column: str) -> np.ndarray:
        """(R,) int32 number of each row's name in a column, -1 where it is empty."""
        import pyarrow.compute

        number, names = self.shards.factors(column)
        empty = pyarrow.compute.index(names, "").as_py()  # the first and only one, or -1
        if empty >= 0:
            number[number == empty] = -1
        return number

    def held(self, name: str) -> str | None:
        """The shards' own name of a column of ids, None where they have no such stream.

        Here and below a column that is named after a kind is that of the kind's main stream.
        """
        found = self.vocabulary.column(name)
        return found if found in self.shards.ragged_columns else None

    def places(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start among a column's values and length of chosen rows, int64; nothing where the column is absent."""
        held = self.held(name)
        if held is None:
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
        return self.shards.offsets(held).places(rows)

    def ids(self, stream: str, rows: np.ndarray) -> np.ndarray:
        """(D,) int64 ids that chosen rows become in a stream."""
        length = self.places(ids_column(stream), rows)[1]
        return self.code_ids(length // self.codebooks) if stream == "codes" else length

    def code_ids(self, frames: np.ndarray | int) -> np.ndarray:
        """Ids that spans of so many frames of codes become."""
        return ids_of_frames(self.pattern, np.asarray(frames), self.codebooks)

    def present(self, name: str) -> np.ndarray:
        """(R,) bool: rows that have values; none where the column is absent."""
        held = self.held(name)
        return np.zeros(len(self), np.bool_) if held is None else self.shards.offsets(held).some()

    def cell(self, name: str, row: int) -> np.ndarray:
        """Values of one row of a column that is there."""
        held = self.held(name)
        assert held is not None, f"column {name} is absent"
        return self.shards.cell(held, row)

    def column(self, name: str) -> Column | None:
        """A column of ids, None where the shards or the model have no such stream."""
        held = self.held(name)
        if held is None or (stream := self.shards.ragged_columns[held]) not in self.vocabulary.streams:
            return None
        return Column(stream, self.shards.values(held), self.vocabulary, str(self.shards.folder))

    def name(self, row: int) -> str:
        """The id of a row, for messages."""
        return str(self.shards.table["id"][row])

    def words(self, row: int) -> list[tuple[str, float, float]]:
        """(word, start, end) in seconds; empty where a row's words are not aligned."""
        return json.loads(self._words[row].as_py())

    def timed(self, rows: np.ndarray) -> np.ndarray:
        """(N,) whether words of rows are aligned."""
        return np.asarray(np.asarray(self._words.take(rows), dtype=object) != "[]", dtype=bool)

    @cached_property
    def _words(self) -> Any:
        found = self.shards.table["words"]
        self.shards.release()  # all but this column
        return found

    def naming(self, key: str) -> dict[int, str]:
        """Row → the id of another that its extras have under a key."""
        import pyarrow.compute

        extras = self.shards.table["extras"]
        rows = np.flatnonzero(pyarrow.compute.match_substring(extras, f'"{key}"').to_numpy())
        found = ((row, json.loads(extras[row].as_py())) for row in rows.tolist())
        return {row: str(values[key]) for row, values in found if key in values}

    def rows_named(self, names: Collection[str]) -> list[tuple[str, int]]:
        """(id, row) of the rows with these ids, in order."""
        import pyarrow.compute

        wanted, ids = pyarrow.array(sorted(names), pyarrow.string()), self.shards.table["id"]
        rows = np.flatnonzero(pyarrow.compute.is_in(ids, value_set=wanted).to_numpy())
        return [(str(ids[row]), row) for row in rows.tolist()]


@dataclass(frozen=True)
class Items:
    """What a task can be made of: one source row each, and for pairs the rows that may be its target."""

    source: np.ndarray
    """(I,) int32 row of the source."""
    start: np.ndarray | None = None
    """(I,) int32 first candidate in `pool`."""
    count: np.ndarray | None = None
    """(I,) candidates, in as few bytes as hold the most."""
    pool: np.ndarray | None = None
    """int32 rows, those of one group and language side by side."""

    @property
    def stop(self) -> np.ndarray:
        """(I,) behind the last candidate in `pool`."""
        assert self.start is not None and self.count is not None
        return self.start + self.count

    def part(self, of: slice) -> Items:
        """Some of them, with all candidates."""
        start, count = (None if array is None else array[of] for array in (self.start, self.count))
        return Items(self.source[of], start, count, self.pool)

    def sharing(self, others: Iterable[Items]) -> Items:
        """The same items, in the arrays of others where those are equal."""
        known = [array for one in others for array in one.arrays() if array is not None]

        def shared(array: np.ndarray | None) -> np.ndarray | None:
            return next((one for one in known if array is not None and np.array_equal(one, array)), array)

        source = shared(self.source)
        assert source is not None
        return Items(source, *map(shared, self.arrays()[1:]))

    def arrays(self) -> tuple[np.ndarray | None, ...]:
        """All four."""
        return self.source, self.start, self.count, self.pool
