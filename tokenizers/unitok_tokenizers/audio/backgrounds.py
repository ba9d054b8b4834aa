"""Backgrounds for training: silence and noises in front of, behind, between and under what is said.

S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from unitok_tokenizers.audio.speech_activity import levels

TRACK_SECONDS = 30
"""Length of each noise that slices are drawn from."""
BABBLE_VOICES = 6
"""Recordings that are added up to a murmur."""
SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""Noise whose amplitude falls with frequency to this power."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """How often training puts something around an utterance, and what."""

    end_share: float = 0.2
    """Share of utterances with something in front, and of those with something behind."""
    gap_share: float = 0.08
    """Share with a pause put into their quietest moment."""
    join_share: float = 0.06
    """Share that another utterance follows, after a gap."""
    nothing_share: float = 0.02
    """Share of examples in which nothing is said."""
    longest: float = 1.2
    """Longest end or gap in seconds."""
    silent_share: float = 0.4
    """Share of backgrounds that are digital silence; the rest are noises."""
    under_share: float = 0.3
    """Share of noises that go on under the speech."""
    least_db: float = 16.0
    """Least distance of a noise below the speech, in dB."""
    most_db: float = 45.0
    """Largest distance."""


OFTEN = Surroundings(end_share=0.8)


class Backgrounds:
    """Noises of unit power: colored, and the murmur of several of the given recordings at once."""

    def __init__(self, recordings: Sequence[np.ndarray], rate: int, *, seed: int) -> None:
        random = np.random.default_rng([seed, 7])
        size = TRACK_SECONDS * rate
        self.tracks = [colored(size, slope, random) for slope in SLOPES.values()]
        if len(recordings):
            self.tracks += [babble(recordings, size, random), babble(recordings, size, random)]

    def draw(self, samples: int, random: np.random.Generator) -> np.ndarray:
        """(S,) float32 of one noise, of unit power over the whole of it."""
        track = self.tracks[int(random.integers(len(self.tracks)))]
        start = int(random.integers(len(track)))
        return np.take(track, np.arange(start, start + samples), mode="wrap")


@lru_cache(maxsize=2)
def noises(rate: int) -> Backgrounds:
    """Backgrounds without voices, the same always: half a minute of each takes a tenth of a second to draw."""
    return Backgrounds([], rate, seed=0)


def colored(samples: int, slope: float, random: np.random.Generator) -> np.ndarray:
    """(S,) float32 Gaussian noise of unit power whose amplitude falls as frequency to the power `slope`."""
    spectrum = np.fft.rfft(random.standard_normal(samples))
    bins = np.arange(len(spectrum), dtype=np.float64)
    shaped = np.fft.irfft(spectrum * np.maximum(bins, samples / 800) ** -slope, samples)  # flat below 20 Hz at 16 kHz
    return unit_power(shaped)


def babble(recordings: Sequence[np.ndarray], samples: int, random: np.random.Generator) -> np.ndarray:
    """(S,) float32 of unit power: several recordings at a time, one after another."""
    mixed = np.zeros(samples)
    for _ in range(BABBLE_VOICES):
        place = -int(random.integers(samples // 2))
        while place < samples:
            one = unit_power(recordings[int(random.integers(len(recordings)))])
            begin, end = max(place, 0), min(place + len(one), samples)
            if end > begin:
                mixed[begin:end] += one[begin - place : end - place]
            place += max(len(one), 1)
    return unit_power(mixed)


def unit_power(samples: np.ndarray) -> np.ndarray:
    """Samples scaled to a mean square of 1; silence stays silent."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return (samples / np.sqrt(max(power, 1e-12))).astype(np.float32)


def split_at_quiet(samples: np.ndarray, rate: int, random: np.random.Generator) -> list[np.ndarray]:
    """(S,) samples in two, at the quietest moment near a random place in their middle half."""
    found = levels(samples, rate)
    if len(found) < 20:
        return [samples]
    low = int(random.integers(len(found) // 4, len(found) // 2))
    place = low + int(np.argmin(found[low : low + len(found) // 4]))
    cut = (2 * place + 1) * len(samples) // (2 * len(found))
    return [samples[:cut], samples[cut:]]


def surrounded(
    parts: Sequence[np.ndarray],
    rate: int,
    backgrounds: Backgrounds,
    random: np.random.Generator,
    settings: Surroundings | None = None,
) -> np.ndarray:
    """Recordings (S,) one after another with random gaps, and random ends, as one recording (S',)."""
    settings = settings or Surroundings()
    ends = [settings.longest * random.random() * (random.random() < settings.end_share) for _ in range(2)]
    gaps = [settings.longest * random.random() for _ in parts[1:]]
    breaks = [ends[0], *gaps, ends[1]]
    silence = [np.zeros(round(one * rate), dtype=np.float32) for one in breaks]
    pieces = [silence[0]]
    for part, pause in zip(parts, silence[1:]):
        pieces += [part.astype(np.float32), pause]
    joined = np.concatenate(pieces)
    if random.random() < settings.silent_share or len(joined) == sum(map(len, parts)):
        return joined
    power = float(np.mean(np.square(np.concatenate(parts), dtype=np.float64)))
    distance = random.uniform(settings.least_db, settings.most_db)
    noise = backgrounds.draw(len(joined), random) * np.float32(np.sqrt(power) * 10 ** (-distance / 20))
    if random.random() >= settings.under_share:
        place = 0
        for index, piece in enumerate(pieces):
            if index % 2:
                noise[place : place + len(piece)] = 0.0
            place += len(piece)
    return joined + noise


def among_noises(recordings: Sequence[np.ndarray], rate: int, seed: int, share: float = 0.15) -> list[np.ndarray]:
    """The recordings (S,), a share of them with something around or under them, at another level, for tokenizers."""
    random = np.random.default_rng([seed, 13])
    backgrounds = Backgrounds(recordings[:24], rate, seed=seed)
    hit = random.random(len(recordings)) < share
    return [
        surrounded([one], rate, backgrounds, random, OFTEN) * np.float32(10 ** random.uniform(-0.5, 0.3))
        if noisy
        else one
        for one, noisy in zip(recordings, hit.tolist())
    ]
