"""Writing token shards: restartable, atomic, and byte-identical however often it was interrupted.

The rows are cut into parts; each part is tokenized, written under a temporary name and renamed. A repeat keeps the
parts that are there, if the same rows and tokenizers made them, and the manifest is written last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.audio.speech_activity import keep, may_be_trimmed, moved, spoken_spans
from unitok_tokenizers.data.joined_rows import joined_rows
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shard_writer import audio_reference, noted_part, write_part
from unitok_tokenizers.data.shards import COLUMNS, FORMAT, Shards
from unitok_tokenizers.data.token_sources import TokenSource, array_of, checked_ids, matched
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import (
    ensure_folder,
    fingerprint,
    sha256_file,
    write_json,
)
from unitok_tokenizers.grammar.streams import ELSEWHERE, StreamInfo, columns_of, ids_column
from unitok_tokenizers.progress import counted, part_of_work
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_tokenizers.tokenizer_set import TokenizerSet

PART_ROWS = 1024
MAX_SECONDS = 60.0
MIN_SAMPLES = 400
"""Shortest recording that is tokenized, in samples at 16 kHz: a window of the features."""
MIN_SECONDS = MIN_SAMPLES / 16000
HELD_SECONDS = 4096.0
"""Seconds of recordings that are tokenized together, 260 MB; a part of many long ones is taken in several goes."""


def prepare_shards(
    rows: Sequence[Row],
    tokenizers: TokenizerSet,
    out: Path | str,
    *,
    external: Mapping[str, StreamInfo] | None = None,
    sources: Mapping[str, TokenSource] | None = None,
    max_seconds: float = MAX_SECONDS,
    keep_unreadable: bool = False,
    trim: bool = True,
    joined_share: float = 0.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Shards:
    """Tokenize rows into shards.

    Args:
        rows: the manifest's rows.
        tokenizers: text always; those of speech where wanted.
        out: folder to write; finished parts in it are kept.
        external: descriptions of streams made elsewhere, whose ids are in the `tokens` of rows or in `sources`.
        sources: name of a stream → the file that holds its ids by the ids of rows.
        max_seconds: longer recordings are skipped, and counted.
        keep_unreadable: skip and count unreadable recordings instead of refusing them.
        trim: leave out silence and noise at the ends and in long pauses, where the units' recognizer knows them; times
            of words are moved accordingly.
        joined_share: rows of several utterances that are added, ÷ groups of utterances: a model that has seen none
            reads recordings of one utterance alone.
        seed: of which are joined, with what around them.
        progress: called with (rows done, rows in all).
        notice: told how many rows have no ids in a source, and how many of its ids have no row.

    Raises:
        InputError: a recording that cannot be read, tokens without a description or outside it, a source of other rows,
            or a folder that cannot be written.
    """
    root = Path(out)
    ensure_folder(root)
    root.mkdir(exist_ok=True)
    streams = _streams(rows, tokenizers, external or {}, sources or {})
    for name, source in (sources or {}).items():
        for line in matched(name, source, [row.id for row in rows]):
            if notice is not None:
                notice(line)
    if joined_share > 0:
        joinable = [row for row in rows if row.audio is None or _usable(row, max_seconds)]
        rows = [*rows, *joined_rows(joinable, joined_share, seed=seed, most_seconds=max_seconds)]
    described = [stream.to_json() for stream in streams]
    # Parts of an earlier version lost the runs of a stream that keeps them.
    runs = ["runs kept"] if any(stream.kind == "units" and not stream.deduplicated for stream in streams) else []
    key = fingerprint([FORMAT, PART_ROWS, max_seconds, "trimmed" if trim else "whole", described, *runs])
    files, skipped = [], dict[str, int]()
    for start in range(0, len(rows), PART_ROWS):
        part = [_with_tokens(row, sources or {}, streams) for row in rows[start : start + PART_ROWS]]
        number, parts = start // PART_ROWS, -(-len(rows) // PART_ROWS)
        with part_of_work(f"rows {start + 1:,} to {start + len(part):,} of {len(rows):,}", number, parts):
            record = _part(root, number, part, key, tokenizers, streams, max_seconds, keep_unreadable, trim)
        files.append({name: record[name] for name in ("name", "rows", "sha256")})
        for reason, count in record["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
        if progress is not None:
            progress(min(start + PART_ROWS, len(rows)), len(rows))
    manifest = {"format": FORMAT, "files": files, "skipped": skipped, "streams": described}
    write_json(root / "manifest.json", manifest)
    own = {name for file in files for name in (file["name"], f"{file['name']}.json")}
    for stale in (*root.glob("part-*"), *root.glob(".part-*")):
        if stale.name not in own:
            stale.unlink()
    return Shards.open(root)


def _usable(row: Row, max_seconds: float) -> bool:
    """Whether a recording is neither too long, nor too short, nor unreadable, by what its container says."""
    try:
        return MIN_SECONDS <= row.length() <= max_seconds
    except InputError:
        return False  # it is refused or counted where it is tokenized


def _with_tokens(row: Row, sources: Mapping[str, TokenSource], streams: Sequence[StreamInfo]) -> Row:
    """A row with its ids of every source; InputError for ids that it has already, or that the stream has not."""
    found = dict(row.tokens)
    for stream in streams:
        if stream.name in sources and row.id in sources[stream.name].places:
            if stream.name in found:
                raise InputError(
                    f"row {row.id}: {stream.name} are in the manifest and in {sources[stream.name].path}; leave one out"
                )
            found[stream.name] = sources[stream.name].read(row.id, stream)
    return replace(row, tokens=found) if len(found) > len(row.tokens) else row


def _streams(
    rows: Sequence[Row],
    tokenizers: TokenizerSet,
    external: Mapping[str, StreamInfo],
    sources: Mapping[str, TokenSource],
) -> list[StreamInfo]:
    """Descriptions of all streams, text first; InputError for ids without one, outside it, or for one without ids."""
    streams = {info.name: info for info in tokenizers.infos()}
    if unknown := [name for name in sources if name not in external]:
        raise InputError(
            f"tokens {unknown[0]!r} are not described; describe the stream (--stream {unknown[0]}=FILE.json)"
        )
    carried = {name for row in rows for name in row.tokens}
    for name, info in external.items():
        if info.kind not in ELSEWHERE or info.name != name:
            raise InputError(f"stream {name!r}: tokens made elsewhere are {' or '.join(ELSEWHERE)}, not {info.kind}")
        if name not in carried and name not in sources and name not in streams:
            raise InputError(
                f"stream {name!r} is described, and no row has a column {name!r}; name the column (--columns "
                f"{name}=COLUMN), or the file of its ids (--tokens {name}=FILE)"
            )
        own = streams.get(name)
        if own is not None and own.fingerprint != info.fingerprint:
            raise InputError(
                f"stream {name!r}: the tokenizers make it with fingerprint {own.fingerprint}, its description says "
                f"{info.fingerprint}; leave out one of the two"
            )
    for row in rows:
        for name, tokens in row.tokens.items():
            described = external.get(name) or streams.get(name)
            if described is None:
                raise InputError(
                    f"rows carry {name!r} tokens made elsewhere; describe the stream (--stream {name}=FILE.json)"
                )
            where = f"row {row.id}"
            checked_ids(array_of(tokens, where), where, described)
    found = {**streams, **external, **streams}
    for info in found.values():
        if info.views is not None and info.views not in found:
            raise InputError(f"stream {info.name!r} views {info.views!r}, which is not described; describe it too")
    taken = list(COLUMNS)
    for info in found.values():
        for column in columns_of(info):
            if column in taken:
                raise InputError(f"stream {info.name!r}: shards have a column {column!r} already; give it another name")
            taken.append(column)
    return list(found.values())


def _part_key(rows: Sequence[Row], key: str) -> str:
    """Identifies the part's content: rows, tokenizers, and size and time of every recording."""
    described = []
    for row in rows:
        tokens = {name: np.asarray(value).tolist() for name, value in row.tokens.items()}
        plain = [row.id, row.group, row.lang, row.speaker, row.split, row.text, row.words, str(row.audio), row.offset]
        described.append([plain, row.seconds, row.stamp(), tokens, dict(row.extras)])
    return fingerprint([key, described])


