"""The same words as another recording of them could sound: faster or slower, higher or lower, noisy, in a room.

Gat et al. 2023, "Augmentation invariant discrete representation for generative spoken language modeling", table 1.
S samples, W window, F frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

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
WINDOW_SECONDS = 0.032
"""Of the phase vocoder; a quarter of it is a step."""


def time_stretch(samples: np.ndarray, rate: int, speed: float) -> np.ndarray:
    """(S,) float32 at another speed and the same pitch, (S ÷ speed,): a phase vocoder (Flanagan & Golden 1966)."""
    window_length = 2 * round(WINDOW_SECONDS * rate / 2)
    hop = window_length // 4
    if len(samples) <= window_length:  # one step says nothing of phases
        return samples
    window = torch.hann_window(window_length)
    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)), window_length, hop, window_length, window,
        return_complex=True,
    )  # fmt: skip
    length = round(len(samples) / speed)
    stretched = _respaced(spectrum, torch.arange(0, spectrum.shape[1] - 1, speed, dtype=torch.float64), hop)
    found = torch.istft(stretched, window_length, hop, window_length, window).numpy()[:length]
    return np.pad(found, (0, length - len(found)))


def _respaced(spectrum: Tensor, places: Tensor, hop: int) -> Tensor:
    """(W ÷ 2 + 1, F) complex between its frames: lengths in proportion, and phases that go on as fast as there."""
    bins = spectrum.shape[0]
    before = places.long()
    share = (places - before).float()
    first, second = spectrum[:, before], spectrum[:, before + 1]
    size = first.abs() * (1 - share) + second.abs() * share
    expected = torch.linspace(0, math.pi * hop, bins)[:, None]
    turn = second.angle() - first.angle() - expected
    turn = turn - 2 * math.pi * torch.round(turn / (2 * math.pi)) + expected
    phase = torch.cat([spectrum[:, :1].angle(), turn[:, :-1]], dim=1).double().cumsum(1)
    return torch.polar(size, torch.remainder(phase, 2 * math.pi).float())


def pitch_shift(samples: np.ndarray, rate: int, semitones: float) -> np.ndarray:
    """(S,) float32 with all of its frequencies so much higher, (S,): played faster, then stretched."""
    import soxr

    factor = 2 ** (semitones / 12)
    if len(samples) < rate * WINDOW_SECONDS * 2:
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
