"""What shards hold of rows: their recordings and texts as columns of ids, some hours of them at a time.

S samples, F frames, Q codebooks, N runs of equal units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.audio.speech_activity import (
    keep,
    may_be_trimmed,
    moved,
    shared_samples,
    span_sizes,
    spoken_spans,
)
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.reading import Read
from unitok_tokenizers.encoders.pitch import SAMPLE_RATE
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of, ids_column
from unitok_tokenizers.progress import counted
from unitok_tokenizers.prosody.base import ContourTokenizer
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_tokenizers.tokenizer_set import Tokenizer, TokenizerSet

MAX_SECONDS = 60.0
MIN_SECONDS = 0.025
"""Shortest recording that is tokenized: a window of the features."""
HELD_SECONDS = 1024.0
"""Seconds of recordings that are tokenized together, 65 MB at 16 kHz: enough to batch them by length. A part is taken
in several goes."""


@dataclass(frozen=True, kw_only=True)
class Handling:
    """Which rows are tokenized, and how much of their recordings."""

    max_seconds: float = MAX_SECONDS
    """Longer recordings are skipped, and counted."""
    keep_unreadable: bool = False
    """Skip and count unreadable recordings instead of refusing them."""
    trim: bool = True
    """Leave out silence and noise at the ends and in long pauses, where the units' recognizer knows them; times of
    words are moved accordingly."""

    def __post_init__(self) -> None:
        if not 0 < self.max_seconds < math.inf:
            raise InputError(f"max_seconds (--max-seconds) is {self.max_seconds}: give a number of seconds above 0")


def rate_of(tokenizers: TokenizerSet) -> int:
    """Hz at which recordings are read; 0 where no tokenizer reads any.

    The highest that one takes: of a codec with a higher rate than the units', nothing that it can hear is lost.
    """
    return max((tokenizer.sample_rate for tokenizer in tokenizers.speech.values()), default=0)


def tokenize_rows(
    rows: Sequence[Row],
    recordings: Iterator[Read],
    tokenizers: TokenizerSet,
    streams: Sequence[StreamInfo],
    handling: Handling,
) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Columns of the rows that can be used, and why the others were left out.

    Args:
        rows: what is tokenized.
        recordings: what `Readers.begin` gives of them at `rate_of` the tokenizers, a tick longer than the longest.
        tokenizers: text, and those that read recordings.
        streams: all of them, those made elsewhere too.
        handling: what is left out.
    """
    skipped: dict[str, int] = {}
    columns: dict[str, list[Any]] = {}
    for group, samples in _groups(rows, recordings, rate_of(tokenizers), handling, skipped):
        for name, values in _columns(group, samples, tokenizers, streams, handling.trim).items():
            columns.setdefault(name, []).extend(values)
        samples.clear()  # they would be held until as many others are read
    return columns, skipped


def _groups(
    rows: Sequence[Row], recordings: Iterator[Read], rate: int, handling: Handling, skipped: dict[str, int]
) -> Iterator[tuple[list[Row], list[np.ndarray | None]]]:
    """Rows that can be used with their samples, `HELD_SECONDS` of them at a time: no more is in memory.

    The last group is given even where it is empty; `skipped` counts the rows that are left out, by reason.
    """
    group: list[Row] = []
    samples: list[np.ndarray | None] = []
    held = 0
    for row, audio in zip(counted(rows, "row read"), recordings):
        if isinstance(audio, InputError):
            if not handling.keep_unreadable:
                raise audio
            skipped["unreadable"] = skipped.get("unreadable", 0) + 1
            continue
        if audio is not None:
            if reason := _unusable(len(audio), rate, handling.max_seconds):
                skipped[reason] = skipped.get(reason, 0) + 1
                continue
            if held + len(audio) > HELD_SECONDS * rate:
                yield group, samples
                group, samples, held = [], [], 0
            held += len(audio)
        group.append(row)
        samples.append(audio)
    yield group, samples


def _unusable(samples: int, rate: int, max_seconds: float) -> str:
    """Why a recording of so many samples is left out; empty where it is not."""
    if samples > max_seconds * rate:
        return "longer than max_seconds"
    return "too short" if samples < MIN_SECONDS * rate else ""


