"""Recordings inside Arrow and Parquet tables, named like files below the table: `train.parquet/audio/17`.

Arrow files are mapped, not read; of a Parquet file two groups of rows are held at most.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from unitok_tokenizers.errors import InputError

if TYPE_CHECKING:
    import pyarrow

TABLES = (".arrow", ".feather", ".parquet")
"""Suffixes of tables."""
OPEN_TABLES, HELD_GROUPS = 16, 2
BATCH = 1024


def reference(table: Path, column: str, row: int) -> str:
    """The name of a recording inside a table."""
    if "/" in column:
        raise InputError(f"{table}: column {column!r} has a slash in its name; rename it")
    # Not what a link leads to: a hub's cache keeps tables under names without a suffix.
    return f"{os.path.abspath(table)}/{column}/{row}"


def container_of(path: Path | str) -> Path | None:
    """The table that a recording of this name is in; None where it names none."""
    place = Path(path)
    table = place.parent.parent
    inside = place.name.isdigit() and table.suffix.lower() in TABLES
    return table if inside and os.path.isfile(table) else None


def embedded_bytes(path: Path | str) -> BinaryIO | None:
    """The file of a recording inside a table; None where the path names none.

    Raises:
        InputError: the table cannot be read, or has no such recording.
    """
    table = container_of(path)
    if table is None:
        return None
    place = Path(path)
    content = Table.open(table).recording(place.parent.name, int(place.name))
    if content is None:
        raise InputError(f"{table} has no recording in row {place.name} of column {place.parent.name!r}")
    return io.BytesIO(content)


@dataclass(frozen=True)
class Table:
    """An Arrow or Parquet file, opened."""

    path: Path
    """Its file."""
    schema: pyarrow.Schema
    """Its columns."""
    content: Any
    """`pyarrow.Table`, mapped, or `pyarrow.parquet.ParquetFile`."""

    @staticmethod
    def open(path: Path) -> Table:
        """Open a file, or take it from those that are open; InputError where it cannot be read."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise InputError(f"cannot read table {path}: {error.strerror}; save the data set again") from None
        return _opened(str(path), status.st_size, status.st_mtime_ns)

    @property
    def names(self) -> list[str]:
        """Columns, in order."""
        return list(self.schema.names)

    @property
    def features(self) -> dict[str, Any]:
        """What `datasets` says of the columns."""
        try:
            return dict(json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"])
        except (KeyError, TypeError, ValueError):
            return {}

    def declared(self, name: str) -> bool:
        """Whether `datasets` says that a column holds audio."""
        feature = self.features.get(name)
        return isinstance(feature, dict) and feature.get("_type") == "Audio"

    @property
    def labels(self) -> dict[str, list[str]]:
        """Columns of numbers that stand for names → the names."""
        return {
            name: list(feature["names"])
            for name, feature in self.features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }

    @property
    def recordings(self) -> list[str]:
        """Columns of a kind that holds recordings: bytes, or bytes and a path."""
        import pyarrow

        def holds(kind: pyarrow.DataType) -> bool:
            if pyarrow.types.is_struct(kind):
                return {"bytes", "path"} <= {kind.field(index).name for index in range(kind.num_fields)}
            kinds = pyarrow.types
            views = kinds.is_binary_view(kind) or kinds.is_fixed_size_binary(kind)
            return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind) or views)

        return [field.name for field in self.schema if holds(field.type)]

    @property
    def samples(self) -> list[str]:
        """Columns of a kind that holds samples: lists of numbers, alone or beside their rate."""
        import pyarrow

        def holds(kind: pyarrow.DataType) -> bool:
            if pyarrow.types.is_struct(kind):
                return "array" in {kind.field(index).name for index in range(kind.num_fields)}
            return (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)) and (
                pyarrow.types.is_floating(kind.value_type) or pyarrow.types.is_integer(kind.value_type)
            )

        return [field.name for field in self.schema if holds(field.type)]

    @property
    def is_parquet(self) -> bool:
        """Whether it is read group by group."""
        return self.path.suffix.lower() == ".parquet"

    def batches(self, columns: list[str]) -> Iterator[pyarrow.RecordBatch]:
        """Rows of some columns, in order."""
        if self.is_parquet:
            yield from self.content.iter_batches(batch_size=BATCH, columns=columns)
        else:
            yield from self.content.select(columns).to_batches(max_chunksize=BATCH)

    def held(self, column: str, start: int, count: int) -> list[bool | str | None]:
        """For rows of a column of recordings: True where the bytes are there, else the path, if there is one."""
        import pyarrow.compute

        part = self._rows(column, start, count)
        if not _is_struct(self.schema.field(column).type):
            return [bool(one) for one in pyarrow.compute.is_valid(part).to_pylist()]
        there = pyarrow.compute.is_valid(pyarrow.compute.struct_field(part, "bytes")).to_pylist()
        paths = pyarrow.compute.struct_field(part, "path").to_pylist()
        return [True if inside else path for inside, path in zip(there, paths)]

    def recording(self, column: str, row: int) -> bytes | None:
        """The bytes of a recording."""
        if column not in self.names:
            return None
        (value,) = self._rows(column, row, 1).to_pylist() or (None,)
        found = value.get("bytes") if isinstance(value, dict) else value
        return found if isinstance(found, bytes) else None

    def value(self, column: str, row: int) -> Any:
        """One cell; a list of plain numbers as an array, anything else as Python has it."""
        import pyarrow

        scalar = self._rows(column, row, 1)[0]
        values = getattr(scalar, "values", None)
        if isinstance(values, pyarrow.Array) and pyarrow.types.is_primitive(values.type) and not values.null_count:
            return values.to_numpy(zero_copy_only=False)
        return scalar.as_py()

    def _rows(self, column: str, start: int, count: int) -> pyarrow.ChunkedArray:
        if not self.is_parquet:
            return self.content.column(column).slice(start, count)
        import pyarrow

        status, parts, first = os.stat(self.path), [], 0
        for group in range(self.content.num_row_groups):
            rows = self.content.metadata.row_group(group).num_rows
            if first < start + count and start < first + rows:
                held = _group(str(self.path), status.st_size, status.st_mtime_ns, group, column)
                inside = max(start - first, 0)
                parts.append(held.slice(inside, min(start + count - first, rows) - inside))
            first += rows
        chunks = [chunk for part in parts for chunk in part.chunks]
        return pyarrow.chunked_array(chunks, type=self.schema.field(column).type)


def _is_struct(kind: pyarrow.DataType) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind))


@lru_cache(maxsize=OPEN_TABLES)
def _opened(path: str, size: int, changed: int) -> Table:
    """A file, which its size and the time of its last change identify."""
    import pyarrow
    import pyarrow.parquet

    try:
        if path.lower().endswith(".parquet"):
            parquet = pyarrow.parquet.ParquetFile(path)
            return Table(Path(path), parquet.schema_arrow, parquet)
        source = pyarrow.memory_map(path)
        try:
            table = pyarrow.ipc.open_stream(source).read_all()
        except pyarrow.ArrowInvalid:
            table = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
        return Table(Path(path), table.schema, table)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read table {path}: {reason}; save the data set again") from None


@lru_cache(maxsize=HELD_GROUPS)
def _group(path: str, size: int, changed: int, group: int, column: str) -> pyarrow.ChunkedArray:
    """One column of one group of rows of a Parquet file."""
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path).read_row_group(group, columns=[column]).column(column)