def _part(
    root: Path,
    number: int,
    rows: Sequence[Row],
    key: str,
    tokenizers: TokenizerSet,
    streams: Sequence[StreamInfo],
    max_seconds: float,
    keep_unreadable: bool,
    trim: bool,
) -> dict[str, Any]:
    name = f"part-{number:05d}.arrow"
    own_key = _part_key(rows, key)
    note = root / f"{name}.json"
    if note.is_file() and (root / name).is_file():
        record = noted_part(note)
        if record.get("key") == own_key and record.get("sha256") == sha256_file(root / name):
            return {**record, "name": name}
    columns, skipped = tokenize_rows(
        rows, tokenizers, streams, max_seconds=max_seconds, keep_unreadable=keep_unreadable, trim=trim
    )
    columns["audio"] = [audio_reference(path, root) for path in columns["audio"]]
    (root / "manifest.json").unlink(missing_ok=True)  # it describes a part that is about to change
    write_part(root / name, columns, streams)
    record = {"name": name, "rows": len(columns["id"]), "sha256": sha256_file(root / name), "skipped": skipped}
    write_json(note, {**record, "key": own_key})
    return record


def tokenize_rows(
    rows: Sequence[Row],
    tokenizers: TokenizerSet,
    streams: Sequence[StreamInfo],
    *,
    max_seconds: float,
    keep_unreadable: bool,
    trim: bool = True,
) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """Columns of the rows that can be used, and why the others were left out."""
    skipped: dict[str, int] = {}
    # of a codec with a higher rate than the units', nothing that it can hear is lost on the way
    rate = max((tokenizer.sample_rate for tokenizer in tokenizers.speech.values()), default=16000)
    columns: dict[str, list[Any]] = {}
    for group, samples in _groups(rows, rate, bool(tokenizers.speech), max_seconds, keep_unreadable, skipped):
        for name, values in _columns(group, samples, rate, tokenizers, streams, trim).items():
            columns.setdefault(name, []).extend(values)
    return columns, skipped


