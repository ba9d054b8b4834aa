"""Writing token shards: restartable, atomic, and byte-identical however often it was interrupted.

The rows are cut into parts; each part is tokenized, written under a temporary name and renamed. A repeat keeps the
parts that are there, if the same rows and tokenizers made them, and the manifest is written last. Processes of an
array job each write every so many parts, and one joins them: the folder is that of one process.
"""

from __future__ import annotations

import json
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.data.joined_rows import joined_rows
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.reading import Read, Readers
from unitok_tokenizers.data.row_streams import check_carried, check_tokens, described_streams
from unitok_tokenizers.data.shard_writer import audio_reference, noted_part, write_part
from unitok_tokenizers.data.shards import FORMAT, Shards
from unitok_tokenizers.data.token_sources import TokenSource, matched
from unitok_tokenizers.data.tokenizing import MAX_SECONDS, MIN_SECONDS, Handling, rate_of, tokenize_rows
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, fingerprint, sha256_file, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.heap import give_back
from unitok_tokenizers.progress import part_of_work
from unitok_tokenizers.tokenizer_set import TokenizerSet

PART_ROWS = 1024
PART_BYTES = 1 << 27
"""Bytes of recordings in memory after which a part ends, where rows hold their own: two parts are held at once."""


def prepare_shards(
    rows: Iterable[Row],
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
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
    notice: Callable[[str], None] | None = None,
) -> Shards:
    """Tokenize rows into shards.

    Args:
        rows: the manifest's rows, or rows as they come (`held_rows.rows_of`), of which two parts are held.
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
        workers: processes that read recordings ahead; the bytes are the same with any number.
        progress: called with (rows done, rows in all), or with the rows done twice where nobody knows how many come.
        notice: told how many rows have no ids in a source, and how many of its ids have no row.

    Raises:
        InputError: a recording that cannot be read, tokens without a description or outside it, a source of other rows,
            rows as they come with sources or a joined share, or a folder that cannot be written.
    """
    return Preparation(
        rows=rows,
        tokenizers=tokenizers,
        out=Path(out),
        external=external or {},
        sources=sources or {},
        handling=Handling(max_seconds=max_seconds, keep_unreadable=keep_unreadable, trim=trim),
        joined_share=joined_share,
        seed=seed,
        workers=workers,
        progress=progress,
        notice=notice,
    ).shards()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows that become one file."""

    number: int
    """From 0, in the order of the rows."""
    before: int
    """Rows in front of it."""
    rows: Sequence[Row]
    """With their ids of every source."""
    key: str
    """Identifies its content: rows, tokenizers, and size and time of every recording."""
    record: Mapping[str, Any] | None
    """What was noted of it, where it is finished."""

    @property
    def name(self) -> str:
        """Of its file."""
        return part_name(self.number)


PART_FILE = re.compile(r"\.?part-\d{5,}\.arrow(\.json)?(\.[\w.]*)?")
"""Names of parts, of what is noted of them, and of their drafts: what an earlier run left may be removed."""


def part_name(number: int) -> str:
    """File of a part."""
    return f"part-{number:05d}.arrow"


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a process of several has made, or found made."""

    rank: int
    """Number of the process, from 0."""
    world: int
    """Processes in all."""
    files: tuple[str, ...]
    """Parts of its share."""
    rows: int
    """Rows in them."""
    skipped: Mapping[str, int]
    """Why rows of its share were left out → how many."""


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Everything that decides what shards hold; `prepare_shards` explains it."""

    rows: Iterable[Row]
    """Of the manifest, or as they come."""
    tokenizers: TokenizerSet
    """Text always."""
    out: Path
    """Folder of the shards."""
    external: Mapping[str, StreamInfo] = field(default_factory=dict)
    """Streams made elsewhere."""
    sources: Mapping[str, TokenSource] = field(default_factory=dict)
    """Stream → file of its ids."""
    handling: Handling = Handling()
    """What is left out."""
    joined_share: float = 0.0
    """Rows of several utterances ÷ groups."""
    seed: int = 0
    """Of what is joined."""
    workers: int = 0
    """Processes that read ahead."""
    progress: Callable[[int, int], None] | None = None
    """Called with rows done and rows in all."""
    notice: Callable[[str], None] | None = None
    """Told what does not meet."""

    # -- what is done -------------------------------------------------------------------------------------------

    def shards(self) -> Shards:
        """Make every part that is not there, and the manifest."""
        streams = self._begun()
        return self._finished(self._made(self._parts(streams), streams), streams)

    def share(self, rank: int, world: int) -> Share:
        """Make parts `rank`, `rank + world`, `rank + 2 · world` …, and nothing else; `joined` writes the manifest.

        Processes of all ranks may run at once, on machines that share the folder; a repeat continues.

        Raises:
            InputError: as `prepare_shards`, or a rank that is not one of 0 to world - 1.
        """
        if world < 1 or not 0 <= rank < world:
            raise InputError(f"rank is {rank} of {world}: ranks count from 0 to {max(world - 1, 0)}")
        streams = self._begun()
        made = list(self._made(self._parts(streams, rank, world), streams))
        return Share(
            rank=rank,
            world=world,
            files=tuple(record["name"] for record in made),
            rows=sum(record["rows"] for record in made),
            skipped=_summed(made),
        )

    def joined(self, world: int) -> Shards:
        """Write the manifest of parts that are all there; nothing is tokenized.

        Raises:
            InputError: parts are missing, or were made of other rows or tokenizers; names them with their ranks.
        """
        if world < 1:
            raise InputError(f"world is {world}: give the number of processes, 1 or more")
        streams = self._begun()
        found = [(part.number, part.record) for part in self._parts(streams, again=False)]
        if missing := [number for number, record in found if record is None]:
            named = ", ".join(map(part_name, missing[:8])) + (f" and {len(missing) - 8} more" if missing[8:] else "")
            ranks = ", ".join(map(str, sorted({number % world for number in missing})))
            raise InputError(
                f"{self.out}: {len(missing)} of {len(found)} parts are missing, or of other rows or tokenizers: "
                f"{named}; run rank {ranks} of {world} again"
            )
        return self._finished((record for _, record in found if record is not None), streams)

    # -- how ----------------------------------------------------------------------------------------------------

    def _begun(self) -> list[StreamInfo]:
        """Streams, after everything was looked at that can be refused before work is done."""
        if not 0 <= self.joined_share < math.inf:
            raise InputError(f"joined_share (--joined-share) is {self.joined_share}: give a number that is 0 or more")
        ensure_folder(self.out)
        self.out.mkdir(exist_ok=True)
        _check_own(self.out)
        known = self.rows if isinstance(self.rows, Sequence) else None
        if known is None and (self.sources or self.joined_share > 0):
            what = "ids in files of their own" if self.sources else "a joined share"
            raise InputError(f"{what} needs all rows at once, and these come one by one; give a list of them")
        streams = described_streams(known, self.tokenizers, self.external, self.sources)
        for name, source in self.sources.items():
            assert known is not None
            for line in matched(name, source, [row.id for row in known]):
                if self.notice is not None:
                    self.notice(line)
        return streams

    def _all_rows(self) -> Iterable[Row]:
        if self.joined_share <= 0:
            return self.rows
        assert isinstance(self.rows, Sequence)
        longest = self.handling.max_seconds
        joinable = [row for row in self.rows if row.audio is None or _usable(row, longest)]
        return [*self.rows, *joined_rows(joinable, self.joined_share, seed=self.seed, most_seconds=longest)]

    def _parts(
        self, streams: Sequence[StreamInfo], rank: int = 0, world: int = 1, *, again: bool = True
    ) -> Iterator[Part]:
        """A process's parts, in order; `again` looks anew at those that lack what could not be read."""
        described = [stream.to_json() for stream in streams]
        # Parts of an earlier version lost the runs of a stream that keeps them.
        runs = ["runs kept"] if any(stream.kind == "units" and not stream.deduplicated for stream in streams) else []
        trimmed = "trimmed" if self.handling.trim else "whole"
        key = fingerprint([FORMAT, PART_ROWS, self.handling.max_seconds, trimmed, described, *runs])
        checked = isinstance(self.rows, Sequence)
        carried = set[str]()
        before = 0
        for number, taken in enumerate(_cut(self._all_rows())):
            if not checked:
                check_tokens(taken, streams)
                carried.update(name for row in taken for name in row.tokens)
            if number % world == rank:
                rows = [_with_tokens(row, self.sources, streams) for row in taken]
                own = _part_key(rows, key)
                record = _finished_part(self.out, part_name(number), own)
                lacking = again and record is not None and record["skipped"].get("unreadable")
                if lacking and not self.handling.keep_unreadable:
                    record = None  # refused where it still cannot be read
                yield Part(number=number, before=before, rows=rows, key=own, record=record)
            before += len(taken)
        if not checked:
            if not before:
                raise InputError("no rows came; give at least one")
            check_carried(carried, self.tokenizers, self.external)

    def _made(self, parts: Iterable[Part], streams: Sequence[StreamInfo]) -> Iterator[dict[str, Any]]:
        """What is noted of each part, made where it is not there; while one is tokenized, the next one is read."""
        rate = rate_of(self.tokenizers)
        most = self.handling.max_seconds + 1 / max(rate, 1)  # a longer one is not read on: an hour would be held
        waiting: deque[tuple[Part, Iterator[Read]]] = deque()
        with Readers(self.workers) as readers:
            for part in parts:
                recordings = readers.begin(part.rows if part.record is None else (), rate, most_seconds=most)
                waiting.append((part, recordings))
                if len(waiting) > min(self.workers, 1):
                    yield self._one(*waiting.popleft(), streams)
            while waiting:
                yield self._one(*waiting.popleft(), streams)

    def _one(self, part: Part, recordings: Iterator[Read], streams: Sequence[StreamInfo]) -> dict[str, Any]:
        total = len(self.rows) if isinstance(self.rows, Sequence) else None
        last = part.before + len(part.rows)
        # Joined rows come behind the manifest's own: how many there are is known when they are made.
        parts = 0 if total is None else -(-max(total, last) // PART_ROWS)
        of = "" if total is None else f" of {max(total, last):,}"
        record = part.record
        if record is None:
            with part_of_work(f"rows {part.before + 1:,} to {last:,}{of}", min(part.number, parts), parts):
                record = self._tokenized(part, recordings, streams)
        if self.progress is not None:
            self.progress(last, max(total or 0, last))
        return {**record, "name": part.name}

    def _tokenized(self, part: Part, recordings: Iterator[Read], streams: Sequence[StreamInfo]) -> dict[str, Any]:
        columns, skipped = tokenize_rows(part.rows, recordings, self.tokenizers, streams, self.handling)
        columns["audio"] = [audio_reference(path, self.out) for path in columns["audio"]]
        (self.out / "manifest.json").unlink(missing_ok=True)  # it describes a part that is about to change
        file = self.out / part.name
        write_part(file, columns, streams)
        record = {"name": part.name, "rows": len(columns["id"]), "sha256": sha256_file(file), "skipped": skipped}
        write_json(self.out / f"{part.name}.json", {**record, "key": part.key})
        give_back()
        return record

    def _finished(self, made: Iterable[Mapping[str, Any]], streams: Sequence[StreamInfo]) -> Shards:
        """Write the manifest, and remove what an earlier one had more."""
        records = list(made)
        files = [{name: record[name] for name in ("name", "rows", "sha256")} for record in records]
        described = [stream.to_json() for stream in streams]
        manifest = {"format": FORMAT, "files": files, "skipped": _summed(records), "streams": described}
        write_json(self.out / "manifest.json", manifest)
        own = {name for file in files for name in (file["name"], f"{file['name']}.json")}
        for stale in self.out.iterdir():
            if PART_FILE.fullmatch(stale.name) and stale.name not in own:
                stale.unlink()
        return Shards.open(self.out)


def _check_own(folder: Path) -> None:
    """InputError where a folder's `manifest.json` is none of shards: it is somebody's table, and would be replaced."""
    path = folder / "manifest.json"
    if not path.exists():
        return
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict) or not {"format", "files", "streams"} <= value.keys():
        raise InputError(f"{path} is no manifest of shards and would be replaced; choose another folder for the shards")


