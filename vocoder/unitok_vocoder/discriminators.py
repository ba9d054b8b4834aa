"""Discriminators of waveforms: many periods (Kong et al. 2020), complex spectra of many scales (Défossez et al. 2022).

B batch, S samples, P period in samples, T frames, N FFT bins, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

PERIODS = (2, 3, 5, 7, 11)
"""Samples: primes, so that no two see the same ones."""
SCALES = (2048, 1024, 512, 256, 128)
"""FFT sizes in samples; the hop is a quarter."""
SLOPE = 0.1


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one discriminator says of a waveform."""

    score: Tensor
    """(B, …): above 0 for what it takes to be real, place by place."""
    features: tuple[Tensor, ...]
    """(B, C, …) behind every layer but the last."""


class PeriodDiscriminator(nn.Module):
    """Looks at every P-th sample, as a picture of S/P rows and P columns."""

    def __init__(self, period: int, width: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, width, 4 * width, 16 * width, 32 * width, 32 * width]
        strides = (3, 3, 3, 3, 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(before, after, (5, 1), (stride, 1), padding=(2, 0)))
            for before, after, stride in zip(widths, widths[1:], strides)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> Judged:
        """(B, S) with S > P."""
        padded = functional.pad(samples[:, None], (0, -samples.shape[1] % self.period), mode="reflect")
        x = padded.view(len(samples), 1, -1, self.period)  # (B, 1, S/P, P)
        found = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            found.append(x)
        return Judged(score=self.out(x).flatten(1), features=tuple(found))


class SpectrumDiscriminator(nn.Module):
    """Looks at real and imaginary parts of a spectrogram, over more and more frames."""

    def __init__(self, n_fft: int, width: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.layers = nn.ModuleList([weight_norm(nn.Conv2d(2, width, (3, 9), padding=(1, 4)))])
        for dilation in (1, 2, 4):
            layer = nn.Conv2d(width, width, (3, 9), (1, 2), padding=(dilation, 4), dilation=(dilation, 1))
            self.layers.append(weight_norm(layer))
        self.layers.append(weight_norm(nn.Conv2d(width, width, (3, 3), padding=(1, 1))))
        self.out = weight_norm(nn.Conv2d(width, 1, (3, 3), padding=(1, 1)))

    def forward(self, samples: Tensor) -> Judged:
        """(B, S) with S > half of the FFT size."""
        window = torch.hann_window(self.n_fft, device=samples.device)
        sizes = (self.n_fft, self.n_fft // 4, self.n_fft, window)
        spectrum = torch.stft(samples, *sizes, normalized=True, return_complex=True)  # (B, N, T)
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # (B, 2, T, N)
        found = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), SLOPE)
            found.append(x)
        return Judged(score=self.out(x).flatten(1), features=tuple(found))


class Discriminators(nn.Module):
    """All of them.

    Args:
        width: channels of the first layers, 32 as published.
        periods: see `PERIODS`.
        scales: see `SCALES`; the largest is at most twice the samples that are looked at.
    """

    def __init__(self, width: int = 32, periods: Sequence[int] = PERIODS, scales: Sequence[int] = SCALES) -> None:
        super().__init__()
        parts = [*(PeriodDiscriminator(one, width) for one in periods)]
        self.parts = nn.ModuleList([*parts, *(SpectrumDiscriminator(one, width) for one in scales)])

    def forward(self, samples: Tensor) -> list[Judged]:
        """(B, S) → what each says."""
        return [part(samples) for part in self.parts]
