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
    """(S,) at `SAMPLE_RATE` → (F, N) weighted windows, at least one: frame by frame, around its beginning.

    Each without its mean (Boersma 1993): where silence is not zero every lag would look like a period.
    """
    frames = max(1, len(samples) // HOP)
    around = functional.pad(torch.from_numpy(samples.astype(np.float32)), (WINDOW // 2, WINDOW // 2 + HOP))
    cut = around.unfold(0, WINDOW, HOP)[:frames]
    return (cut - cut.mean(1, keepdim=True)) * torch.hann_window(WINDOW, device="cpu")


def correlations(samples: np.ndarray, lowest: float, highest: float, count: int, *, finer: int = 1) -> torch.Tensor:
    """(S,) at `SAMPLE_RATE` → (F, count) correlations of each frame with what was a period before, from the longest
    period (that of `lowest` Hz) to the shortest, evenly spaced in octaves.

    Between lags of 1/`finer` samples they are interpolated by a straight line, which loses some of a peak: with 1 a
    short period that is no whole number of samples looks less alike than two of it that are.
    """
    own = autocorrelation(windows(samples), finer)
    weight = autocorrelation(torch.hann_window(WINDOW, device="cpu"), finer)
    alike = own / (own[:, :1] + QUIET) * (weight[0] / weight)
    periods = (
        finer * SAMPLE_RATE / torch.logspace(np.log2(lowest), np.log2(highest), count, base=2.0, device="cpu")
    )  # (P,)
    before = periods.long()
    share = periods - before
    return alike[:, before] * (1 - share) + alike[:, before + 1] * share


def autocorrelation(frames: torch.Tensor, finer: int = 1) -> torch.Tensor:
    """(…, N) → (…, `finer` · N / 2), lag 0 first, in steps of 1/`finer` samples."""
    spectrum = torch.fft.rfft(frames, 2 * WINDOW).abs() ** 2
    return finer * torch.fft.irfft(spectrum, 2 * WINDOW * finer)[..., : WINDOW // 2 * finer]
