"""What can be wrong with shards: checksums and ranges, lengths that do not agree, text of another language.

What is certainly wrong is refused; what only looks wrong is counted, with its first rows.

N rows, F frames, Q codebooks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.data.shards import Shards, summary
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo, columns_of, ids_column
from unitok_tokenizers.text.language_scripts import foreign_letters, other_script

FIRST = 5
"""Rows that a warning names."""
LONG_ENOUGH = 1.0
"""Seconds from which on a row tells a stream's rate: below, a frame more at the ends is much."""
SLOWEST, FASTEST = 0.5, 1.15
"""Frames ÷ those that the recording's length makes, of the middle row: silence is left out, nothing is added."""
IMPOSSIBLE = 1.5
"""The same, which no way of padding explains, of every row."""
SLACK_SECONDS, SLACK_SHARE = 0.5, 0.1
"""How much longer ids may last than their recording, or words: frames at the ends, alignments."""
APART_SECONDS, APART_SHARE = 0.25, 0.05
"""How much streams of one recording may differ in length: tokenizers differ at the ends."""


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Something that looks wrong in some rows."""

    check: str
    """What was looked at: rate, length, streams, words, script or letters."""
    stream: str
    """Whose ids, or "text"."""
    rows: int
    """In how many rows."""
    first: tuple[str, ...]
    """Ids of the first of them."""
    message: str
    """For people."""


def validate_shards(folder: Path | str) -> dict[str, Any]:
    """Check everything that can be checked; returns a summary of what is there, with `warnings`.

    Raises:
        InputError: what is certainly wrong: an altered or unreadable file, ids outside their tokenizer, offsets or
            durations that disagree, units that are not the codebook that they view, more ids than recordings can have.
    """
    shards = Shards.open(folder, check=True)
    if len(shards.table) != len(shards):
        raise InputError(f"{folder}: {len(shards.table)} rows, the manifest says {len(shards)}; prepare again")
    for info in shards.streams.values():
        _check_ids(shards, info)
        if info.deduplicated:
            _check_durations(shards, info)
        if info.runs_of is not None:
            _check_runs(shards, info)
    for info in shards.streams.values():
        if info.views is not None:
            _check_view(shards, info, shards.streams[info.views])
    return {**summary(shards), "warnings": [asdict(one) for one in suspicions(shards)]}


def _check_ids(shards: Shards, info: StreamInfo) -> None:
    """InputError for ids of a stream that are not whole frames, or that its tokenizer does not make."""
    column, width = ids_column(info.name), len(info.cardinalities)
    values, offsets = shards.ragged(column)
    if (np.diff(offsets) % width).any():
        raise InputError(
            f"{shards.folder}: {info.name} of a row are not whole frames of {width} codebooks; prepare again"
        )
    if not len(values):
        return
    if int(values.min()) < 0 or (values.reshape(-1, width) >= np.asarray(info.cardinalities)).any():
        raise InputError(
            f"{shards.folder}: column {column} holds ids outside its tokenizer ({info.cardinalities}); prepare again"
        )


def _check_durations(shards: Shards, info: StreamInfo) -> None:
    """InputError where runs of equal ids and their lengths do not belong together."""
    ids, column, *inside = columns_of(info)
    durations, offsets = shards.ragged(column)
    fits = np.array_equal(offsets, shards.ragged(ids)[1]) and not (len(durations) and int(durations.min()) < 1)
    for name in inside:  # of the units in merged ids: each lasts, and together as long
        of_units, starts = shards.ragged(name)
        ends, sums = (np.concatenate([[0], np.cumsum(one, dtype=np.int64)]) for one in (of_units, durations))
        fits = fits and not (len(of_units) and int(of_units.min()) < 1) and np.array_equal(ends[starts], sums[offsets])
    if not fits:
        raise InputError(f"{shards.folder}: {info.name} and their durations do not fit together; prepare again")


def _check_runs(shards: Shards, info: StreamInfo) -> None:
    """InputError where units do not have one id each in a stream that goes with them."""
    ids, units = (shards.ragged(ids_column(name))[1] for name in (info.name, info.runs_of or ""))
    for index in np.flatnonzero(np.diff(ids) != np.diff(units))[:1]:
        raise InputError(
            f"{shards.folder}: row {shards.id[index]} has {np.diff(ids)[index]} {info.name} for "
            f"{np.diff(units)[index]} {info.runs_of}; prepare again"
        )


def _check_view(shards: Shards, info: StreamInfo, codec: StreamInfo) -> None:
    """InputError where units are not the first codebook of the codec that they view."""
    units, codes = frames_of(shards, info), frames_of(shards, codec)
    both = (units > 0) & (codes > 0)
    for index in np.flatnonzero(both & (units != codes))[:1]:
        raise InputError(
            f"{shards.folder}: row {shards.id[index]} has {units[index]} frames of {info.name} and {codes[index]} of "
            f"{codec.name}, whose first codebook they are; prepare again"
        )
    columns = (*columns_of(info), ids_column(codec.name))
    if np.array_equal(units > 0, codes > 0):
        pieces = [shards.values(column) for column in columns]  # as they lie
    else:  # some rows have one of the two alone
        rows = np.flatnonzero(both)
        pieces = [[shards.gather(column, rows)[0]] for column in columns]
    for ids, durations, flat in zip(*pieces):
        if not np.array_equal(np.repeat(ids, durations), flat.reshape(-1, len(codec.cardinalities))[:, 0]):
            raise InputError(
                f"{shards.folder}: {info.name} differ from the first codebook of {codec.name}, which they are; prepare "
                "again"
            )


def frames_of(shards: Shards, info: StreamInfo) -> np.ndarray:
    """(N,) int64 frames of a stream in every row: durations added up, or frames of codes."""
    if info.kind != "units":
        lengths: np.ndarray = np.diff(shards.ragged(ids_column(info.name))[1])
        frames: np.ndarray = lengths // len(info.cardinalities)
        return frames
    durations, offsets = shards.ragged(columns_of(info)[1])
    ends: np.ndarray = np.concatenate([[0], np.cumsum(durations, dtype=np.int64)])
    return np.diff(ends[offsets])


# -- what looks wrong -------------------------------------------------------------------------------------------


def suspicions(shards: Shards) -> list[Suspicion]:
    """What looks wrong, without being certain; InputError for more ids in every row than recordings can have."""
    lasting: dict[str, np.ndarray] = {}
    found: list[Suspicion] = []
    for info in shards.streams.values():
        if info.kind not in ("units", "codes", "prosody") or not info.frame_rate:
            continue
        seconds = frames_of(shards, info) / float(info.frame_rate)
        if (wrong := _rate(shards, info, seconds)) is not None:
            found.append(wrong)
        elif info.kind == "prosody":  # of slow streams the last id reaches beyond the end
            found += _length(shards, info.name, seconds - 1 / float(info.frame_rate))
        else:
            lasting[info.name] = seconds
            found += _length(shards, info.name, seconds)
    found += _streams(shards, lasting)
    return [*found, *_words(shards), *_languages(shards)]


def _warned(
    shards: Shards, check: str, stream: str, which: np.ndarray, message: Callable[[int], str]
) -> Iterator[Suspicion]:
    """One warning for rows of which something holds, (N,) bool, if there are any; `message` speaks of the first."""
    places = np.flatnonzero(which)
    if len(places):
        first = tuple(shards.id[places[:FIRST]].tolist())
        yield Suspicion(check=check, stream=stream, rows=len(places), first=first, message=message(int(places[0])))


def _rate(shards: Shards, info: StreamInfo, lasting: np.ndarray) -> Suspicion | None:
    """Ids a second far from what the stream declares."""
    telling = (shards.seconds >= LONG_ENOUGH) & (lasting > 0)
    if not telling.any():
        return None
    ratio = lasting[telling] / shards.seconds[telling]
    middle, rate = float(np.median(ratio)), float(info.frame_rate or 0)
    if SLOWEST <= middle <= FASTEST:
        return None
    message = f"{info.name} have {middle * rate:.4g} frames a second, their stream declares {rate:.4g}"
    if len(ratio) >= FIRST and float(ratio.min()) >= IMPOSSIBLE:
        raise InputError(f"{shards.folder}: {message}; correct its description, and prepare again")
    return next(_warned(shards, "rate", info.name, telling, lambda first: message))


def _length(shards: Shards, stream: str, lasting: np.ndarray) -> Iterator[Suspicion]:
    seconds = shards.seconds
    slack = np.maximum(SLACK_SECONDS, SLACK_SHARE * seconds)
    yield from _warned(
        shards, "length", stream, (seconds > 0) & (lasting > seconds + slack),
        lambda first: f"{stream} last {lasting[first]:.2f} s, their recording {seconds[first]:.2f} s",
    )  # fmt: skip


def _streams(shards: Shards, lasting: dict[str, np.ndarray]) -> Iterator[Suspicion]:
    """Streams of one recording that last for different times: each against the first."""
    names = list(lasting)
    for name in names[1:]:
        one, other = lasting[names[0]], lasting[name]
        slack = APART_SECONDS + APART_SHARE * np.maximum(one, other)

        def said(first: int, other: np.ndarray = other, name: str = name) -> str:
            return f"{names[0]} last {lasting[names[0]][first]:.2f} s, {name} {other[first]:.2f} s"

        yield from _warned(
            shards, "streams", name, (one > 0) & (other > 0) & (np.abs(one - other) > slack), said
        )  # fmt: skip


def _words(shards: Shards) -> Iterator[Suspicion]:
    """Words that end behind their recording."""
    ends = np.zeros(len(shards))
    start = 0
    for chunk in shards.table["words"].chunks:
        for index, words in enumerate(chunk.to_pylist(), start):
            if words != "[]":
                ends[index] = max(float(end) for _, _, end in json.loads(words))
        start += len(chunk)
    late = (shards.seconds > 0) & (ends > shards.seconds + SLACK_SECONDS)
    yield from _warned(
        shards, "words", "text", late,
        lambda first: f"a word ends at {ends[first]:.2f} s, the recording at {shards.seconds[first]:.2f} s",
    )  # fmt: skip


def _languages(shards: Shards) -> Iterator[Suspicion]:
    """Text in scripts, or with letters, that its language does not have."""
    scripts, letters = np.zeros(len(shards), bool), np.zeros(len(shards), bool)
    what = dict[int, str]()
    numbers, names = shards.factors("lang")
    codes = names.to_pylist()
    for index, text in enumerate(shards.text):
        if not text:
            continue
        lang = codes[numbers[index]]
        if (script := other_script(text, lang)) is not None:
            scripts[index], what[index] = True, script
        elif foreign := foreign_letters(text, lang):
            letters[index], what[index] = True, foreign

    def said(first: int) -> str:
        return f"text of language {codes[numbers[first]]!r} is written with {what[first]}"

    yield from _warned(shards, "script", "text", scripts, lambda first: f"{said(first)} script")
    yield from _warned(shards, "letters", "text", letters, lambda first: f"{said(first)}, which it does not have")
