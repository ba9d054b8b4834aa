"""What a command is given, as single inputs: recordings, folders and lists of them, manifests, texts, ids."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unitok.inputs import AUDIO_SUFFIXES, Audio, Excerpt
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.tables.base import lines_of
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import files_below

MANIFESTS = (".jsonl", ".tsv", ".csv")
"""Suffixes of manifests, as `unitok prepare` reads them."""
LIST = ".txt"
"""Suffix of a list: a path, or a text, a line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """One thing to answer."""

    id: str
    """Its name: unique among the inputs of a command, and the same when the command is repeated."""
    shown: str
    """What was given: a path, a text, or a place in a file of ids."""
    audio: Audio | None = None
    """A recording, a part of one, or ids."""
    text: str | None = None
    """A text."""
    lang: str | None = None
    """Its language where a manifest says it; None leaves it to the command."""
    problem: str = ""
    """Why there is nothing to answer; empty where there is."""


def holds_many(path: str) -> bool:
    """Whether this is a folder, a list or a manifest rather than one recording."""
    return os.path.isdir(path) or (path.lower().endswith((LIST, *MANIFESTS)) and os.path.isfile(path))


def holds_texts(path: str) -> bool:
    """Whether this is a manifest that is there rather than a text."""
    return path.lower().endswith(MANIFESTS) and os.path.isfile(path)


def recordings(paths: Sequence[str], lang: str, *, beside: Path | None = None) -> list[Input]:
    """Every recording of paths: itself, those below a folder, of a list (a path a line, relative to the list) or of a
    manifest, whose rows without a language are in `lang`. What a folder holds below `beside` is none: answers go there.

    Raises:
        InputError: a folder without recordings, or a list or manifest that cannot be read. A recording that is missing
            is told when it is read.
    """
    return unique([one for path in paths for one in _recordings(path, lang, beside)])


def _recordings(path: str, lang: str, beside: Path | None) -> Iterable[Input]:
    if os.path.isdir(path):
        answers = None if beside is None else beside.resolve()
        found = [
            str(one)
            for one in sorted(files_below(Path(path)))
            if _is_recording(one) and (answers is None or answers not in one.resolve().parents)
        ]
        if not found:
            raise InputError(f"no audio file in the folder {path}; check the path, or give a folder of recordings")
        return [Input(id=one, shown=one, audio=one) for one in found]
    if not holds_many(path):
        return [Input(id=path, shown=path, audio=path)]
    if path.lower().endswith(LIST):
        listed = [os.path.join(os.path.dirname(path), line.strip()) for _, line in _lines(path)]
        return [Input(id=one, shown=one, audio=one) for one in listed]
    return [_of_row(row, path, _audio_of) for row in read_manifest(path, default_lang=lang)]


def _is_recording(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def texts(path: str, lang: str) -> list[Input]:
    """Every text of a file: a text a line, named by its number, empty ones left out; or the rows of a manifest.

    Raises:
        InputError: a file that cannot be read, or holds nothing.
    """
    if path.lower().endswith(MANIFESTS):
        return unique([_of_row(row, path, _text_of) for row in read_manifest(path, default_lang=lang)])
    return [Input(id=str(number), shown=line, text=line) for number, line in _lines(path)]


def ids(arrays: Sequence[np.ndarray], path: str) -> list[Input]:
    """Every utterance of a file of ids, named by its number."""
    return [Input(id=str(n), shown=f"{path}:{n}", audio=one) for n, one in enumerate(arrays, 1)]


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """(number, line) of what is not empty; InputError where nothing is."""
    found = [(number, line) for number, line in lines_of(Path(path)) if line.strip()]
    if not found:
        raise InputError(f"{path} holds no lines; write a path, or a text, a line")
    yield from found


def _of_row(row: Row, path: str, given: Callable[[Row], Input]) -> Input:
    return replace(given(row), id=row.id, lang=row.lang)


def _audio_of(row: Row) -> Input:
    if row.audio is None:
        return Input(id="", shown=row.id, problem=f"row {row.id} has no audio; add the path of its recording")
    whole = not row.offset and row.seconds is None
    part = "" if whole else f" at {row.offset:g} s" + ("" if row.seconds is None else f", {row.seconds:g} s")
    audio = row.audio if whole else Excerpt(path=row.audio, offset=row.offset, seconds=row.seconds)
    return Input(id="", shown=f"{row.audio}{part}", audio=audio)


def _text_of(row: Row) -> Input:
    if not row.text:
        return Input(id="", shown="", problem=f"row {row.id} has no text; add it")
    return Input(id="", shown=row.text, text=row.text)


def unique(inputs: Sequence[Input]) -> list[Input]:
    """The same inputs, those that repeat a name with a number behind it."""
    taken, found = {one.id for one in inputs}, list[Input]()
    seen: set[str] = set()
    for one in inputs:
        name, number = one.id, 1
        while name in seen or (number > 1 and name in taken):
            number += 1
            name = f"{one.id}#{number}"
        seen.add(name)
        found.append(one if name == one.id else replace(one, id=name))
    return found
