"""`datasets` saved to disk, and Arrow and Parquet files: recordings stay inside the table (`embedded`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unitok_tokenizers.audio.embedded import TABLES, Table, reference
from unitok_tokenizers.data.tables.base import KNOWN_SPLITS, MIXED
from unitok_tokenizers.data.tables.columns import ALIASES, is_known, looks_like_audio, plain, without_origin
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact

SPLITS = {
    "train": "train", "test": "test",
    **dict.fromkeys(("dev", "validation", "valid", "val", "development", "eval"), "dev"),
}  # fmt: skip
"""First words of their names of splits → ours."""
PIECE = re.compile(r"-\d+-of-\d+(?:-[0-9a-f]{16})?$")
"""How `datasets` counts the files of a split, with a fingerprint behind that where it was pushed to the Hub."""
NO_SPLIT = ("data", "part", "shard", "chunk", "default", "dataset", "file", "rows", "table")
"""First words of names of pieces that are of no split."""
REMEDY = "say which one (--columns audio=COLUMN)"


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def table_files(source: Path) -> list[tuple[Path, str]]:
    """(file, split or "") of a file, of a folder that `datasets` saved, or of one with Parquet files, in order."""
    if source.is_file():
        return [(source, "")]
    if (source / "dataset_dict.json").is_file():
        names = _listed(source / "dataset_dict.json", "splits")
        for name in names:
            if not (source / str(name) / "state.json").is_file():
                raise InputError(f"{source} names the split {name!r}, which is not there; copy the data set again")
        return [(path, _split(name)) for name in names for path, _ in table_files(source / name)]
    if (source / "state.json").is_file():
        split = _split(_json(source / "state.json").get("_split") or "")
        files = _listed(source / "state.json", "_data_files")
        with intact(source / "state.json", "copy the data set again"):
            return [(source / one["filename"], split) for one in files]
    return [(path, _split_of_file(path.stem)) for path in parquet_files(source)]


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files of a folder, or of its `data`, as they lie in a repository of data sets."""
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def _split_of_file(stem: str) -> str:
    """The split that a file is of: as it is called where the name counts its pieces, `heldout-00000-of-00001`, and what
    the first word says of another."""
    name = PIECE.sub("", stem)
    if (name != stem and _first_word(name) not in NO_SPLIT) or name.removesuffix(MIXED) in KNOWN_SPLITS:
        return _split(name)
    return SPLITS.get(_first_word(stem), "")


def _split(name: str) -> str:
    """Our name of a split, as of `train.clean.100`; one that is ours, or nobody's that is known, stays as it is."""
    return name if name.removesuffix(MIXED) in KNOWN_SPLITS else SPLITS.get(_first_word(name), name)


def _first_word(name: str) -> str:
    return re.split(r"[._\-\[]", name, maxsplit=1)[0].lower()


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(value, dict)
    except (OSError, ValueError, AssertionError) as error:
        raise InputError(f"cannot read {path}: {error}; save the data set again") from None
    return value


def _listed(path: Path, key: str) -> list[Any]:
    """What a file of `datasets` lists under a key."""
    found = _json(path).get(key)
    if not isinstance(found, list):
        raise InputError(f"{path} has no list {key!r}; copy the data set again, or save it anew")
    return found


def arrow_records(source: Path, chosen: Mapping[str, str]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file and row, number, columns) of every row; `audio` is a path, of a file or of a place inside the table."""
    number = 0
    for path, split in table_files(source):
        table = Table.open(path)
        audio = _audio_column(table, chosen)
        plain_columns = _plain_columns(table, audio, chosen)
        row = 0
        for batch in _batches(table, plain_columns):
            inside = None if audio is None else table.held(audio, row, batch.num_rows)
            labels = {name: table.labels.get(name) for name in plain_columns}
            for index, value in enumerate(_as_python(table, batch)):
                number += 1
                record = {
                    name: cell_value(_text_of(cell, f"{path}[{row + index}]", name), labels[name])
                    for name, cell in value.items()
                }
                if audio is not None and inside is not None:
                    record[audio] = inside[index]
                    if inside[index] is True:
                        record = {**without_origin(record, chosen), audio: reference(path, audio, row + index)}
                if split:
                    record.setdefault("split", split)
                yield f"{path}[{row + index}]", number, record
            row += batch.num_rows


def _batches(table: Table, columns: list[str]) -> Iterator[Any]:
    """Rows of columns; InputError where the file is damaged."""
    with intact(table.path, "save the data set again"):
        yield from table.batches(columns)


def _as_python(table: Table, batch: Any) -> list[dict[str, Any]]:
    """Rows as Python has them; InputError where a cell is no text."""
    with intact(table.path, "save its texts as UTF-8"):
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows


def _text_of(cell: Any, where: str, column: str) -> Any:
    """A cell; bytes, of a writer that does not mark texts, as the text that they are."""
    if not isinstance(cell, bytes):
        return cell
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            f"{where}: column {column!r} holds bytes that are no text; save it as text, or name another column"
        ) from None


def _plain_columns(table: Table, audio: str | None, chosen: Mapping[str, str]) -> list[str]:
    """Columns that are read: of those with recordings, or pictures, none but one that is yet to be told from audio."""
    asked = audio is not None or "audio" in chosen
    held = {name for name in table.recordings if asked or not looks_like_audio(name, {})}
    held -= {name for name in held if _names_no_audio(name) or name in chosen.values()}
    return [name for name in table.names if name != audio and name not in held]


def _names_no_audio(name: str) -> bool:
    """Whether a column of bytes has the name of one of ours that holds no recordings: those are texts."""
    return is_known(name) and plain(name) not in ("audio", *ALIASES["audio"])


def cell_value(value: Any, labels: Sequence[str] | None) -> Any:
    """A cell as a manifest holds it: a number that stands for a label as the label, what JSON has not as its text."""
    if labels and isinstance(value, int) and 0 <= value < len(labels):
        return labels[value]
    if isinstance(value, list | tuple):
        return [cell_value(one, None) for one in value]
    if isinstance(value, dict):
        return {str(name): cell_value(one, None) for name, one in value.items()}
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def audio_column(source: Path, chosen: Mapping[str, str]) -> str | None:
    """The column of recordings, for a table's first file."""
    files = table_files(source)
    return _audio_column(Table.open(files[0][0]), chosen) if files else None


def _audio_column(table: Table, chosen: Mapping[str, str]) -> str | None:
    """The column that holds recordings; None where there is none, or a plain column of paths.

    Raises:
        InputError: several do, or one holds samples rather than recordings.
    """
    if "audio" in chosen:
        return chosen["audio"] if chosen["audio"] in table.recordings else None
    named = ("audio", *ALIASES["audio"])
    for name in table.samples:
        if plain(name) in named:
            raise InputError(
                f"{table.path}: column {name!r} holds samples, not recordings; cast it to datasets.Audio and save again"
            )
    found = [name for name in table.recordings if table.declared(name) or plain(name) in named]
    if len(found) > 1:
        raise InputError(
            f"{table.path}: columns {' and '.join(map(repr, found))} all hold recordings; {REMEDY}"
        )  # fmt: skip
    return found[0] if found else None


__all__ = ["TABLES", "arrow_records", "audio_column", "is_saved", "parquet_files"]