def _summed(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    skipped = dict[str, int]()
    for record in records:
        for reason, count in record["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    return skipped


def _cut(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Parts of `PART_ROWS` rows, of fewer where they hold `PART_BYTES` of recordings: the rows alone decide."""
    part: list[Row] = []
    held = 0
    for row in rows:
        if part and (len(part) == PART_ROWS or held + row.held_bytes > PART_BYTES):
            yield part
            part, held = [], 0
        part.append(row)
        held += row.held_bytes
    if part:
        yield part


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


def _part_key(rows: Sequence[Row], key: str) -> str:
    """Identifies the part's content: rows, tokenizers, and size and time of every recording."""
    described = []
    for row in rows:
        tokens = {name: np.asarray(value).tolist() for name, value in row.tokens.items()}
        plain = [row.id, row.group, row.lang, row.speaker, row.split, row.text, row.words, str(row.audio), row.offset]
        described.append([plain, row.seconds, row.stamp(), tokens, dict(row.extras)])
    return fingerprint([key, described])


def _finished_part(root: Path, name: str, key: str) -> dict[str, Any] | None:
    """What was noted of a part, if it is there as its key says."""
    note = root / f"{name}.json"
    if note.is_file() and (root / name).is_file():
        record = noted_part(note)
        if record.get("key") == key and record.get("sha256") == sha256_file(root / name):
            return record
    return None
