"""A manifest from a folder of recordings and a file of transcripts, or from a table of another tool."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.manifest import STREAM_COLUMNS, read_manifest, row_of
from unitok_tokenizers.data.tables.base import AUDIO_SUFFIXES, Finder, Record, TableOptions, composed
from unitok_tokenizers.data.tables.registry import folder_of, is_table, records
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, check_utf8, files_below

KEPT = ("id", "group", "lang", "speaker", "split", "words", "offset", "duration", "units", "codes", "extras")
"""Columns of transcripts that are carried over."""


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """What a transcript file does not say."""

    lang: str = "en"
    """Language code of rows that name none."""
    speaker: str = ""
    """Regular expression whose first group, found in a recording's path, is the speaker; empty for unknown."""
    test_share: float = 0.1
    """Share of the recordings for the split `test`, where the transcripts name no splits."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column → the table's own, or its number from 1 where it has no header."""


@dataclass(frozen=True)
class ManifestReport:
    """What became of recordings and transcripts."""

    path: Path
    """The manifest."""
    rows: int
    """Recordings with a transcript."""
    splits: Mapping[str, int]
    """Rows by split."""
    speakers: int
    """Distinct speakers."""
    without_transcript: tuple[str, ...]
    """Recordings that no line names."""
    without_recording: tuple[str, ...]
    """Transcripts whose recording is not in the folder."""


def write_manifest(
    folder: Path | str | None, transcripts: Path | str, out: Path | str, options: ManifestOptions | None = None
) -> ManifestReport:
    """Pair recordings with transcripts and write a manifest, whose audio paths start at its own folder.

    A line of the transcripts is a recording's name, with or without its suffix and folders, and its text, parted by a
    tab, by `|` or by the first space; or the transcripts are any table that `read_manifest` reads. Names meet whichever
    way their accents are composed.

    Args:
        folder: the recordings; None where the table tells their paths by itself.
        transcripts: text lines, or a table.
        out: the manifest to write.
        options: what the table does not say.

    Raises:
        InputError: no folder, no recordings, a malformed line, a name that fits several recordings, nothing paired.
    """
    options = options or ManifestOptions()
    source, target = Path(transcripts), Path(out)
    if not 0 <= options.test_share < 1:
        raise InputError(f"the test share is {options.test_share}; give a number from 0 up to, not including, 1")
    if os.path.exists(target) and os.path.exists(source) and os.path.samefile(target, source):
        raise InputError(f"{target} is the table that is read; name another file with -o")
    pattern = _compiled(options.speaker)
    root = folder_of(source) if folder is None else Path(folder)
    recordings = [] if folder is None else find_recordings(root)
    if not is_table(source):
        raise InputError(f"no transcript file {source}; write one line a recording: its name, a tab, its text")
    pairs = _named(source, options) if folder is None else _paired(root, recordings, source, options)
    rows, missing, seen = [], list[str](), dict[str, str]()
    finder = Finder(target.parent)
    for path, name, record in pairs:
        if path is None and name:
            missing.append(name)
            continue
        rows.append(_row(path, root, target, record, options.lang, pattern))
        named = replace(record, value=rows[-1], number=len(rows))
        found = row_of(named, finder, options.lang, STREAM_COLUMNS).id  # refused before anything is written
        if found in seen:
            raise InputError(f"{record.where}: id {found!r} stands in {seen[found]} already; make ids unique")
        seen[found] = record.where
    if not rows:
        first = f"; the first line names {missing[0]!r}" if missing else ""
        has = f", the folder has {recordings[0]}" if recordings else ""
        raise InputError(f"no line of {source} names a recording in {root}{first}{has}")
    if not any("split" in row for row in rows):
        for index, row in enumerate(rows):
            drawn = _draw(str(row.get("group") or row.get("audio") or index))
            row["split"] = "test" if drawn < options.test_share else "train"
    for row in rows:
        check_utf8(row.get("audio", ""), str(source))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    atomic_write_bytes(target, text.encode("utf-8"))
    read = read_manifest(target)
    used = {row.audio.resolve() for row in read if row.audio is not None}
    splits = sorted({row.split for row in read})
    return ManifestReport(
        target,
        len(read),
        {name: sum(row.split == name for row in read) for name in splits},
        len({row.speaker for row in read} - {""}),
        tuple(str(one.relative_to(root)) for one in recordings if one.resolve() not in used),
        tuple(missing),
    )


