"""Correlograms as an encoder: how alike a recording is to itself a period later, for every pitch of a voice.

S samples, F frames (100 Hz), N samples of a window, P pitches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.filterbank import padded

SAMPLE_RATE, HOP, WINDOW = 16000, 160, 1024
"""Windows of 64 ms, four periods of a low voice."""
LOWEST, HIGHEST, PITCHES = 60.0, 320.0, 48
"""Pitches in Hz, evenly spaced in octaves, and how many."""
LOUD = 3.0
"""Factor on correlations, which makes them as large as normalized log-mels."""
QUIET = 1e-3
"""Power that is added to a frame's, so that silence correlates with nothing."""


class PitchEncoder(FrameEncoder):
    """Autocorrelation of each frame at the periods of P pitches, over that of the window (Boersma 1993)."""

    name = "pitch"
    ready = True

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.frame_rate = SAMPLE_RATE, Fraction(SAMPLE_RATE, HOP)
        self.width, self.depth = PITCHES, 1

    @torch.no_grad()
    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → correlations (F, P)."""
        return (LOUD * correlations(samples, LOWEST, HIGHEST, PITCHES),)

    def frames_of(self, samples: int) -> int:
        """One per hop."""
        return max(1, samples // HOP)

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        hidden, lengths = padded(batch)
        return Frames(hidden, lengths, (hidden,))

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> PitchEncoder:
        """See `FrameEncoder.from_json`."""
        return cls()


def windows(samples: np.ndarray) -> torch.Tensor:
    """(S,) at `SAMPLE_RATE` → (F, N) weighted windows, at least one: frame by frame, around its beginning."""
    frames = max(1, len(samples) // HOP)
    around = functional.pad(torch.from_numpy(samples.astype(np.float32)), (WINDOW // 2, WINDOW // 2 + HOP))
    return around.unfold(0, WINDOW, HOP)[:frames] * torch.hann_window(WINDOW, device="cpu")


def correlations(samples: np.ndarray, lowest: float, highest: float, count: int) -> torch.Tensor:
    """(S,) at `SAMPLE_RATE` → (F, count) correlations of each frame with what was a period before, from the longest
    period (that of `lowest` Hz) to the shortest, evenly spaced in octaves."""
    own = autocorrelation(windows(samples))
    weight = autocorrelation(torch.hann_window(WINDOW, device="cpu"))
    alike = own / (own[:, :1] + QUIET) * (weight[0] / weight)
    periods = SAMPLE_RATE / torch.logspace(np.log2(lowest), np.log2(highest), count, base=2.0, device="cpu")  # (P,)
    before = periods.long()
    share = periods - before
    return alike[:, before] * (1 - share) + alike[:, before + 1] * share


def autocorrelation(frames: torch.Tensor) -> torch.Tensor:
    """(…, N) → (…, N / 2), lag 0 first."""
    spectrum = torch.fft.rfft(frames, 2 * WINDOW).abs() ** 2
    return torch.fft.irfft(spectrum)[..., : WINDOW // 2]


VOICED = 0.5
"""Least correlation with the period before for a frame that has a pitch; noise stays below .4."""
AS_HIGH = 0.9
"""Share of the highest correlation that the shortest period must have: every multiple of a period correlates too."""


def pitches(samples: np.ndarray) -> np.ndarray:
    """(S,) at `SAMPLE_RATE` → the voice's pitch in Hz of each frame (F,) float32, 0 where there is none."""
    alike = PitchEncoder().inputs(samples)[0].numpy() / LOUD  # (F, P), from the longest period to the shortest
    hertz = np.logspace(np.log2(LOWEST), np.log2(HIGHEST), PITCHES, base=2.0)
    best = alike.max(1)
    sides = np.pad(alike, ((0, 0), (1, 1)), constant_values=-np.inf)
    peaks = (alike >= sides[:, :-2]) & (alike >= sides[:, 2:]) & (alike >= AS_HIGH * best[:, None])
    place = PITCHES - 1 - np.argmax(peaks[:, ::-1], axis=1)  # the shortest period of those
    return np.where(best >= VOICED, hertz[place], 0.0).astype(np.float32)
