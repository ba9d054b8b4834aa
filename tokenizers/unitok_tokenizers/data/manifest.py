"""Manifests: one utterance a row, in our own columns or as another tool wrote them, checked as they are read."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.embedded import container_of
from unitok_tokenizers.audio.io import audio_seconds, beginning, read_blocks
from unitok_tokenizers.data.tables.base import KNOWN_SPLITS, MIXED, Finder, Record, TableOptions, composed
from unitok_tokenizers.data.tables.registry import folder_of, records
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import check_utf8
from unitok_tokenizers.grammar.vocabulary import LANGUAGE_CODE

STREAM_COLUMNS = ("units", "codes")
NAMED_LANGUAGES = {
    "arabic": "ar", "basque": "eu", "bengali": "bn", "bulgarian": "bg", "cantonese": "yue", "catalan": "ca",
    "chinese": "zh", "croatian": "hr", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "estonian": "et",
    "finnish": "fi", "french": "fr", "georgian": "ka", "german": "de", "greek": "el", "hebrew": "he", "hindi": "hi",
    "hungarian": "hu", "icelandic": "is", "indonesian": "id", "irish": "ga", "italian": "it", "japanese": "ja",
    "korean": "ko", "latvian": "lv", "lithuanian": "lt", "mandarin": "zh", "maltese": "mt", "norwegian": "no",
    "persian": "fa", "polish": "pl", "portuguese": "pt", "romanian": "ro", "russian": "ru", "slovak": "sk",
    "slovenian": "sl", "spanish": "es", "swahili": "sw", "swedish": "sv", "tamil": "ta", "telugu": "te", "thai": "th",
    "turkish": "tr", "ukrainian": "uk", "urdu": "ur", "vietnamese": "vi", "welsh": "cy",
}  # fmt: skip
"""Names of languages that tools write where a code is meant (Lhotse's recipes, Kaldi's `utt2lang`) → ISO 639."""
LARGEST_ID = 2**31 - 1
"""Ids are stored in 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One utterance. Text or audio may be absent, or both where tokens were made elsewhere."""

    id: str
    """Unique within the manifest."""
    group: str
    """Utterances that say the same in other languages or voices share it."""
    lang: str
    """Language code."""
    speaker: str = ""
    """Speaker name; empty where unknown."""
    split: str = "train"
    """train, dev, test, or a name of your own."""
    text: str | None = None
    """Transcript."""
    words: tuple[tuple[str, float, float], ...] = ()
    """(word, start, end) in seconds, where alignments are known."""
    audio: Path | None = None
    """Recording."""
    offset: float = 0.0
    """Where the utterance starts in the recording, in seconds."""
    seconds: float | None = None
    """Its length in seconds; None takes the rest of the recording."""
    tokens: Mapping[str, Any] = field(default_factory=dict)
    """Token streams made elsewhere: name → local ids, (N,) or (F, Q)."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that a task may use (n-best lists, keywords)."""

    @property
    def recorded(self) -> bool:
        """Whether `load` gives samples."""
        return self.audio is not None

    @property
    def held_bytes(self) -> int:
        """Bytes of its recording that are in memory as long as the row is: none of one that lies in a file."""
        return 0

    @property
    def reference(self) -> str:
        """The recording's path, for shards; empty where there is no file of what `load` gives."""
        return "" if self.audio is None else str(self.audio)

    def load(self, sample_rate: int, *, most_seconds: float | None = None) -> np.ndarray:
        """The utterance's samples (S,) at `sample_rate`; InputError, naming the row, where they cannot be read.

        With `most_seconds` reading stops there: a longer utterance gives that many seconds of its beginning.
        """
        assert self.audio is not None, f"row {self.id} has no audio"
        most = None if most_seconds is None else round(most_seconds * sample_rate)
        try:
            return beginning(
                read_blocks(self.audio, sample_rate=sample_rate, offset=self.offset, seconds=self.seconds), most
            )
        except InputError as error:
            raise InputError(f"row {self.id}: {error}") from error

    def length(self) -> float:
        """The utterance's length in seconds, from its recording's container; 0 without a recording.

        Raises:
            InputError: the recording cannot be read; the message names the row.
        """
        if self.audio is None or self.seconds is not None:
            return self.seconds or 0.0
        try:
            return max(0.0, audio_seconds(self.audio) - self.offset)
        except InputError as error:
            raise InputError(f"row {self.id}: {error}") from error

    def stamp(self) -> list[int | str]:
        """Size and time of the last change of its recording, or of the table that holds it; empty without one."""
        if self.audio is None:
            return []
        try:
            status = os.stat(container_of(self.audio) or self.audio)
        except (OSError, ValueError):
            return []
        return [status.st_size, status.st_mtime_ns]