def _paired(
    root: Path, recordings: list[Path], source: Path, options: ManifestOptions
) -> Iterator[tuple[Path | None, str, Record]]:
    """(recording in the folder, or None; its name; the row) of every line of the transcripts."""
    names = _names(root, recordings)
    for record in records(source, TableOptions(columns=options.columns)):
        name = record.value.get("audio", record.value.get("id"))
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(record.value.get("text"), str):
            raise InputError(f"{record.where}: write a row with `audio` and `text`, both strings")
        key = _key(str(name))
        found = names.get(key) or [
            one for one in names.get(Path(key).name, ()) if _tail(key, _key(one.relative_to(root).as_posix()))
        ]
        if len(found) > 1:
            raise InputError(f"{record.where}: {name!r} fits {found[0]} and {found[1]}; write the folder too")
        yield (found[0] if found else None), str(name), record


def _named(source: Path, options: ManifestOptions) -> Iterator[tuple[Path | None, str, Record]]:
    """The same of a table whose rows tell where their recordings are."""
    finder = Finder(folder_of(source))
    for record in records(source, TableOptions(columns=options.columns)):
        name = record.value.get("audio")
        if name is not None and not isinstance(name, str):
            raise InputError(f"{record.where}: audio is {repr(name)[:60]}; write a path")
        yield (finder.find(name, record.where) if name else None), "", record


def find_recordings(folder: Path) -> list[Path]:
    """All recordings below a folder, sorted; InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder that holds the recordings")
    found = sorted(path for path in files_below(folder) if path.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise InputError(f"{folder} holds no recordings ({' '.join(AUDIO_SUFFIXES)}); give the folder that does")
    return found


def _compiled(pattern: str) -> re.Pattern[str] | None:
    if not pattern:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"speaker pattern {pattern!r} is no regular expression: {error}") from None
    if compiled.groups != 1:
        raise InputError(f"speaker pattern {pattern!r} has {compiled.groups} groups; put brackets around the speaker")
    return compiled


def _key(name: str) -> str:
    """A recording's name as it is looked up: accents composed, forward slashes, no suffix of audio."""
    path = Path(composed(name).replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in AUDIO_SUFFIXES else path).as_posix()


def _tail(one: str, other: str) -> bool:
    """Whether one of two paths is the end of the other: what both name of folders agrees."""
    mine, theirs = one.split("/"), other.split("/")
    shared = min(len(mine), len(theirs))
    return mine[-shared:] == theirs[-shared:]


def _names(root: Path, recordings: list[Path]) -> dict[str, list[Path]]:
    """Recordings by their path below the folder and by their bare name."""
    names: dict[str, list[Path]] = {}
    for path in recordings:
        for key in {_key(path.relative_to(root).as_posix()), _key(path.name)}:
            names.setdefault(key, []).append(path)
    return names


def _row(
    path: Path | None, root: Path, target: Path, record: Record, lang: str, pattern: re.Pattern[str] | None
) -> dict[str, Any]:
    kept = {key: record.value[key] for key in ("text", *KEPT) if key in record.value}
    row = {"lang": lang, **kept}
    if path is None:
        return row
    row = {"audio": Path(os.path.relpath(path, target.parent)).as_posix(), **row}
    if pattern is not None and "speaker" not in row:
        inside = Path(os.path.relpath(path, root)).as_posix()
        found = pattern.search(inside)
        if found is None:
            raise InputError(f"speaker pattern {pattern.pattern!r} finds nothing in {inside}; correct it")
        row["speaker"] = found.group(1)
    return row


def _draw(name: str) -> float:
    """A number in [0, 1) that depends on the name of a group or recording alone: more of them move none between splits,
    and what says the same stays together."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest()[:8], 16) / 2**32
