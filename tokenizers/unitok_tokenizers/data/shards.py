"""Reading token shards: Arrow files, memory-mapped, gathered from without touching rows. `shard_writer` writes them.

N rows, P parts (record batches), T values of a ragged column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact, read_json, sha256_file
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of

FORMAT = 1
COLUMNS = {
    **dict.fromkeys(("id", "group", "lang", "speaker", "split", "text", "words", "audio", "extras"), "string"),
    **dict.fromkeys(("seconds", "offset"), "double"),
}
"""Columns of every shard and their Arrow types."""


BLOCK = 16
"""Rows whose offsets are counted from one place."""
STRETCH = 1 << 16
"""Rows that are looked at together."""


@dataclass(frozen=True)
class RowOffsets:
    """Where each row's values lie in a column of id lists: 2.25 bytes a row, 4.25 where 16 rows have 65,536 values, a
    quarter more where all have 2³¹; none where there is one part, mapped."""

    near: np.ndarray
    """(N + 1,) where each row begins behind the beginning of its block, and T; in as few bytes as hold them."""
    blocks: np.ndarray | None
    """(B,) where each block of `BLOCK` rows begins; None where all are counted from 0."""
    first: np.ndarray
    """(P + 1,) int64 first row of each part, and N."""
    base: np.ndarray
    """(P + 1,) int64 values in front of each part, and T."""

    @staticmethod
    def of(parts: Sequence[np.ndarray]) -> RowOffsets:
        """From the offsets of each part, (N_i + 1,) int32."""
        first = np.cumsum([0, *(len(part) - 1 for part in parts)])
        base = np.cumsum([0, *(int(part[-1]) - int(part[0]) for part in parts)])
        if len(parts) == 1:
            return RowOffsets(parts[0] if not parts[0][0] else parts[0] - parts[0][0], None, first, base)
        rows, total = int(first[-1]), int(base[-1])
        starts = np.empty(rows + 1, np.int32 if total < 1 << 31 else np.int64)
        starts[-1] = total
        for part, row, before in zip(parts, first.tolist(), base.tolist()):
            found = starts[row : row + len(part) - 1]
            np.add(part[:-1], before - int(part[0]), out=found, dtype=starts.dtype, casting="unsafe")
        blocks = starts[::BLOCK].copy()
        span = max(
            int((starts[at : at + STRETCH] - _of_rows(blocks, at, min(at + STRETCH, rows + 1))).max())
            for at in range(0, rows + 1, STRETCH)
        )
        near = np.empty(rows + 1, np.uint16 if span < 1 << 16 else np.int32 if span < 1 << 31 else np.int64)
        for at in range(0, rows + 1, STRETCH):
            stop = min(at + STRETCH, rows + 1)
            np.subtract(starts[at:stop], _of_rows(blocks, at, stop), out=near[at:stop], casting="unsafe")
        return RowOffsets(near, blocks, first, base)

    def __len__(self) -> int:
        return int(self.first[-1])

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start among all values and length of chosen rows (R,), both int64."""
        start = self._start(rows)
        return start, self._start(rows + 1) - start

    def _start(self, rows: np.ndarray) -> np.ndarray:
        """(R,) int64 where rows begin; row N at T."""
        near = self.near[rows].astype(np.int64)
        return near if self.blocks is None else near + self.blocks[rows // BLOCK]

    def lengths(self) -> np.ndarray:
        """(N,) int32 values of every row."""
        found = np.empty(len(self), np.int32)
        for start, stop in self._stretches():
            found[start:stop] = np.diff(self._between(start, stop + 1))
        return found

    def some(self) -> np.ndarray:
        """(N,) bool: rows that have a value."""
        found = np.empty(len(self), np.bool_)
        for start, stop in self._stretches():
            found[start:stop] = np.diff(self._between(start, stop + 1)) > 0
        return found

    def _stretches(self) -> Iterator[tuple[int, int]]:
        return ((start, min(start + STRETCH, len(self))) for start in range(0, len(self), STRETCH))

    def _between(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) int64 where these rows begin."""
        near = self.near[start:stop].astype(np.int64)
        return near if self.blocks is None else near + _of_rows(self.blocks, start, stop)

    def whole(self) -> np.ndarray:
        """(N + 1,) int64 where the rows begin among all values, and T."""
        return self._between(0, len(self) + 1)


def _of_rows(blocks: np.ndarray, start: int, stop: int) -> np.ndarray:
    """(stop - start,) where the block of each of these rows begins."""
    first = start // BLOCK
    return np.repeat(blocks[first : -(-stop // BLOCK)], BLOCK)[start - first * BLOCK : stop - first * BLOCK]


class Shards:
    """A folder of shards, opened for reading."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.streams = {info.name: info for info in map(StreamInfo.from_json, manifest["streams"])}
        self.ragged_columns = {column: info.name for info in self.streams.values() for column in columns_of(info)}
        """Column of id lists → its stream; codes are stored frame by frame, all codebooks of a frame together."""
        self._ragged: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._offsets: dict[str, RowOffsets] = {}
        self._values: dict[str, list[np.ndarray]] = {}
        self._opened = False

    @staticmethod
    def open(folder: Path | str, *, check: bool = False) -> Shards:
        """Open shards; `check` also verifies the checksum of every file, which reads them all.

        Of several processes that open the same shards, one needs to check.

        Raises:
            InputError: no manifest, another format, a missing or (with `check`) altered file.
        """
        root = Path(folder)
        if not (root / "manifest.json").exists():
            raise InputError(f"{root} holds no shards (no manifest.json); make them with `unitok prepare`")
        manifest = read_json(root / "manifest.json")
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != FORMAT:
            raise InputError(f"{root}: shards of format {found!r}, this version reads {FORMAT}; prepare again")
        with intact(root / "manifest.json", "prepare this folder again"):
            for part in manifest["files"]:
                path = root / part["name"]
                if Path(part["name"]).name != part["name"]:
                    raise InputError(f"{root}: file name {part['name']!r} leaves the folder; do not trust these shards")
                if not path.is_file():
                    raise InputError(f"{root}: file {part['name']} is missing; run `unitok prepare` again")
                if check and sha256_file(path) != part["sha256"]:
                    raise InputError(f"{path}: checksum differs from the manifest; prepare this folder again")
                if not isinstance(part["rows"], int) or not isinstance(manifest["skipped"], dict):
                    raise TypeError("rows and skipped are counts")
            return Shards(root, manifest)

    @cached_property
    def table(self) -> Any:
        """All rows as one `pyarrow.Table` over the memory-mapped files."""
        found = self._opened_table()
        self._opened = True
        return found

    def _opened_table(self) -> Any:
        import pyarrow

        tables = []
        for part in self.manifest["files"]:
            with pyarrow.memory_map(str(self.folder / part["name"])) as source:
                try:
                    tables.append(pyarrow.ipc.open_stream(source).read_all())
                except (pyarrow.ArrowException, OSError) as error:
                    reason = " ".join(str(error).split())
                    raise InputError(f"{self.folder / part['name']}: not readable ({reason}); prepare again") from error
        if not tables:
            raise InputError(f"{self.folder} holds no file of rows; prepare again")
        for found, part in zip(tables, self.manifest["files"]):
            self._check_schema(found.schema, part["name"])
        return pyarrow.concat_tables(tables)

    def release(self) -> None:
        """Forget the opened files, of which each costs memory for all of its columns, some 17 bytes a row.

        Arrays that were handed out stay as they are; what is asked for next opens the files again.
        """
        if self._opened:  # a table that somebody made has no files
            self.__dict__.pop("table", None)
            self._opened = False

    def _check_schema(self, schema: Any, name: str) -> None:
        """InputError where a file lacks a column, or has it in another type."""
        kinds = {**COLUMNS, **dict.fromkeys(self.ragged_columns, "list<item: int32>")}
        for column, kind in kinds.items():
            index = schema.get_field_index(column)
            found = str(schema.field(index).type) if index >= 0 else "missing"
            if found != kind:
                raise InputError(f"{self.folder / name}: column {column!r} is {found}, not {kind}; prepare again")

    def __len__(self) -> int:
        return sum(part["rows"] for part in self.manifest["files"])

    def _strings(self, name: str) -> np.ndarray:
        return np.asarray(self.table[name].to_pylist(), dtype=str)

    @cached_property
    def id(self) -> np.ndarray:
        """(N,) row names."""
        return self._strings("id")

    @cached_property
    def group(self) -> np.ndarray:
        """(N,) names that utterances saying the same share."""
        return self._strings("group")

    @cached_property
    def lang(self) -> np.ndarray:
        """(N,) language codes."""
        return self._strings("lang")

    @cached_property
    def speaker(self) -> np.ndarray:
        """(N,) speaker names, empty where unknown."""
        return self._strings("speaker")

    @cached_property
    def split(self) -> np.ndarray:
        """(N,) split names."""
        return self._strings("split")

    @cached_property
    def seconds(self) -> np.ndarray:
        """(N,) durations in seconds, 0 without audio."""
        return self.table["seconds"].to_numpy()

    @cached_property
    def text(self) -> list[str | None]:
        """Transcripts; None where absent."""
        return self.table["text"].to_pylist()

    @property
    def languages(self) -> list[str]:
        """Language codes that occur, sorted."""
        return sorted(self.factors("lang")[1].to_pylist())

    def factors(self, name: str) -> tuple[np.ndarray, Any]:
        """A column of strings as numbers (N,) int32, and the strings that they stand for (a `pyarrow` array).

        Strings are numbered as they first come. Nothing is kept: 4 bytes a row while the caller needs them.
        """
        import pyarrow
        import pyarrow.compute

        column = self._column(name)
        if column.null_count:
            raise InputError(f"{self.folder}: column {name!r} has rows without a value; prepare again")
        # The C library's own blocks: arrow's pool would take twice the memory, and keep it for a while.
        chunks = pyarrow.compute.dictionary_encode(column, memory_pool=pyarrow.system_memory_pool()).chunks
        numbers = [np.asarray(chunk.indices) for chunk in chunks]
        found = np.concatenate([np.zeros(0, np.int32), *numbers])
        return found, chunks[-1].dictionary if chunks else pyarrow.array([], pyarrow.string())

    def _column(self, name: str) -> Any:
        """A column as it is mapped; InputError where the shards have none of this name."""
        if name not in self.table.column_names:
            raise InputError(f"{self.folder}: no column {name!r}; it holds {', '.join(self.table.column_names)}")
        return self.table[name]

    def _parts(self, name: str) -> list[Any]:
        """A column's parts as they are mapped, one at least."""
        column = self._column(name)
        return column.chunks or [column.combine_chunks()]  # no row, no chunk

    def offsets(self, name: str) -> RowOffsets:
        """Where the rows of a column of id lists begin and end."""
        if name not in self._offsets:
            self._offsets[name] = RowOffsets.of([np.asarray(part.offsets) for part in self._parts(name)])
        return self._offsets[name]

    def values(self, name: str) -> list[np.ndarray]:
        """The values of a column of id lists as they are mapped: (T_i,) int32 of each part."""
        if name not in self._values:
            parts = self._parts(name)
            self._values[name] = [np.asarray(part.flatten()) for part in (self._alone(name) if self._opened else parts)]
        return self._values[name]

    def _alone(self, name: str) -> Iterator[Any]:
        """A column's parts, read once more without the others: what is kept of a file that was read whole lies between
        what is not, and none of its memory could be given back."""
        import pyarrow

        for part in self.manifest["files"]:
            with pyarrow.memory_map(str(self.folder / part["name"])) as source:
                place = pyarrow.ipc.open_stream(source).schema.get_field_index(name)
                source.seek(0)
                options = pyarrow.ipc.IpcReadOptions(included_fields=[place])
                found = pyarrow.ipc.open_stream(source, options=options).read_all()[name]
            yield from found.chunks

    def cell(self, name: str, index: int) -> np.ndarray:
        """Values of one row of a column of id lists, as they are mapped."""
        offsets = self.offsets(name)
        part = int(np.searchsorted(offsets.first, index, side="right")) - 1
        start, length = (int(one[0]) for one in offsets.places(np.array([index])))
        start -= int(offsets.base[part])
        return self.values(name)[part][start : start + length]

    def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column of id lists: values (T,) int32, offsets (N + 1,) int64; row i is values[offsets[i]:offsets[i+1]].

        Shards of several files are joined in memory; `values` leaves them where they are.
        """
        if name not in self._ragged:
            values = self.values(name)
            # without files, where every row was left out, there is nothing to join
            joined = values[0] if len(values) == 1 else np.concatenate([np.zeros(0, np.int32), *values])
            self._ragged[name] = (joined, self.offsets(name).whole())
        return self._ragged[name]

    def gather(self, name: str, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of chosen rows one after another, and their lengths (len(indices),)."""
        values, offsets = self.ragged(name)
        lengths = offsets[indices + 1] - offsets[indices]
        ends = np.cumsum(lengths)
        positions = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[indices] - (ends - lengths), lengths)
        return values[positions], lengths

    def codes(self, index: int, stream: str = "codes") -> np.ndarray:
        """Codes (F, Q) of one row."""
        return self.cell(stream, index).reshape(-1, len(self.streams[stream].cardinalities))

    def row(self, index: int) -> dict[str, Any]:
        """One row as Python values, `words` and `extras` decoded."""
        values = self.table.slice(index, 1).to_pylist()[0]
        values["words"] = [tuple(word) for word in json.loads(values["words"])]
        values["extras"] = json.loads(values["extras"])
        return values


