"""Mixtures of a manifest's recordings: noise under what is said, and two talkers at once, each naming what it is of.

A mixture is a row of its own, in the split `train_mixed`, `test_mixed` …: it is given to tasks whose answer is the row
that its `extras` name (`clean`, `noise`, `talker`), and to no other. Every draw belongs to the seed and the row's id.

S samples.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.backgrounds import Backgrounds, unit_power
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.tables.base import MIXED
from unitok_tokenizers.data.transcripts import find_recordings
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.progress import advance
from unitok_tokenizers.seeds import named_seed

CLEAN, NOISE, TALKER = "clean", "noise", "talker"
"""Keys in a mixture's `extras`: the row that is said in it, the row of its noise alone, the row of who is wanted."""
VOICES = 12
"""Recordings of a split that its murmur is made of."""
AUDIO, MANIFEST = "audio", "manifest.jsonl"


@dataclass(frozen=True, kw_only=True)
class MixConfig:
    """Which mixtures are made of every recording."""

    noise: bool = True
    """One with noise under it."""
    snr_db: tuple[float, float] = (0.0, 15.0)
    """Least and greatest level of what is said above the noise, in dB."""
    noises: Path | None = None
    """Folder of recordings that noise is cut from; None takes colored noise and the murmur of the split's voices."""
    noise_rows: bool = False
    """A row of the noise alone beside each, which `sr` answers with."""
    talkers: bool = False
    """One with another speaker of the split talking at the same time."""
    talker_db: tuple[float, float] = (-5.0, 5.0)
    """Least and greatest level of the wanted talker above the other, in dB."""
    copies: int = 1
    """Mixtures of each kind for a recording."""
    sample_rate: int = 16000
    """Hz of the recordings that are written."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        for name in ("snr_db", "talker_db"):
            low, high = getattr(self, name)
            if not -100 <= low <= high <= 100:
                raise InputError(f"{name} is {low:g} {high:g}: give two levels in dB that rise, from -100 to 100")
        if self.copies < 1 or self.sample_rate < 1:
            raise InputError(f"copies is {self.copies}, sample_rate {self.sample_rate}: give 1 or more")
        if not (self.noise or self.talkers):
            raise InputError("neither noise nor talkers are mixed in: nothing would be made; ask for one of them")
        if self.noise_rows and not self.noise:
            raise InputError("noise_rows are of mixtures with noise, and none are made; leave one out")


@dataclass(frozen=True, kw_only=True)
class MixReport:
    """What was written."""

    path: Path
    """The manifest: all rows of the one that was given, and the mixtures."""
    mixtures: Mapping[str, int]
    """Split → rows that were added to it."""
    alone: int
    """Recordings that no other speaker of their split could be mixed with."""


def write_mixed(rows: Sequence[Row], out: Path | str, config: MixConfig | None = None) -> MixReport:
    """Write a manifest with mixtures of rows' recordings, `out/manifest.jsonl`, and what they sound like.

    Args:
        rows: of a manifest.
        out: folder to write; audio paths of the manifest start there.
        config: which mixtures.

    Raises:
        InputError: no recordings, or none of another speaker; rows that are mixtures already.
    """
    config, folder = config or MixConfig(), Path(out)
    if known := next((row for row in rows if row.split.endswith(MIXED)), None):
        raise InputError(f"row {known.id} is a mixture already (split {known.split}); mix the manifest that it is of")
    _check_new(folder / MANIFEST)
    recorded = [row for row in rows if row.recorded]
    if not recorded:
        raise InputError("no row of the manifest has a recording; mixtures are made of recordings")
    maker = _Maker(recorded, folder, config)
    added = list[Row]()
    for number, row in enumerate(recorded):
        added += maker.of(number, row)
        advance("mix", number + 1, len(recorded))
    if not added:
        raise InputError("no split of the manifest has two speakers whose talk could be mixed; name speakers")
    lines = [json.dumps(_record(row, folder), ensure_ascii=False) for row in (*rows, *added)]
    atomic_write_bytes(folder / MANIFEST, ("\n".join(lines) + "\n").encode("utf-8"))
    counts = Counter(row.split for row in added)
    return MixReport(path=folder / MANIFEST, mixtures=dict(sorted(counts.items())), alone=maker.alone)


def _check_new(path: Path) -> None:
    """InputError where a manifest is there that has no mixtures: it is none of this command."""
    if path.exists() and not any(row.split.endswith(MIXED) for row in read_manifest(path)):
        raise InputError(f"{path} is there already and has no mixtures: it would be lost; choose another folder")


class _Maker:
    """Makes the mixtures of rows, one row after another."""

    def __init__(self, rows: Sequence[Row], folder: Path, config: MixConfig) -> None:
        self.folder, self.config, self.alone = folder, config, 0
        self._splits: dict[str, list[Row]] = {}
        for row in sorted(rows, key=lambda row: row.speaker):  # a speaker's rows side by side
            self._splits.setdefault(row.split, []).append(row)
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        for split, found in self._splits.items():
            places = self._places.setdefault(split, {})
            for place, row in enumerate(found):
                places[row.speaker] = (places.get(row.speaker, (place, 0))[0], place + 1)
        self._backgrounds: dict[str, Backgrounds] = {}

    def of(self, number: int, row: Row) -> Iterator[Row]:
        """The mixtures of a row, whose recordings are written."""
        clean = row.load(self.config.sample_rate)
        for copy in range(self.config.copies):
            name = f"{number:07d}" + (f"-{copy + 1}" if copy else "")
            made = replace(row, split=row.split + MIXED, offset=0.0, seconds=None, words=(), tokens={}, extras={})
            if self.config.noise:
                yield from self._noisy(replace(made, id=f"{row.id}+noise{copy or ''}"), row, clean, name)
            if self.config.talkers:
                yield from self._two(replace(made, id=f"{row.id}+talker{copy or ''}"), row, clean, name)

    def _noisy(self, made: Row, row: Row, clean: np.ndarray, name: str) -> Iterator[Row]:
        random = self._random(made)
        noise = unit_power(self._backgrounds_of(row.split).draw(len(clean), random))
        level = round(float(random.uniform(*self.config.snr_db)), 2)
        mixture, noise = mixed(clean, noise, level)
        extras: dict[str, Any] = {CLEAN: row.id, "snr_db": level}
        if self.config.noise_rows:
            alone = replace(made, id=f"{made.id}.alone", text=None, speaker="", group=f"{made.id}.alone")
            yield replace(alone, audio=self._write(f"{name}-alone", noise))
            extras[NOISE] = alone.id
        yield replace(made, audio=self._write(f"{name}-noise", mixture), extras=extras)

    def _two(self, made: Row, row: Row, clean: np.ndarray, name: str) -> Iterator[Row]:
        random = self._random(made)
        other = self._other(row, random)
        if other is None:
            self.alone += 1
            return
        level = round(float(random.uniform(*self.config.talker_db)), 2)
        said = unit_power(other.load(self.config.sample_rate))
        mixture, _ = mixed(clean, beside(said, len(clean), random), level)
        extras = {TALKER: row.id, "other": other.id, "snr_db": level}
        yield replace(made, audio=self._write(f"{name}-talker", mixture), extras=extras)

    def _random(self, made: Row) -> np.random.Generator:
        return np.random.default_rng(named_seed(self.config.seed, made.id))

    def _other(self, row: Row, random: np.random.Generator) -> Row | None:
        """A row of the split by another speaker; None where there is none, or nobody knows who speaks."""
        rows, places = self._splits[row.split], self._places[row.split]
        nameless, (first, stop) = places.get("", (0, 0))[1], places[row.speaker]
        count = len(rows) - nameless - (stop - first)
        if not row.speaker or count < 1:
            return None
        place = nameless + int(random.integers(count))
        return rows[place if place < first else place + stop - first]

    def _backgrounds_of(self, split: str) -> Backgrounds:
        if split not in self._backgrounds:
            rate, rows = self.config.sample_rate, self._splits[split]
            chosen = [] if self.config.noises else rows[:: max(1, len(rows) // VOICES)][:VOICES]
            found = Backgrounds([row.load(rate) for row in chosen], rate, seed=self.config.seed)
            if self.config.noises:
                paths = find_recordings(self.config.noises)
                found.tracks = [unit_power(read_audio(path, sample_rate=rate)) for path in paths]
            self._backgrounds[split] = found
        return self._backgrounds[split]

    def _write(self, name: str, samples: np.ndarray) -> Path:
        path = self.folder / AUDIO / f"{name}.wav"
        (self.folder / MANIFEST).unlink(missing_ok=True)  # it names sounds that are about to be others
        write_audio(path, samples, self.config.sample_rate)
        return path


def mixed(said: np.ndarray, other: np.ndarray, above_db: float) -> tuple[np.ndarray, np.ndarray]:
    """What is said (S,) over another sound (S,) of unit power, now `above_db` dB below it, and that sound alone.

    Both are scaled down where the sum would leave [-1, 1].
    """
    power = float(np.sqrt(np.mean(np.square(said, dtype=np.float64)))) if len(said) else 0.0
    below = other.astype(np.float64) * power * 10 ** (-above_db / 20)
    both = said.astype(np.float64) + below
    scale = max(1.0, float(np.abs(both).max(initial=0.0)))
    return (both / scale).astype(np.float32), (below / scale).astype(np.float32)


def beside(samples: np.ndarray, length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) float32: a part of a recording (S,), or all of it somewhere."""
    spare = length - len(samples)
    if spare < 0:
        start = int(random.integers(-spare + 1))
        return samples[start : start + length]
    before = int(random.integers(spare + 1))
    return np.pad(samples, (before, spare - before))


def _record(row: Row, folder: Path) -> dict[str, Any]:
    """A row as a line of a manifest in a folder."""
    found: dict[str, Any] = {"id": row.id, "group": row.group, "lang": row.lang, "split": row.split}
    if row.audio is not None:
        found["audio"] = os.path.relpath(os.path.abspath(row.audio), os.path.abspath(folder))
    if row.offset or row.seconds is not None:
        found |= {"offset": row.offset} | ({} if row.seconds is None else {"duration": row.seconds})
    if row.text is not None:
        found["text"] = row.text
    if row.words:
        found["words"] = [list(word) for word in row.words]
    for name in ("speaker", "extras"):
        if value := getattr(row, name):
            found[name] = dict(value) if name == "extras" else value
    return found | {name: np.asarray(ids).tolist() for name, ids in row.tokens.items()}
