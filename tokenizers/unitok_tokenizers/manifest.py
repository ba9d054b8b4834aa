"""Manifests: one utterance a line, JSON Lines or TSV, checked as it is read."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio import read_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.vocabulary import LANGUAGE_CODE

KNOWN_SPLITS = ("train", "dev", "test", "test_seen", "codec")
STREAM_COLUMNS = ("units", "codes")
HALF_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that UTF-8 cannot hold unless another half follows."""
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
    def reference(self) -> str:
        """The recording's path, for shards; empty where there is no file of what `load` gives."""
        return "" if self.audio is None else str(self.audio)

    def load(self, sample_rate: int) -> np.ndarray:
        """The utterance's samples (S,) at `sample_rate`; InputError, naming the row, where they cannot be read."""
        assert self.audio is not None, f"row {self.id} has no audio"
        try:
            return read_audio(self.audio, sample_rate=sample_rate, offset=self.offset, seconds=self.seconds)
        except InputError as error:
            raise InputError(f"row {self.id}: {error}") from error


def read_manifest(path: Path | str, *, default_lang: str = "en") -> list[Row]:
    """Read a manifest; relative audio paths start at its folder.

    Columns: `audio` and/or `text`, `lang`; optional `id`, `group`, `speaker`, `split`, `words`, `offset`,
    `duration`, `extras`, `units`, `codes`. Unknown columns are ignored.

    Raises:
        InputError: missing, empty or malformed; the message names file and line.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no manifest {source}; give a JSON Lines (.jsonl) or TSV (.tsv) file")
    rows: list[Row] = []
    seen: dict[str, int] = {}
    for line, value in _records(source):
        row = _row(value, source, line, default_lang)
        if row.id in seen:
            raise InputError(f"{source}:{line}: id {row.id!r} stands in line {seen[row.id]} already; make ids unique")
        seen[row.id] = line
        rows.append(row)
    if not rows:
        raise InputError(f"manifest {source} holds no rows; write one JSON object or tab-separated row per utterance")
    return rows


def unknown_splits(rows: Sequence[Row]) -> dict[str, int]:
    """Split names that no stage looks for, with their row counts: usually a slip of the pen."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.split not in KNOWN_SPLITS:
            counts[row.split] = counts.get(row.split, 0) + 1
    return counts


def _records(source: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read manifest {source}: {error}; save it as UTF-8 text") from error
    lines = text.split("\n")
    yield from (_tsv_records if source.suffix == ".tsv" else _json_records)(source, lines)


def _tsv_records(source: Path, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    try:
        for record in reader:
            if None in record or None in record.values():
                raise InputError(f"{source}:{reader.line_num}: {_tsv_trouble(record)}")
            yield reader.line_num, {key: value for key, value in record.items() if value != ""}
    except csv.Error as error:
        raise InputError(
            f"{source}:{reader.line_num}: {error}; write one row a line, its fields between tabs"
        ) from None


def _json_records(source: Path, lines: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if HALF_SURROGATE.search(line):
                json.dumps(value, ensure_ascii=False).encode("utf-8")
        except (ValueError, RecursionError) as error:
            reason = "half of a surrogate pair" if isinstance(error, UnicodeEncodeError) else str(error)
            raise InputError(f"{source}:{number}: not JSON ({reason}); write one JSON object a line") from None
        if not isinstance(value, dict):
            raise InputError(f"{source}:{number}: a {type(value).__name__}, not a JSON object; write {{…}} a line")
        yield number, value


def _tsv_trouble(record: Mapping[Any, Any]) -> str:
    found = "more fields" if None in record else "fewer fields"
    return f"{found} than the header names; write every row with the header's columns, separated by tabs"


def _text_field(value: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str | None:
    found = value.get(key, default)
    if found is None:
        return None
    if isinstance(found, bool | list | dict):
        raise InputError(f"{where}: {key} is {repr(found)[:60]}; write a string")
    return str(found)


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


def _row(value: dict[str, Any], source: Path, line: int, default_lang: str) -> Row:
    where = f"{source}:{line}"
    audio, text = _text_field(value, "audio", where), _text_field(value, "text", where)
    tokens = {name: _tokens(value[name], name, where) for name in STREAM_COLUMNS if value.get(name) is not None}
    if not audio and text is None and not tokens:
        raise InputError(f"{where}: neither audio nor text nor tokens; give at least one")
    if audio and "\x00" in audio:
        raise InputError(f"{where}: audio path {audio!r} holds a null character; write a plain path")
    row_id = _text_field(value, "id", where) or f"{line:07d}"
    lang = _text_field(value, "lang", where) or default_lang
    if not LANGUAGE_CODE.fullmatch(lang):
        raise InputError(f"{where}: lang is {lang[:60]!r}; write a code of letters, digits, - or _ such as 'en'")
    extras = value.get("extras") or {}
    if not isinstance(extras, dict):
        raise InputError(f"{where}: extras is {repr(extras)[:60]}; write a JSON object")
    return Row(
        id=row_id,
        group=_text_field(value, "group", where) or row_id,
        lang=lang,
        speaker=_text_field(value, "speaker", where) or "",
        split=_text_field(value, "split", where) or "train",
        text=text,
        words=_words(value.get("words"), where),
        audio=source.parent / audio if audio else None,
        offset=_number_field(value, "offset", where) or 0.0,
        # `duration` describes the file unless an offset says that the row is a part of it.
        seconds=_number_field(value, "duration", where) if "offset" in value else None,
        tokens=tokens,
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
        words = tuple((str(word), float(start), float(end)) for word, start, end in value)
        if not all(0 <= start <= end < 1e9 for _, start, end in words):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise InputError(
            f"{where}: words is {repr(value)[:60]}: write a list of [word, start, end] in rising seconds"
        ) from None
    return words
