"""Mel power spectrograms as librosa computes them: what models that were trained behind librosa must be given.

S samples, N FFT bins, F frames, M mel bins.
"""

from __future__ import annotations

import torch
from torch import Tensor


class MelPower:
    """`librosa.feature.melspectrogram` with its defaults: power, centered frames in silence, Slaney's filters."""

    def __init__(self, *, sample_rate: int, n_fft: int, hop_length: int, num_mels: int) -> None:
        from transformers.audio_utils import mel_filter_bank

        self.n_fft, self.hop_length = n_fft, hop_length
        self.window = torch.hann_window(n_fft, dtype=torch.float64, device="cpu")
        top = sample_rate / 2
        filters = mel_filter_bank(n_fft // 2 + 1, num_mels, 0.0, top, sample_rate, norm="slaney", mel_scale="slaney")
        self.filters = torch.from_numpy(filters).double()  # (N, M)

    def __call__(self, samples: Tensor) -> Tensor:
        """(S,) → (F, M) float32, F = 1 + S // hop_length."""
        spectrum = torch.stft(
            samples.double(),
            self.n_fft,
            self.hop_length,
            window=self.window,
            center=True,
            pad_mode="constant",
            return_complex=True,
        )  # (N, F)
        return (spectrum.abs().square().T @ self.filters).float()