def _columns(
    rows: Sequence[Row],
    samples: Sequence[np.ndarray | None],
    tokenizers: TokenizerSet,
    streams: Sequence[StreamInfo],
    trim: bool,
) -> dict[str, list[Any]]:
    rate = rate_of(tokenizers)
    with_audio = [index for index, audio in enumerate(samples) if audio is not None]
    heard = [audio for audio in samples if audio is not None]
    words = [list(row.words) for row in rows]
    if trim and tokenizers.detector is not None:  # levels alone are no reason to leave out what is to be learned
        looked = [place for place, one in enumerate(heard) if may_be_trimmed(one, rate)]
        spans = spoken_spans([heard[place] for place in looked], rate, tokenizers.detector)
        for place, kept in zip(looked, spans):
            if kept:  # where nothing is spoken, there is still something to tokenize
                index = with_audio[place]
                whole = heard[place]
                heard[place] = keep(whole, rate, kept)
                seam = shared_samples(span_sizes(kept, rate, len(whole)), len(heard[place])) / rate
                words[index] = [(word, moved(a, kept, seam), moved(b, kept, seam)) for word, a, b in words[index]]
    columns: dict[str, list[Any]] = {
        "id": [row.id for row in rows],
        "group": [row.group for row in rows],
        "lang": [row.lang for row in rows],
        "speaker": [row.speaker for row in rows],
        "split": [row.split for row in rows],
        "seconds": [0.0 if audio is None else len(audio) / rate for audio in samples],
        "text": [row.text for row in rows],
        "text_ids": [tokenizers.text.encode(row.text) if row.text else [] for row in rows],
        "words": [json.dumps([list(word) for word in one], ensure_ascii=False) for one in words],
        "audio": [row.reference for row in rows],
        "offset": [row.offset for row in rows],
        "extras": [json.dumps(dict(row.extras), ensure_ascii=False, sort_keys=True) for row in rows],
    }
    made = _encoded(heard, tokenizers, rate)
    empty = np.zeros(0, dtype=np.int64)
    for stream in streams:
        if stream.kind == "text" or stream.runs_of is not None:
            continue
        ids = [np.asarray(row.tokens.get(stream.name, empty)) for row in rows]
        for index, one in zip(with_audio, made.get(stream.name, ())):
            ids[index] = one
        if stream.kind != "units":
            columns[ids_column(stream.name)] = [one.reshape(-1) for one in ids]
            continue
        maker, names = tokenizers.streams.get(stream.name), columns_of(stream)
        runs = [_stored(one, stream, maker) for one in ids]
        for column, values in zip(names, zip(*runs) if runs else ((),) * len(names)):
            columns[column] = list(values)
    by_name = {stream.name: stream for stream in streams}
    for name, tokenizer in tokenizers.durations.items():
        lasting = columns_of(by_name[tokenizer.runs_of])[1]
        columns[ids_column(name)] = [tokenizer.encode(durations) for durations in columns[lasting]]
    return columns


def _stored(units: np.ndarray, stream: StreamInfo, maker: Tokenizer | None) -> tuple[np.ndarray, ...]:
    """What the columns of a stream hold of a row's units, one a frame (F,)."""
    if stream.merged_from is not None:
        assert isinstance(maker, UnitTokenizer), "only a tokenizer knows how units are merged"
        found = maker.stored(units)
        return found.ids, found.durations, found.unit_durations
    return deduplicate(units) if stream.deduplicated else (units, np.ones_like(units))


def _encoded(heard: Sequence[np.ndarray], tokenizers: TokenizerSet, rate: int) -> dict[str, list[np.ndarray]]:
    """Ids of recordings at `rate` Hz by stream; units that a codec carries are read off its codes, and all tokens of
    prosody off the same contours."""
    carried = tokenizers.carried
    found = {}
    prosody = {name: one for name, one in tokenizers.speech.items() if isinstance(one, ContourTokenizer)}
    contours = [contour(resample(samples, rate, SAMPLE_RATE)) for samples in heard] if prosody else []
    for name, reader in prosody.items():
        found[name] = [reader.tokens(one) for one in contours]
    for name, one in tokenizers.speech.items():
        if name not in carried and name not in prosody:
            found[name] = one.encode_batch([resample(samples, rate, one.sample_rate) for samples in heard])
    for name, codec in carried.items():
        found[name] = [codes[:, 0] for codes in found[codec]]
    return found
