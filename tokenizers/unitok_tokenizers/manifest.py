"""Manifests: one utterance a line, JSON Lines or TSV, checked as it is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio import read_audio
from unitok_tokenizers.errors import InputError

KNOWN_SPLITS = ("train", "dev", "test", "test_seen", "codec")
STREAM_COLUMNS = ("units", "codes")


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

    def load(self, sample_rate: int) -> np.ndarray:
        """The utterance's samples (S,) at `sample_rate`."""
        assert self.audio is not None, f"row {self.id} has no audio"
        return read_audio(self.audio, sample_rate=sample_rate, offset=self.offset, seconds=self.seconds)


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
    if source.suffix == ".tsv":
        reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        for record in reader:
            if None in record or None in record.values():
                raise InputError(f"{source}:{reader.line_num}: {_tsv_trouble(record)}")
            yield reader.line_num, {key: value for key, value in record.items() if value != ""}
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"{source}:{number}: not JSON ({error}); write one JSON object a line") from None
        if not isinstance(value, dict):
            raise InputError(f"{source}:{number}: a {type(value).__name__} where a JSON object is expected")
        yield number, value


def _tsv_trouble(record: Mapping[Any, Any]) -> str:
    return "more fields than the header names" if None in record else "fewer fields than the header names"


def _text_field(value: Mapping[str, Any], key: str, where: str, default: str | None = None) -> str | None:
    found = value.get(key, default)
    if found is None:
        return None
    if isinstance(found, bool | list | dict):
        raise InputError(f"{where}: {key} is {found!r}; write a string")
    return str(found)


def _number_field(value: Mapping[str, Any], key: str, where: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    try:
        number = float(found)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number < 1e9:
        raise InputError(f"{where}: {key} is {found!r}; write a number of seconds, 0 or more")
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
    extras = value.get("extras") or {}
    if not isinstance(extras, dict):
        raise InputError(f"{where}: extras is a {type(extras).__name__}; write a JSON object")
    return Row(
        id=row_id,
        group=_text_field(value, "group", where) or row_id,
        lang=_text_field(value, "lang", where) or default_lang,
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
    except ValueError:
        array = np.zeros(0)
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.size == 0 or array.min() < 0:
        raise InputError(f"{where}: {name} must be a list of ids (or of frames of ids), none negative or missing")
    return array.astype(np.int64)


def _words(value: Any, where: str) -> tuple[tuple[str, float, float], ...]:
    if value in (None, ""):
        return ()
    try:
        words = tuple((str(word), float(start), float(end)) for word, start, end in value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: words must be a list of [word, start, end] in seconds") from None
    return words
