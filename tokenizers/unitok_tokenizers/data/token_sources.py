"""Files of ids that were made elsewhere: the units or codes of many rows, read row by row.

    .npz, .safetensors          an array for each row, under the row's id
    a folder of .npy            one file a row, ID.npy; an id with slashes lies in subfolders
    .arrow, .feather, .parquet  rows with `id` and a column named after the stream; also a folder that `datasets` saved
    .jsonl                      the same, one object a line

Arrow, safetensors and .npy files are mapped, of the others one row is in memory at a time.

N units, F frames, Q codebooks.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.embedded import TABLES, Table
from unitok_tokenizers.data.tables.arrow import is_saved, parquet_files, table_files
from unitok_tokenizers.data.tables.base import composed
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact
from unitok_tokenizers.grammar.streams import StreamInfo

LINES = (".jsonl", ".ndjson")
SUFFIXES = (".npz", ".safetensors", *TABLES, *LINES)
"""Files that hold the ids of many rows."""
AGAIN = "write the file again"


@dataclass(frozen=True, kw_only=True)
class TokenSource:
    """Ids of one stream by the row that they belong to, opened; nothing is read before `raw` asks for it."""

    path: Path
    """File or folder."""
    places: dict[str, Any]
    """Row id → where its ids are."""
    reader: Callable[[Any], tuple[Any, str]]
    """Place → (ids as they are stored, where for messages)."""

    def raw(self, key: str) -> tuple[np.ndarray, str]:
        """(ids of a row as they are stored, file and place for messages); InputError where they are no array."""
        value, where = self.reader(self.places[key])
        return array_of(value, where), where

    def read(self, key: str, stream: StreamInfo) -> np.ndarray:
        """Ids of a row, checked: units (N,) or codes (F, Q), int64; InputError, naming file and row."""
        return checked_ids(*self.raw(key), stream)


def array_of(value: Any, where: str) -> np.ndarray:
    """An array of what a file holds; InputError for lists that are none."""
    try:
        return np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: {repr(value)[:60]} is no list of ids ({error}); write ids, or frames of ids"
        ) from None


def checked_ids(ids: np.ndarray, where: str, stream: StreamInfo) -> np.ndarray:
    """Ids as int64: units (N,), or codes (F, Q), of one codebook also (F,).

    Raises:
        InputError: another type or shape, no id at all, or one that the stream does not have.
    """
    books = len(stream.cardinalities)
    wanted = "units (N,)" if stream.kind == "units" else f"frames of {books} codes (F, {books})"
    if not ids.size:
        raise InputError(f"{where}: {stream.name} are empty; write {wanted}, or leave the row out")
    if ids.dtype.kind not in "iu":
        raise InputError(f"{where}: {stream.name} are {ids.dtype}; write whole numbers, {wanted}")
    plain = ids.ndim == 1 and books == 1
    if not (plain or (stream.kind == "codes" and ids.ndim == 2 and ids.shape[1] == books)):
        turned = stream.kind == "codes" and ids.ndim == 2 and ids.shape[0] == books
        hint = "transpose them" if turned else f"write {wanted}"
        raise InputError(f"{where}: {stream.name} have shape {ids.shape}, not that of {wanted}; {hint}")
    frames = ids.reshape(-1, books)
    for book, size in enumerate(stream.cardinalities):
        low, high = int(frames[:, book].min()), int(frames[:, book].max())
        if low < 0 or high >= size:
            place = f" in codebook {book}" if books > 1 else ""
            raise InputError(
                f"{where}: {stream.name} hold id {low if low < 0 else high}{place}, the stream has {size} ids from 0 "
                "on; correct its description or the file"
            )
    return ids.astype(np.int64) if stream.kind == "units" else frames.astype(np.int64)


def open_tokens(path: Path | str, column: str, *, numbered: bool = False) -> TokenSource:
    """Open a file or folder of ids.

    Args:
        path: one of the forms above.
        column: the stream's name, which a table's column has.
        numbered: a table without a column `id` counts its rows from 0 on.

    Raises:
        InputError: another kind of file, a table without the columns, or an id that occurs twice.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if not source.exists():
        raise InputError(f"no file or folder {source}; check the path")
    if source.is_dir() or suffix in TABLES:
        tables = _tables(source)
        return _arrow(source, tables, column, numbered) if tables else _npy_folder(source)
    if suffix == ".npz":
        return _npz(source)
    if suffix == ".safetensors":
        return _safetensors(source)
    if suffix in LINES:
        return _json_lines(source, column)
    raise InputError(f"{source}: ids of rows are read from {', '.join(SUFFIXES)} and from folders of .npy; write one")


def _indexed(source: Path, found: Iterable[tuple[str, Any, str]]) -> dict[str, Any]:
    """Row id → place of (id, place, how it is called in messages); InputError for an id that occurs twice."""
    places: dict[str, Any] = {}
    for key, place, called in found:
        own = composed(key)
        if own in places:
            raise InputError(f"{source}: id {own!r} occurs twice, the second time in {called}; make ids unique")
        places[own] = place
    if not places:
        raise InputError(f"{source} holds no ids of any row; {AGAIN}")
    return places


