"""A manifest from a folder of recordings and a file of transcripts."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.manifest import read_manifest

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64")
KEPT = ("id", "group", "lang", "speaker", "split", "words", "offset", "duration", "extras")
"""Columns of a JSON Lines transcript that are carried over."""


@dataclass(frozen=True, kw_only=True)
class ManifestOptions:
    """What a transcript file does not say."""

    lang: str = "en"
    """Language code of rows that name none."""
    speaker: str = ""
    """Regular expression whose first group, found in a recording's path, is the speaker; empty for unknown."""
    test_share: float = 0.1
    """Share of the recordings for the split `test`, where the transcripts name no splits."""


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
    folder: Path | str, transcripts: Path | str, out: Path | str, options: ManifestOptions | None = None
) -> ManifestReport:
    """Pair recordings with transcripts and write a manifest, whose audio paths start at its own folder.

    A line of the transcripts is a recording's name, with or without its suffix and folders, and its text, parted by a
    tab, by `|` (the last field is the text) or by the first space; or a JSON object with `audio` and `text`, and any
    other column of a manifest.

    Raises:
        InputError: no folder, no recordings, a malformed line, a name that fits several recordings, nothing paired.
    """
    options = options or ManifestOptions()
    root, source, target = Path(folder), Path(transcripts), Path(out)
    if not 0 <= options.test_share < 1:
        raise InputError(f"the test share is {options.test_share}; give a number from 0 up to, not including, 1")
    pattern = _compiled(options.speaker)
    recordings = find_recordings(root)
    names = _names(root, recordings)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for line, name, value in _lines(source):
        found = names.get(_key(name), names.get(Path(_key(name)).name, []))
        if len(found) > 1:
            raise InputError(f"{source}:{line}: {name!r} fits {found[0]} and {found[1]}; write the folder too")
        if not found:
            missing.append(name)
            continue
        rows.append(_row(found[0], root, target, value, options.lang, pattern))
    if not rows:
        first = f"; the first line names {missing[0]!r}" if missing else ""
        raise InputError(f"no line of {source} names a recording in {root}{first}, the folder has {recordings[0]}")
    if not any("split" in row for row in rows):
        for row in rows:
            row["split"] = "test" if _draw(row["audio"]) < options.test_share else "train"
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


def find_recordings(folder: Path) -> list[Path]:
    """All recordings below a folder, sorted; InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"no folder {folder}; give the folder that holds the recordings")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InputError(f"{folder} holds no recordings ({' '.join(SUFFIXES)}); give the folder that does")
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
    """A recording's name as it is looked up: forward slashes, no suffix of audio."""
    path = Path(name.replace("\\", "/"))
    return (path.with_suffix("") if path.suffix.lower() in SUFFIXES else path).as_posix()


def _names(root: Path, recordings: list[Path]) -> dict[str, list[Path]]:
    """Recordings by their path below the folder and by their bare name."""
    names: dict[str, list[Path]] = {}
    for path in recordings:
        for key in {_key(path.relative_to(root).as_posix()), _key(path.name)}:
            names.setdefault(key, []).append(path)
    return names


def _lines(source: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line number, recording's name, columns)."""
    if not source.is_file():
        raise InputError(f"no transcript file {source}; write one line a recording: its name, a tab, its text")
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read transcripts {source}: {error}; save them as UTF-8 text") from error
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line:
            continue
        if source.suffix in (".jsonl", ".json"):
            yield number, *_json_line(line, f"{source}:{number}")
            continue
        separator = next((mark for mark in ("\t", "|") if mark in line), None)
        fields = [part.strip() for part in (line.split(separator) if separator else line.split(maxsplit=1))]
        if len(fields) < 2 or not fields[0]:
            raise InputError(f"{source}:{number}: {line!r} has no text; write the recording's name, a tab, its text")
        yield number, fields[0], {"text": fields[-1]}


def _json_line(line: str, where: str) -> tuple[str, dict[str, Any]]:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error}); write one JSON object a line") from None
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("audio", "text")):
        raise InputError(f"{where}: write a JSON object with `audio` and `text`, both strings")
    kept = {key: value[key] for key in KEPT if value.get(key) is not None}
    return value["audio"], {"text": value["text"], **kept}


def _row(
    path: Path, root: Path, target: Path, value: dict[str, Any], lang: str, pattern: re.Pattern[str] | None
) -> dict[str, Any]:
    row = {"audio": Path(os.path.relpath(path, target.parent)).as_posix(), "lang": lang, **value}
    if pattern is not None and "speaker" not in row:
        found = pattern.search(path.relative_to(root).as_posix())
        if found is None:
            raise InputError(
                f"speaker pattern {pattern.pattern!r} finds nothing in {path.relative_to(root)}; correct it"
            )
        row["speaker"] = found.group(1)
    return row


def _draw(name: str) -> float:
    """A number in [0, 1) that depends on the recording's name alone: more recordings move none between splits."""
    return int(hashlib.sha256(Path(name).name.encode()).hexdigest()[:8], 16) / 2**32