def summary(shards: Shards) -> dict[str, Any]:
    """Rows, seconds and tokens per split and language."""
    splits = {name: int((shards.split == name).sum()) for name in sorted(set(shards.split.tolist()))}
    tokens = {name: int(len(shards.ragged(name)[0])) for name in shards.ragged_columns}
    return {
        "rows": len(shards),
        "hours": round(float(shards.seconds.sum()) / 3600, 3),
        "splits": splits,
        "languages": {code: int((shards.lang == code).sum()) for code in shards.languages},
        "speakers": len(set(shards.speaker.tolist())),
        "tokens": tokens,
        **_token_rates(shards),
        "streams": [stream.to_json() for stream in shards.streams.values()],
        "skipped": shards.manifest["skipped"],
    }


def _token_rates(shards: Shards) -> dict[str, Any]:
    """Tokens a second of merged units: frames, the deduplicated units of these, and the ids that are stored."""
    found = {}
    for info in shards.streams.values():
        if info.merged_from is None or info.frame_rate is None:
            continue
        ids, durations, of_units = (shards.ragged(column)[0] for column in columns_of(info))
        if seconds := int(durations.sum(dtype=np.int64)) / float(info.frame_rate):
            found[info.name] = {
                "frames": float(info.frame_rate),
                "units": round(len(of_units) / seconds, 3),
                "ids": round(len(ids) / seconds, 3),
            }
    return {"tokens_per_second": found} if found else {}