def read_npy(path: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of a .npy file; InputError where it is none."""
    try:
        found = np.load(path, allow_pickle=False, mmap_mode="r" if mapped else None)
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is no array of numpy ({error}); write it with numpy.save") from error
    return np.asarray(found)


def _npy_folder(folder: Path) -> TokenSource:
    files = [path for path in sorted(folder.rglob("*.npy")) if path.is_file()]
    named = ((path.relative_to(folder).with_suffix("").as_posix(), path, path.name) for path in files)
    if not files:
        raise InputError(f"{folder}: neither files ID.npy nor a table of Arrow, Parquet or `datasets` in this folder")
    return TokenSource(
        path=folder, places=_indexed(folder, named), reader=lambda path: (read_npy(path, mapped=True), str(path))
    )


def _npz(source: Path) -> TokenSource:
    with intact(source, "write it with numpy.savez"):
        members = np.load(source, allow_pickle=False)
        names = list(members.files)

    def read(name: str) -> tuple[Any, str]:
        where = f"{source}[{name!r}]"
        with intact(where, "write arrays of whole numbers with numpy.savez"):
            return members[name], where

    weakref.finalize(read, members.close)  # whenever the source is let go, whatever else refers to it
    return TokenSource(path=source, places=_indexed(source, ((one, one, one) for one in names)), reader=read)


def _safetensors(source: Path) -> TokenSource:
    from safetensors import safe_open

    with intact(source, AGAIN):
        tensors: Any = safe_open(source, framework="np")
        names = list(tensors.keys())

    def read(name: str) -> tuple[Any, str]:
        where = f"{source}[{name!r}]"
        with intact(where, AGAIN):
            kind = tensors.get_slice(name).get_dtype()
            if kind[:1] not in ("I", "U"):  # numpy has no type for some of the others
                raise InputError(f"{where}: ids are {kind}; write whole numbers")
            return tensors.get_tensor(name), where

    return TokenSource(path=source, places=_indexed(source, ((one, one, one) for one in names)), reader=read)


def _tables(source: Path) -> list[Path]:
    """Files of a table; none where a folder holds no table."""
    if source.is_file() or is_saved(source) or parquet_files(source):
        with intact(source, "save the data set again"):
            return [path for path, _ in table_files(source)]
    return sorted(path for suffix in (".arrow", ".feather") for path in source.glob(f"*{suffix}"))


def _arrow(source: Path, files: Sequence[Path], column: str, numbered: bool) -> TokenSource:
    tables = [Table.open(path) for path in files]

    def keys() -> Iterator[tuple[str, Any, str]]:
        for number, table in enumerate(tables):
            known = ", ".join(table.names)
            if column not in table.names:
                raise InputError(f"{table.path}: no column {column!r} of ids; its columns are {known}")
            if "id" not in table.names and not numbered:
                raise InputError(f"{table.path}: no column 'id' that names rows; its columns are {known}")
            row = 0
            for batch in table.batches(["id"] if "id" in table.names else [column]):
                names = batch.column(0).to_pylist() if "id" in table.names else range(row, row + batch.num_rows)
                for name in names:
                    if not isinstance(name, str | int):
                        raise InputError(f"{table.path}[{row}]: id is {name!r}; write a string")
                    yield str(name), (number, row), f"{table.path}[{row}]"
                    row += 1

    def read(place: tuple[int, int]) -> tuple[Any, str]:
        number, row = place
        where = f"{tables[number].path}[{row}]"
        value = tables[number].value(column, row)
        if value is None:
            raise InputError(f"{where}: {column} is null; write ids, or leave the row out")
        return value, where

    return TokenSource(path=source, places=_indexed(source, keys()), reader=read)


def _json_lines(source: Path, column: str) -> TokenSource:
    def lines() -> Iterator[tuple[str, Any, str]]:
        place, number = 0, 0
        with source.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    value = _object(line, f"{source}:{number}")
                    if not isinstance(value.get("id"), str | int):
                        raise InputError(f"{source}:{number}: id is {value.get('id')!r}; write the row's id")
                    if value.get(column) is not None:
                        yield str(value["id"]), (place, number), f"line {number}"
                place += len(line)

    def read(place: tuple[int, int]) -> tuple[Any, str]:
        where = f"{source}:{place[1]}"
        with source.open("rb") as file:
            file.seek(place[0])
            return _object(file.readline(), where).get(column), where

    return TokenSource(path=source, places=_indexed(source, lines()), reader=read)


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); write one object a line") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: a {type(value).__name__}, not an object; write {{…}} a line")
    return value


def matched(name: str, source: TokenSource, rows: Sequence[str]) -> list[str]:
    """What to tell of ids that do not meet: rows without tokens, and tokens without a row.

    Raises:
        InputError: not one row has tokens there.
    """
    known = set(rows)
    missing = [row for row in rows if row not in source.places]
    extra = [key for key in source.places if key not in known]
    if len(missing) == len(rows):
        raise InputError(
            f"{source.path}: no id of it is one of the manifest; it has {extra[0]!r}, the manifest {rows[0]!r}"
        )
    lines = []
    if missing:
        lines.append(f"{len(missing)} rows have no {name} in {source.path}, such as {missing[0]!r}")
    if extra:
        lines.append(f"{len(extra)} ids of {source.path} are not in the manifest, such as {extra[0]!r}")
    return lines
