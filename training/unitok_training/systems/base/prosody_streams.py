"""Speech as one flat stream of ids: units, and among them how they are said, in the order of time.

Pitch is told over the level of a voice, not of a recording: what is told of a beginning knows nothing of what follows.

N units, F frames of a contour, T ids of an utterance, S samples.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from unitok_tokenizers.files import fingerprint
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.contour import RATE, Contour, contour
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate

UNITS, PITCH, MARK = "units", "pitch", "mark"
"""Blocks that every alphabet has: units, levels of pitch (0 is no voice), and the id behind which prosody is told."""
PLACES = Fraction(50)
"""Nominal ids a second. There is no id a frame, so times of words are given as places in the stream ÷ this."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LeveledContour(Contour):
    """A contour whose own level is that of the voice, over all of its recordings."""

    voice_level: float
    """log2 of the pitch in Hz."""

    @property
    def own_level(self) -> float:
        """See `Contour.own_level`."""
        return self.voice_level


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What is heard of an utterance."""

    units: np.ndarray
    """(N,) int64, deduplicated."""
    durations: np.ndarray
    """(N,) int64 frames of each."""
    frame_rate: float
    """Such frames a second."""
    contour: Contour
    """Of the voice."""

    @property
    def edges(self) -> np.ndarray:
        """(N + 1,) float64 seconds at which units begin, and the last one ends."""
        found: np.ndarray = np.concatenate([[0], np.cumsum(self.durations)]) / self.frame_rate
        return found

    def unit_pitch(self) -> np.ndarray:
        """(N,) float64 octaves over the level of the voice, the middle one of each unit; NaN without a voice."""
        octaves = self.contour.octaves.astype(np.float64) - self.contour.own_level
        places = np.minimum(np.rint(self.edges * RATE).astype(np.int64), len(octaves))
        found = np.full(len(self.units), np.nan)
        for number, (start, stop) in enumerate(zip(places[:-1].tolist(), places[1:].tolist())):
            voiced = octaves[start:stop][~np.isnan(octaves[start:stop])]
            if 2 * len(voiced) >= max(stop - start, 1):
                found[number] = np.median(voiced)
        return found


def contours(recordings: Sequence[np.ndarray]) -> list[Contour]:
    """Of (S,) float32 each, at the rate of `encoders.pitch`."""
    return [contour(one) for one in recordings]


def voice_levels(speakers: Sequence[str], found: Sequence[Contour]) -> dict[str, float]:
    """Speaker → level of the voice, the middle one of its recordings'."""
    by_speaker: dict[str, list[float]] = {}
    for speaker, one in zip(speakers, found, strict=True):
        by_speaker.setdefault(speaker, []).append(one.own_level)
    return {speaker: float(np.median(levels)) for speaker, levels in by_speaker.items()}


def heard_of(
    recordings: Sequence[np.ndarray],
    found: Sequence[Contour],
    speakers: Sequence[str],
    tokenizer: UnitTokenizer,
    levels: Mapping[str, float],
) -> list[Heard]:
    """What is heard of recordings (S,) at the tokenizer's rate, whose contours are known."""
    assert tokenizer.frame_rate is not None, "units of recordings have a rate"
    results = []
    for frames, one, speaker in zip(tokenizer.encode_batch(recordings), found, speakers, strict=True):
        units, durations = deduplicate(frames)
        leveled = LeveledContour(
            octaves=one.octaves, level=one.level, brightness=one.brightness, voice_level=levels[speaker]
        )
        results.append(Heard(units=units, durations=durations, frame_rate=float(tokenizer.frame_rate), contour=leveled))
    return results


# -- ids ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """Ids of a flat stream: one block after another."""

    sizes: Mapping[str, int]
    """Block → number of its ids, in their order."""
    origin: str
    """Identifies the tokenizers behind them."""

    @property
    def size(self) -> int:
        """Of all blocks."""
        return sum(self.sizes.values())

    def start(self, block: str) -> int:
        """The first id of a block."""
        names = list(self.sizes)
        return sum(self.sizes[name] for name in names[: names.index(block)])

    def ids(self, block: str, local: np.ndarray) -> np.ndarray:
        """Numbers within a block → ids."""
        assert not len(local) or 0 <= local.min() <= local.max() < self.sizes[block], f"they are {block}"
        return np.asarray(local, np.int64) + self.start(block)

    def within(self, block: str, ids: np.ndarray) -> np.ndarray:
        """Numbers within a block of those ids (T,) that are of it, in their order."""
        local = np.asarray(ids, np.int64) - self.start(block)
        return local[(local >= 0) & (local < self.sizes[block])]

    def info(self) -> StreamInfo:
        """The stream: units, as far as a decoder knows."""
        key = fingerprint([list(self.sizes.items()), self.origin])
        return StreamInfo(UNITS, "units", key, PLACES, (self.size,))


@dataclass(frozen=True, kw_only=True, eq=False)
class Flat:
    """An utterance in a flat stream."""

    ids: np.ndarray
    """(T,) int64."""
    times: np.ndarray
    """(T,) float64 seconds by which what each one tells is over, ascending."""

    def places(self, seconds: Sequence[float]) -> np.ndarray:
        """How many ids are over by each time."""
        found: np.ndarray = np.searchsorted(self.times, np.asarray(seconds), side="right")
        return found


class FlatStream(ABC):
    """Makes utterances of a flat stream."""

    alphabet: Alphabet
    """Its ids."""

    @abstractmethod
    def flat(self, heard: Heard) -> Flat:
        """An utterance with its prosody."""

    def untold(self, heard: Heard, seconds: float) -> Flat:
        """The same, but units alone up to a time, and the mark there: prosody is told from it on."""
        whole, alphabet = self.flat(heard), self.alphabet
        cut = int(whole.places([seconds])[0])
        first = alphabet.start(UNITS)
        ids, times = whole.ids[:cut], whole.times[:cut]
        kept = (ids >= first) & (ids < first + alphabet.sizes[UNITS])
        return Flat(
            ids=np.concatenate([ids[kept], [alphabet.start(MARK)], whole.ids[cut:]]),
            times=np.concatenate([times[kept], [seconds], whole.times[cut:]]),
        )


def nearest(levels: np.ndarray, octaves: np.ndarray) -> np.ndarray:
    """Numbers (N,) of the nearest of ascending levels (K,) from 1 on; 0 where there is no voice (NaN)."""
    edges = (levels[1:] + levels[:-1]) / 2
    return np.where(np.isnan(octaves), 0, 1 + np.searchsorted(edges, np.nan_to_num(octaves))).astype(np.int64)
