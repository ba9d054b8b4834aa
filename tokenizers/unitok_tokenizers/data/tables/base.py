"""What every table of utterances is read as: records with our own column names."""

from __future__ import annotations

import gzip
import math
import os
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError

KNOWN_SPLITS = ("train", "dev", "test", "test_seen", "codec")
MIXED = "_mixed"
"""Behind the name of a split: rows that were made of its rows, to be given to tasks whose answers those are, and
nothing else (`mixing`)."""
AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aiff", ".aif", ".aifc", ".au", ".snd", ".w64", ".rf64",
    ".caf", ".sph", ".nist",
)  # fmt: skip
"""Names of recordings that are read."""
OTHER_AUDIO = (".m4a", ".mp4", ".aac", ".wma", ".amr", ".webm", ".mka", ".pcm", ".raw", ".ark")
"""Names of recordings that are not."""
FOLDERS = ("wavs", "wav", "audio", "clips", "recordings")
"""Where LJSpeech, Common Voice and their descendants keep what a table names without its folder."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """What a table does not say of itself."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our name of a column → the table's own, or its number from 1 where the table has no header."""
    streams: tuple[str, ...] = ()
    """Names of streams made elsewhere: columns of those names hold ids."""
    apart: bool = False
    """Ids come in files of their own, so that a row may hold no more than its name."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One utterance of a table."""

    where: str
    """File and line, or row, for messages."""
    value: Mapping[str, Any]
    """Our column names → values, absent ones left out; `audio` is a path."""
    number: int
    """From 1: names the row where it has no id."""


def absent(value: Any) -> bool:
    """Whether a cell says nothing: null, an empty string, not a number."""
    return value is None or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))


def composed(name: str) -> str:
    """A name with its accents composed (NFC): file systems write them apart, tables do not."""
    return unicodedata.normalize("NFC", name)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of a text file, which may be compressed; a line ends with a line feed and nothing else.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"cannot read table {path}: {error}; save it as UTF-8 text") from error


def plain_suffix(path: Path) -> str:
    """The suffix in lower case, without that of compression."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


class Finder:
    """Finds the recordings that a table names: as they are written, then in another unicode form, with a suffix that
    was left out, or in the folder where such tables keep them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str, where: str) -> Path:
        """The path of a recording; of one that is nowhere, as it is written.

        Raises:
            InputError: the name fits several recordings, or is none at all.
        """
        if "\x00" in name:
            raise InputError(f"{where}: audio path {name!r} holds a null character; write a plain path")
        written = self.folder / name
        if os.path.isfile(written):
            return written
        slashed = name.replace("\\", "/")
        bare = Path(slashed).suffix.lower() not in AUDIO_SUFFIXES + OTHER_AUDIO
        found = self._in_folder(self.folder / slashed, bare)
        if not found and "/" not in slashed:
            found = [path for place in FOLDERS for path in self._in_folder(self.folder / place / slashed, bare)]
        if len(found) > 1:
            raise InputError(f"{where}: {name!r} fits {found[0]} and {found[1]}; write the whole name")
        return found[0] if found else written

    def _in_folder(self, path: Path, bare: bool) -> list[Path]:
        """What is like `path` there: of equal names in composed form, and where it has no suffix, with one."""
        names = self._names(path.parent)
        own = composed(path.name)
        found = names.get(own, [])
        if not found and bare:
            found = [name for suffix in AUDIO_SUFFIXES for name in names.get(own + suffix, [])]
        return [path.parent / name for name in found]

    def _names(self, folder: Path) -> Mapping[str, Sequence[str]]:
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            try:
                for entry in sorted(os.listdir(folder)):
                    stem, suffix = os.path.splitext(entry)
                    names.setdefault(composed(stem + suffix.lower()), []).append(entry)
                    if suffix != suffix.lower():
                        names.setdefault(composed(entry), []).append(entry)
            except OSError:
                names = {}
            self._listed[folder] = names
        return self._listed[folder]


def from_recipe(name: str, finder: Finder, where: str) -> str:
    """A path of a table of Kaldi, ESPnet or Lhotse, which counts from where their recipes run: with folders in it, and
    where nothing is found from the table's, from the current folder, else from one of the three above the table's."""
    if "/" not in name or "\x00" in name or os.path.isabs(name) or os.path.isfile(finder.find(name, where)):
        return name
    places = (Path.cwd(), *list(finder.folder.resolve().parents)[:3])
    return next((str(place / name) for place in places if os.path.isfile(place / name)), name)
