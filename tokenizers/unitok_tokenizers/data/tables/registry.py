"""Every table that is read: which reader a file or folder has, and its records with our column names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.tables import arrow, kaldi, lhotse
from unitok_tokenizers.data.tables.base import Record, TableOptions, lines_of, plain_suffix
from unitok_tokenizers.data.tables.columns import check_chosen_columns, understood
from unitok_tokenizers.data.tables.delimited import delimited_records
from unitok_tokenizers.data.tables.json_lines import json_records
from unitok_tokenizers.errors import InputError

JSON = (".jsonl", ".json", ".ndjson")
DELIMITED = (".tsv", ".csv", ".psv")
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
"""A table of recordings in the same folder (`datasets`' AudioFolder, LJSpeech)."""
KNOWN = (
    "give a JSON Lines (.jsonl), CSV or TSV file, a table of LJSpeech, NeMo, Lhotse or Parquet, a folder of Kaldi, "
    "or one that `datasets` saved"
)
Raw = Iterator[tuple[str, int, dict[str, Any]]]


def is_table(path: Path) -> bool:
    """Whether this is a file, or a folder that is a table."""
    return path.is_file() or (path.is_dir() and bool(_folder_kinds(path)))


def folder_of(path: Path) -> Path:
    """The folder at which relative paths of a table begin."""
    return path if path.is_dir() else path.parent


def records(source: Path, options: TableOptions | None = None) -> Iterator[Record]:
    """Utterances of a table.

    Raises:
        InputError: no such table, one that cannot be read, or columns that are not understood; with file and line.
    """
    wanted = options or TableOptions()
    check_chosen_columns(wanted)
    raw, chosen = _reader(source, dict(wanted.columns))
    for where, number, value in raw:
        yield Record(where=where, number=number, value=understood(value, where, chosen, wanted))


def _reader(source: Path, chosen: dict[str, str]) -> tuple[Raw, dict[str, str]]:
    if source.is_dir():
        return _folder_reader(source, chosen)
    if not source.is_file():
        raise InputError(f"no manifest {source}; {KNOWN}")
    suffix = plain_suffix(source)
    if suffix in arrow.TABLES:
        return _arrow_reader(source, chosen)
    if source.name in kaldi.FILES and kaldi.is_kaldi(source.parent):
        return kaldi.kaldi_records(source.parent), chosen
    if suffix in JSON or (suffix not in DELIMITED and _first_line(source).startswith("{")):
        first: Mapping[str, Any] = next(json_records(source), ("", 0, {}))[2]
        return (lhotse.lhotse_records(source) if lhotse.is_lhotse(first) else json_records(source)), chosen
    return delimited_records(source, chosen), chosen


def _first_line(source: Path) -> str:
    return next((line.lstrip() for _, line in lines_of(source) if line.strip()), "")


def _arrow_reader(source: Path, chosen: dict[str, str]) -> tuple[Raw, dict[str, str]]:
    audio = arrow.audio_column(source, chosen)
    return arrow.arrow_records(source, chosen), {**chosen, **({"audio": audio} if audio is not None else {})}


def _folder_kinds(folder: Path) -> list[str]:
    """What makes a folder a table."""
    found = [name for name in ("dataset_dict.json", "state.json") if (folder / name).is_file()][:1]
    found += ["wav.scp"] if kaldi.is_kaldi(folder) else []
    found += [name for name in METADATA if (folder / name).is_file()]
    found += [path.relative_to(folder).as_posix() for path in arrow.parquet_files(folder)[:1]]
    return found


def _folder_reader(folder: Path, chosen: dict[str, str]) -> tuple[Raw, dict[str, str]]:
    kinds = _folder_kinds(folder)
    if not kinds:
        raise InputError(f"no manifest {folder}: the folder is no table; {KNOWN}")
    if len(kinds) > 1:
        raise InputError(f"{folder} holds several tables, {' and '.join(kinds)}; give the one that counts")
    if kinds[0] in METADATA:
        return _reader(folder / kinds[0], chosen)
    if kinds[0] == "wav.scp":
        return kaldi.kaldi_records(folder), chosen
    return _arrow_reader(folder, chosen)