def _groups(
    rows: Sequence[Row],
    rate: int,
    wants_audio: bool,
    max_seconds: float,
    keep_unreadable: bool,
    skipped: dict[str, int],
) -> Iterator[tuple[list[Row], list[np.ndarray | None]]]:
    """Rows that can be used with their samples, `HELD_SECONDS` of them at a time: no more is in memory.

    The last group is given even where it is empty; `skipped` counts the rows that are left out, by reason.
    """
    group: list[Row] = []
    samples: list[np.ndarray | None] = []
    held = 0
    for row in counted(rows, "row read"):
        audio = None
        if row.audio is not None and wants_audio:
            try:
                # a longer one is not read on: an hour would be held for nothing
                audio = row.load(rate, most_seconds=max_seconds + 1 / rate)
            except InputError:
                if not keep_unreadable:
                    raise
                skipped["unreadable"] = skipped.get("unreadable", 0) + 1
                continue
            if reason := _unusable(len(audio), rate, max_seconds):
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
    rate: int,
    tokenizers: TokenizerSet,
    streams: Sequence[StreamInfo],
    trim: bool,
) -> dict[str, list[Any]]:
    with_audio = [index for index, audio in enumerate(samples) if audio is not None]
    heard = [audio for audio in samples if audio is not None]
    words = [list(row.words) for row in rows]
    if trim and tokenizers.detector is not None:  # levels alone are no reason to leave out what is to be learned
        looked = [place for place, one in enumerate(heard) if may_be_trimmed(one, rate)]
        spans = spoken_spans([heard[place] for place in looked], rate, tokenizers.detector)
        for place, kept in zip(looked, spans):
            if kept:  # where nothing is spoken, there is still something to tokenize
                index = with_audio[place]
                heard[place] = keep(heard[place], rate, kept)
                words[index] = [(word, moved(a, kept), moved(b, kept)) for word, a, b in words[index]]
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
        if stream.kind == "text":
            continue
        ids = [np.asarray(row.tokens.get(stream.name, empty)) for row in rows]
        for index, one in zip(with_audio, made.get(stream.name, ())):
            ids[index] = one
        if stream.kind != "units":
            columns[ids_column(stream.name)] = [one.reshape(-1) for one in ids]
            continue
        runs = [deduplicate(one) if stream.deduplicated else (one, np.ones_like(one)) for one in ids]
        for column, values in zip(columns_of(stream), zip(*runs) if runs else ((), ())):
            columns[column] = list(values)
    return columns


def _encoded(heard: Sequence[np.ndarray], tokenizers: TokenizerSet, rate: int) -> dict[str, list[np.ndarray]]:
    """Ids of recordings at `rate` Hz by stream; units that a codec carries are read off its codes."""
    carried = tokenizers.carried
    found = {}
    for name, one in tokenizers.speech.items():
        if name not in carried:
            found[name] = one.encode_batch([resample(samples, rate, one.sample_rate) for samples in heard])
    for name, codec in carried.items():
        found[name] = [codes[:, 0] for codes in found[codec]]
    return found
