"""The same words as another recording of them could sound: faster or slower, higher or lower, noisy, in a room.

Gat et al. 2023, "Augmentation invariant discrete representation for generative spoken language modeling", table 1.
S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from unitok_tokenizers.audio.backgrounds import noises, unit_power

STRETCH = (0.8, 1.2)
"""Least and greatest speed."""
SEMITONES = (1.0, 4.0)
"""Least and greatest shift, up or down."""
NOISE_DB = (5.0, 15.0)
"""How far below the speech a noise lies."""
ROOM_SECONDS = (0.2, 0.8)
"""Until a sound in a room has fallen by 60 dB."""
DIRECT_DB = (0.0, 9.0)
"""How far above the room's echoes the direct sound lies."""
HOP_SECONDS, REACH_SECONDS = 0.016, 0.008
"""Half a window of what is stretched, and how far it is moved: more than half a period of low voices."""


def time_stretch(samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """(S,) float32 at another speed and the same pitch, (S ÷ speed,).

    WSOLA (Verhelst & Roelands 1993): windows from where the speed takes them, moved a little to where the waveform goes
    on as it did. A phase vocoder would smear the beginnings of sounds.
    """
    hop, reach = round(HOP_SECONDS * rate), round(REACH_SECONDS * rate)
    window = 2 * hop
    if len(samples) <= window + 2 * reach:  # there is no waveform to go on with
        return samples
    shape = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)  # half windows add up to one
    length = round(len(samples) / speed)
    given = np.pad(np.asarray(samples, dtype=np.float64), (hop + reach, 2 * window + 2 * reach))
    squares = np.concatenate([[0.0], np.cumsum(given * given)])
    found = np.zeros(length + 2 * window)
    last = 0
    for number in range(length // hop + 2):
        place = reach + min(round(number * hop * speed), len(samples))
        if number:
            region = given[place - reach : place + reach + window]
            alike = np.correlate(region, given[last + hop : last + hop + window], "valid")
            starts = np.arange(place - reach, place + reach + 1)
            power = np.sqrt(np.maximum(squares[starts + window] - squares[starts], 1e-12))
            place += int(np.argmax(alike / power)) - reach
        found[number * hop : number * hop + window] += shape * given[place : place + window]
        last = place
    return found[hop : hop + length].astype(np.float32)


def pitch_shift(samples: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """(S,) float32 with all of its frequencies so much higher, (S,): played faster, then stretched."""
    import soxr

    factor = 2 ** (semitones / 12)
    if len(samples) < 4 * HOP_SECONDS * rate:
        return samples
    played = soxr.resample(np.ascontiguousarray(samples, dtype=np.float32), rate * factor, rate).astype(np.float32)
    found = time_stretch(played, rate, len(played) / len(samples))[: len(samples)]
    return np.pad(found, (0, len(samples) - len(found)))


def reverberate(
    samples: np.ndarray, rate: int, seconds: float, direct_db: float, random: np.random.Generator
) -> np.ndarray:
    """(S,) float32 as in a room, of the same power: echoes are noise that falls by 60 dB in `seconds` (Moorer 1979)."""
    if not len(samples):
        return samples
    size = max(2, round(seconds * rate))
    echoes = random.standard_normal(size) * 10 ** (-3 * np.arange(size) / size)
    echoes[: max(1, round(0.002 * rate))] = 0.0  # nothing is nearer than the speaker's mouth
    echoes *= 10 ** (-direct_db / 20) / max(float(np.sqrt(np.square(echoes).sum())), 1e-12)
    echoes[0] = 1.0
    points = 1 << (len(samples) + size - 2).bit_length()
    wet = np.fft.irfft(np.fft.rfft(samples, points) * np.fft.rfft(echoes, points), points)[: len(samples)]
    power = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    return (unit_power(wet) * np.float32(power)).astype(np.float32)


def noisy(samples: np.ndarray, rate: int, below_db: float, random: np.random.Generator) -> np.ndarray:
    """(S,) float32 with a noise of some color under it, `below_db` below the speech's mean power."""
    power = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    noise = unit_power(noises(rate).draw(len(samples), random))
    return (samples + noise * np.float32(power * 10 ** (-below_db / 20))).astype(np.float32)


def _stretched(samples: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    return time_stretch(samples, rate, random.uniform(*STRETCH))


def _shifted(samples: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    return pitch_shift(samples, rate, random.uniform(*SEMITONES) * random.choice((-1.0, 1.0)))


def _noisy(samples: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    return noisy(samples, rate, random.uniform(*NOISE_DB), random)


def _in_a_room(samples: np.ndarray, rate: int, random: np.random.Generator) -> np.ndarray:
    return reverberate(samples, rate, random.uniform(*ROOM_SECONDS), random.uniform(*DIRECT_DB), random)


CHANGES: Mapping[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "stretch": _stretched,
    "pitch": _shifted,
    "noise": _noisy,
    "room": _in_a_room,
}
"""Name → (samples (S,), Hz, draws) → samples (S',): as long, but for `stretch`."""
