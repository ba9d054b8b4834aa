"""Losses between waveforms.

B batch, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unitok_tokenizers.audio.features import MelConfig, log_mel, magnitude

RESOLUTIONS = ((256, 64), (512, 128), (1024, 256))
"""(FFT size, hop) of the spectral losses, in samples."""


def stft_loss(made: Tensor, real: Tensor, resolutions: tuple[tuple[int, int], ...] = RESOLUTIONS) -> Tensor:
    """Multi-resolution spectral loss (Yamamoto et al. 2020): convergence plus L1 of log-magnitudes, (B, S) each."""
    total = made.new_zeros(())
    for n_fft, hop in resolutions:
        window = torch.hann_window(n_fft, device=made.device)
        a = magnitude(torch.stft(made, n_fft, hop, window=window, return_complex=True))
        b = magnitude(torch.stft(real, n_fft, hop, window=window, return_complex=True))
        convergence = (a - b).norm() / b.norm().clamp(min=1e-5)
        total = total + convergence + (a.clamp(min=1e-4).log() - b.clamp(min=1e-4).log()).abs().mean()
    return total / len(resolutions)


def mel_loss(made: Tensor, real: Tensor, config: MelConfig) -> Tensor:
    """L1 of log-mels, (B, S) each."""
    return (log_mel(made, config) - log_mel(real, config)).abs().mean()
