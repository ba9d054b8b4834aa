"""Training rows of several utterances, or with pauses inside: what a model must have seen to read what people record.

S samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence  # noqa: F401 - inherited fields' types are looked up here
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path  # noqa: F401
from typing import Any  # noqa: F401

import numpy as np

from unitok_tokenizers.audio.backgrounds import Backgrounds, Surroundings, split_at_quiet, surrounded
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError

SPLIT = "joined"
"""Split of these rows: tasks that listen train on them beside the training split; the others have no use for them."""
PARTED_SHARE = 0.5
"""Share of these rows that are one utterance with a pause inside; the others are two utterances."""
AROUND = Surroundings(end_share=0.5, under_share=0.0)
"""Around what is joined: such rows are spoken too, and noise under the speech would be learned."""
VOICES = 12
"""Recordings that murmurs are made of."""


class Murmur:
    """Noises and the murmur of some rows' recordings, made when they are first asked for."""

    def __init__(self, voices: Sequence[Row]) -> None:
        self.voices = voices
        self._made: dict[int, Backgrounds] = {}

    def __reduce__(self) -> tuple[type[Murmur], tuple[Sequence[Row]]]:
        """For another process, which makes its own: what was made here is large."""
        return Murmur, (self.voices,)

    def at(self, rate: int) -> Backgrounds:
        """The backgrounds at a sample rate in Hz."""
        if rate not in self._made:
            self._made[rate] = Backgrounds(list(self._readable(rate)), rate, seed=0)
        return self._made[rate]

    def _readable(self, rate: int) -> Iterator[np.ndarray]:
        """The recordings of its voices; those that cannot be read, whose own rows say so, are left out."""
        for row in self.voices:
            with suppress(InputError):
                yield row.load(rate)


@dataclass(frozen=True, kw_only=True)
class JoinedRow(Row):
    """Two utterances of a speaker, or one in two parts, with silence or noise around and between, as one utterance."""

    parts: tuple[Row, ...] = ()
    """What is joined, in order."""
    murmur: Murmur = field(default_factory=lambda: Murmur(()), compare=False)
    """What is in the background, which all joined rows share."""
    seed: int = 0
    """Of the gaps and ends, together with the row's name."""

    @property
    def reference(self) -> str:
        """There is no file of it."""
        return ""

    def length(self) -> float:
        """Its parts' length in seconds, without what lies around them."""
        return sum(part.length() for part in self.parts)

    def stamp(self) -> list[int | str]:
        """Of all that it is made of."""
        of_parts = [str(one) for part in self.parts for one in (*part.stamp(), part.audio, part.offset, part.seconds)]
        return [self.seed, *of_parts]

    def load(self, sample_rate: int, *, most_seconds: float | None = None) -> np.ndarray:
        """(S,) samples; InputError, naming the part, where one cannot be read."""
        random = np.random.default_rng([self.seed, zlib.crc32(self.id.encode())])
        sounds = [part.load(sample_rate) for part in self.parts]
        if len(sounds) == 1:
            sounds = split_at_quiet(sounds[0], sample_rate, random)
        made = surrounded(sounds, sample_rate, self.murmur.at(sample_rate), random, AROUND)
        return made if most_seconds is None else made[: round(most_seconds * sample_rate)]


def joined_rows(rows: Sequence[Row], share: float, *, seed: int, most_seconds: float | None = None) -> list[Row]:
    """New rows for training, `share` times as many as there are groups, that look like recordings people have.

    Half of them are two utterances of one speaker one after another, and half one utterance with a pause inside. What
    is said in several languages is made in all of them, so that these rows translate one another. Rows without text or
    recording are left alone.

    Args:
        rows: a manifest's rows; those of the training split are used.
        share: new groups ÷ groups.
        seed: of the choice.
        most_seconds: rows that could be longer, with what is around them, are left out.
    """
    by_speaker: dict[str, dict[str, dict[str, Row]]] = {}
    usable = [row for row in rows if row.split == "train" and row.audio is not None and row.text]
    for row in usable:
        by_speaker.setdefault(row.speaker, {}).setdefault(row.group, {})[row.lang] = row
    speakers = sorted(by_speaker)
    if not speakers or share <= 0:
        return []
    random = np.random.default_rng([seed, 17])
    voices = random.choice(len(usable), min(VOICES, len(usable)), replace=False)
    murmur = Murmur([usable[int(i)] for i in voices])
    sizes = np.asarray([len(by_speaker[name]) for name in speakers], dtype=np.float64)
    found: list[Row] = []
    for number in range(round(share * float(sizes.sum()))):
        groups = by_speaker[speakers[int(random.choice(len(speakers), p=sizes / sizes.sum()))]]
        names = sorted(groups)
        count = 1 if random.random() < PARTED_SHARE or len(names) < 2 else 2
        chosen = [groups[names[int(i)]] for i in random.choice(len(names), count, replace=False)]
        for lang in sorted(set.intersection(*(set(one) for one in chosen))):
            joined = _joined(f"joined-{number:06d}", [one[lang] for one in chosen], murmur, seed)
            if most_seconds is None or joined.length() + 3 * AROUND.longest <= most_seconds:
                found.append(joined)
    return found


def _joined(name: str, parts: Sequence[Row], murmur: Murmur, seed: int) -> JoinedRow:
    first = parts[0]
    return JoinedRow(
        id=f"{name}-{first.lang}",
        group=name,
        lang=first.lang,
        speaker=first.speaker,
        split=SPLIT,
        text=" ".join((part.text or "").strip() for part in parts),
        audio=first.audio,
        parts=tuple(parts),
        murmur=murmur,
        seed=seed,
        extras={"joined": [part.id for part in parts]},
    )
