"""Kaldi's data folders: `wav.scp`, `segments`, `text`, `utt2spk`, `utt2lang`: lines of a name and what it has."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitok_tokenizers.data.tables.base import Finder, composed, from_recipe, lines_of
from unitok_tokenizers.errors import InputError

FILES = ("wav.scp", "segments", "text", "utt2spk", "utt2lang")
CHANNELS = "reco2file_and_channel"
FIRST_CHANNEL = ("0", "A")
"""What segments call the only channel of a recording."""
COPYING = {"cat": (), "flac": ("-c", "-d", "-s", "-dc", "-cd", "-dcs", "-cds", "-sdc", "-scd", "--decode", "--stdout")}
"""Commands that only copy or unpack one file, with the options that change nothing of it."""


def is_kaldi(folder: Path) -> bool:
    """Whether this is a Kaldi data folder."""
    return (folder / "wav.scp").is_file() or ((folder / "text").is_file() and (folder / "utt2spk").is_file())


def kaldi_records(folder: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(file and line, number, columns) of every utterance.

    Raises:
        InputError: a recording behind a command or in an archive, one channel of several, or names that do not meet.
    """
    for number, line in lines_of(folder / CHANNELS) if (folder / CHANNELS).is_file() else ():
        if line.split()[-1:] not in ([], ["A"], ["1"]):
            raise InputError(
                f"{folder / CHANNELS}:{number}: {line!r} names a further channel; split the channels first"
            )
    scp, finder = _pairs(folder, "wav.scp"), Finder(folder)
    waves = {name: (where, from_recipe(_path(value, where), finder, where)) for where, name, value in scp}
    texts = {name: (where, value) for where, name, value in _pairs(folder, "text")}
    speakers = {name: value for _, name, value in _pairs(folder, "utt2spk")}
    langs = {name: value for _, name, value in _pairs(folder, "utt2lang")}
    utterances: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    segments = list(_pairs(folder, "segments"))
    for where, name, value in segments:
        utterances[name], places[name] = _segment(value, where, waves), where
    if not segments:
        for name, (where, path) in waves.items():
            utterances[name], places[name] = {"audio": path}, where
    for name, (where, text) in texts.items():
        if waves and name not in utterances:
            raise InputError(f"{where}: {name!r} has no recording in {folder}; run utils/fix_data_dir.sh, or remove it")
        utterances.setdefault(name, {})["text"] = text
        places.setdefault(name, where)
    for number, (name, own) in enumerate(utterances.items(), 1):
        known = {"id": name, "speaker": speakers.get(name), "lang": langs.get(name), **own}
        yield places[name], number, known


def _pairs(folder: Path, file: str) -> Iterator[tuple[str, str, str]]:
    """(file and line, name, what follows it); nothing where there is no such file. InputError for a name that stands
    there twice with something else."""
    path, seen = folder / file, dict[str, str]()
    if not path.is_file():
        return
    for number, line in lines_of(path):
        if not line.strip():
            continue
        name, *rest = re.split(r"[ \t]+", line.strip(), maxsplit=1)
        name, value = composed(name), rest[0].strip() if rest else ""
        if seen.setdefault(name, value) != value:
            raise InputError(f"{path}:{number}: {name!r} stands there already with something else; keep one of the two")
        yield f"{path}:{number}", name, value


def _path(value: str, where: str) -> str:
    """The recording's path, from a plain entry or one that only unpacks it."""
    if not value.endswith("|"):
        if ".ark:" in value:
            raise InputError(f"{where}: {value!r} is inside an archive; write the recordings out as files")
        if not value:
            raise InputError(f"{where}: there is no path; write the recording's name, a space, its path")
        return value
    try:
        program, *arguments = shlex.split(value[:-1])
    except ValueError:
        program, arguments = "", []
    options = COPYING.get(Path(program).name)
    files = [one for one in arguments if options is not None and one not in options]
    if options is None or len(files) != 1 or files[0].startswith("-") or "|" in value[:-1]:
        raise InputError(f"{where}: {value[:80]!r} is a command, which is not run; write recordings out as files")
    return files[0]


def _segment(value: str, where: str, waves: dict[str, tuple[str, str]]) -> dict[str, Any]:
    fields = value.split()
    if len(fields) > 3 and fields[3] not in FIRST_CHANNEL:
        raise InputError(f"{where}: the segment is of channel {fields[3]!r}; split the channels first")
    try:
        recording, start, end = composed(fields[0]), float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        raise InputError(f"{where}: write an utterance, its recording, and start and end in seconds") from None
    if recording not in waves:
        raise InputError(f"{where}: recording {recording!r} is not in wav.scp; add it, or remove the segment")
    columns: dict[str, Any] = {"audio": waves[recording][1], "offset": start}
    return {**columns, "end": end} if end >= 0 else columns
