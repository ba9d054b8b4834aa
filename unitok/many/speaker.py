"""Recordings of one speaker: files, those of folders and lists, and rows of manifests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitok.inputs import Audio, Excerpt
from unitok.many.inputs import MANIFESTS, recordings
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError


def holds_rows(path: str) -> bool:
    """Whether this is a manifest that is there."""
    return path.lower().endswith(MANIFESTS) and Path(path).is_file()


def speaker_recordings(paths: Sequence[str], *, speaker: str | None = None, split: str | None = None) -> list[Audio]:
    """The recordings of paths, of manifests those of a speaker and of a split alone.

    Raises:
        InputError: a path that cannot be read, a manifest without such rows, or one of several speakers where none is
            chosen.
    """
    plain = [path for path in paths if not holds_rows(path)]
    found = [one.audio for one in recordings(plain, "en") if one.audio is not None]
    for path in paths:
        if holds_rows(path):
            found += [_audio(row) for row in _rows(path, speaker, split)]
    return found


def _rows(path: str, speaker: str | None, split: str | None) -> list[Row]:
    every = [row for row in read_manifest(path) if row.audio is not None]
    rows = [row for row in every if speaker in (None, row.speaker) and split in (None, row.split)]
    if not rows:
        wanted = [f"{what} {value!r}" for what, value in (("speaker", speaker), ("split", split)) if value is not None]
        of = f" of {' and '.join(wanted)}" if wanted else ""
        speakers = ", ".join(sorted({row.speaker for row in every if row.speaker})) or "not named"
        splits = ", ".join(sorted({row.split for row in every if row.split})) or "not named"
        raise InputError(f"{path} has no recordings{of}; its speakers are {speakers}, its splits {splits}")
    if len(names := sorted({row.speaker for row in rows})) > 1:
        raise InputError(f"{path} has recordings of {', '.join(names)}: choose one with --speaker NAME")
    return rows


def _audio(row: Row) -> Audio:
    assert row.audio is not None
    if not row.offset and row.seconds is None:
        return row.audio
    return Excerpt(path=row.audio, offset=row.offset, seconds=row.seconds)
