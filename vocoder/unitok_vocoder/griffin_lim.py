"""Griffin-Lim: a waveform from log-mels without a trained network (Griffin & Lim 1984).

F frames, N FFT bins, M mel bins, S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unitok_tokenizers.audio.features import MelConfig, mel_filters


def griffin_lim(log_mels: Tensor, config: MelConfig, *, iterations: int = 32, seed: int = 0) -> Tensor:
    """Log-mels (F, M) → samples (F · hop_length,), the fallback where no vocoder was trained.

    The first phases are drawn on the processor, so that a seed gives the same ones on every device.
    """
    device = log_mels.device
    inverse = torch.linalg.pinv(mel_filters(config)).to(device)
    magnitude = (log_mels.exp() @ inverse).clamp(min=0.0)  # (F, N)
    magnitude = torch.cat([magnitude, magnitude[-1:]]).T  # (N, F + 1): one frame more covers the last hop
    window = torch.hann_window(config.win_length, device=device)
    length = log_mels.shape[0] * config.hop_length
    sizes = (config.n_fft, config.hop_length, config.win_length, window)
    drawn = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed), device="cpu")
    spectrum = torch.polar(magnitude, drawn.to(device) * 2 * torch.pi)
    for _ in range(iterations):
        samples = torch.istft(spectrum, *sizes, length=length)
        again = torch.stft(samples, *sizes, return_complex=True, pad_mode="constant")[:, : magnitude.shape[1]]
        spectrum = torch.polar(magnitude, again.angle())
    return torch.istft(spectrum, *sizes, length=length)
