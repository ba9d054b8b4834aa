"""Mel power spectrograms as librosa computes them: what models that were trained behind librosa must be given.

S samples, N FFT bins, F frames, M mel bins.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BREAK_HZ, BREAK_MEL = 1000.0, 15.0
"""Slaney's scale is linear below, logarithmic above."""
LOG_STEP = math.log(6.4) / 27.0


def slaney_to_hz(mel: Tensor) -> Tensor:
    """Mels of Slaney's scale (1998, Auditory Toolbox) → Hz."""
    return torch.where(mel < BREAK_MEL, mel * BREAK_HZ / BREAK_MEL, BREAK_HZ * torch.exp(LOG_STEP * (mel - BREAK_MEL)))


def hz_to_slaney(hz: float) -> float:
    """The inverse for one frequency."""
    return hz * BREAK_MEL / BREAK_HZ if hz < BREAK_HZ else BREAK_MEL + math.log(hz / BREAK_HZ) / LOG_STEP


class MelPower:
    """`librosa.feature.melspectrogram` with its defaults: power, centred frames in silence, filters of unit area."""

    def __init__(self, *, sample_rate: int, n_fft: int, hop_length: int, num_mels: int) -> None:
        self.n_fft, self.hop_length = n_fft, hop_length
        self.window = torch.hann_window(n_fft, dtype=torch.float64, device="cpu")
        top = hz_to_slaney(sample_rate / 2)
        edges = slaney_to_hz(torch.linspace(0.0, top, num_mels + 2, dtype=torch.float64, device="cpu"))
        bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device="cpu") * sample_rate / n_fft
        left, centre, right = edges[:-2], edges[1:-1], edges[2:]
        rising = (bins[:, None] - left) / (centre - left)
        falling = (right - bins[:, None]) / (right - centre)
        self.filters = torch.minimum(rising, falling).clamp(min=0.0) * 2.0 / (right - left)  # (N, M)

    def __call__(self, samples: Tensor) -> Tensor:
        """(S,) → (F, M) float32, F = 1 + S // hop_length."""
        spectrum = torch.stft(
            samples.double(), self.n_fft, self.hop_length, window=self.window, center=True, pad_mode="constant",
            return_complex=True,
        )  # (N, F)  # fmt: skip
        return (spectrum.abs().square().T @ self.filters).float()