def read_manifest(
    path: Path | str,
    *,
    default_lang: str = "en",
    columns: Mapping[str, str] | None = None,
    streams: Sequence[str] = (),
    apart: bool = False,
) -> list[Row]:
    """Read a manifest, or a table of another tool; relative audio paths start at its folder.

    Columns: `audio` and/or `text`, `lang`; optional `id`, `group`, `speaker`, `split`, `words`, `offset`,
    `duration`, `extras`, `units`, `codes`. The names that other tools have for these are understood
    (`tables.columns.ALIASES`); what is left of a row's columns is kept in its `extras`.

    Args:
        path: JSON Lines, CSV, TSV or bars, Arrow or Parquet, Lhotse's cuts; a data folder of Kaldi, or one that
            `datasets` saved.
        default_lang: language of rows that name none.
        columns: our name of a column → the table's own, or its number from 1 where there is no header.
        streams: names of streams made elsewhere, of which columns of those names hold the ids.
        apart: ids come in files of their own (`token_sources`): a row may hold no more than its `id`.

    Raises:
        InputError: missing, empty, malformed or ambiguous; the message names file and line.
    """
    source = Path(path)
    finder = Finder(folder_of(source))
    rows: list[Row] = []
    seen: dict[str, str] = {}
    options = TableOptions(columns=columns or {}, streams=tuple(streams), apart=apart)
    for record in records(source, options):
        row = row_of(record, finder, default_lang, (*STREAM_COLUMNS, *streams))
        if row.id in seen:
            raise InputError(f"{record.where}: id {row.id!r} stands in {seen[row.id]} already; make ids unique")
        seen[row.id] = f"line {record.where.rpartition(':')[2]}" if ":" in record.where else record.where
        rows.append(row)
    if not rows:
        raise InputError(f"manifest {source} holds no rows; write one JSON object or tab-separated row per utterance")
    return rows


def unknown_splits(rows: Sequence[Row]) -> dict[str, int]:
    """Split names that no stage looks for, with their row counts: usually a slip of the pen."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.split.removesuffix(MIXED) not in KNOWN_SPLITS:
            counts[row.split] = counts.get(row.split, 0) + 1
    return counts


def _text_field(value: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str | None:
    found = value.get(key, default)
    if found is None:
        return None
    if isinstance(found, float) and found.is_integer():  # a whole number that passed through a table of fractions
        found = int(found)
    if isinstance(found, bool | list | dict | float):
        raise InputError(f"{where}: {key} is {repr(found)[:60]}; write a string")
    return str(found)


def _said(text: str | None) -> str | None:
    """A text as requests have it: accents composed (NFC), no space around it; None where nothing is visible."""
    text = composed(text or "").strip()
    return text if any(unicodedata.category(character)[0] not in "ZC" for character in text) else None


def _name_field(value: Mapping[str, Any], key: str, where: str) -> str:
    """A name, which meets the same name in another unicode form; empty where absent."""
    return composed(_text_field(value, key, where) or "")


def _audio_field(value: Mapping[str, Any], where: str) -> str | None:
    """The path of a recording, which `datasets` puts into an object of its own."""
    found = value.get("audio")
    if isinstance(found, dict) and isinstance(found.get("path"), str):
        if found.get("bytes") is None and found.get("array") is None:
            return str(found["path"])
    return _text_field(value, "audio", where)


def _number_field(value: Mapping[str, Any], key: str, where: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    try:
        number = float(found)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(found, bool) or not 0 <= number < 1e9:
        raise InputError(f"{where}: {key} is {repr(found)[:60]}; write a number of seconds, 0 or more")
    return number


def row_of(record: Record, finder: Finder, default_lang: str, streams: Sequence[str]) -> Row:
    """A record of a table as a row; InputError, naming its place, for a value that is not understood."""
    where, value = record.where, record.value
    audio, text = _audio_field(value, where), _said(_text_field(value, "text", where))
    row_id = _name_field(value, "id", where) or f"{record.number:07d}"
    named = _name_field(value, "lang", where)
    lang = NAMED_LANGUAGES.get(named.casefold(), named) if named else default_lang
    if not LANGUAGE_CODE.fullmatch(lang):
        raise InputError(f"{where}: lang is {lang[:60]!r}; write a code of letters, digits, - or _ such as 'en'")
    extras = value.get("extras") or {}
    if not isinstance(extras, dict):
        raise InputError(f"{where}: extras is {repr(extras)[:60]}; write a JSON object")
    place = finder.find(audio, where) if audio else None
    if place is not None:
        check_utf8(place, where)
    return Row(
        id=row_id,
        group=_name_field(value, "group", where) or row_id,
        lang=lang,
        speaker=_name_field(value, "speaker", where),
        split=_text_field(value, "split", where) or "train",
        text=text,
        words=_words(value.get("words"), where),
        audio=place,
        offset=_number_field(value, "offset", where) or 0.0,
        # `duration` describes the file unless an offset says that the row is a part of it.
        seconds=_number_field(value, "duration", where) if "offset" in value else None,
        tokens={name: _tokens(value[name], name, where) for name in streams if name in value},
        extras=extras,
    )


def _tokens(value: Any, name: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.zeros(0)
    plain = array.dtype.kind in "iu" and array.ndim in (1, 2) and array.size > 0
    if not plain or array.min() < 0 or array.max() > LARGEST_ID:
        raise InputError(
            f"{where}: {name} is {repr(value)[:60]}: write ids (or frames of ids), none negative or missing"
        )
    return array.astype(np.int64)


def _words(value: Any, where: str) -> tuple[tuple[str, float, float], ...]:
    if value in (None, ""):
        return ()
    try:
        words = tuple((composed(str(word)), float(start), float(end)) for word, start, end in value)
        if not all(0 <= start <= end < 1e9 for _, start, end in words):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{where}: words is {repr(value)[:60]}: write a list of [word, start, end] in rising seconds"
        ) from None
    return words
