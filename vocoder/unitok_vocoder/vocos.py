"""Vocos (Siuzdak 2023): frames → ConvNeXt backbone → magnitude and phase → inverse STFT.

B batch, F frames, D channels of a frame, C width, N FFT bins, S samples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.encoders.networks.convolution import ConvBlock, convolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.float32_buffers import Float32Buffers


@dataclass(frozen=True, kw_only=True)
class VocosConfig:
    """Sizes of the network."""

    width: int = 192
    """Channels of the backbone."""
    blocks: int = 6
    """Blocks of the backbone."""
    n_fft: int = 0
    """FFT size of the synthesis in samples; 0 for four hops."""


class IstftHead(Float32Buffers):
    """Hidden states → complex spectrum → samples."""

    def __init__(self, width: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.out = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.window: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, C) → (B, F · hop)."""
        # Of a module in half precision the last map is computed in float32: a phase is rounded by what it has turned.
        made = functional.linear(x.float(), self.out.weight.float(), self.out.bias.float())
        log_magnitude, phase = made.float().transpose(1, 2).chunk(2, dim=1)  # (B, N, F)
        spectrum = torch.polar(log_magnitude.clamp(max=6.0).exp(), phase)
        # One repeated frame behind the end, so that the last hop is covered by two windows like every other.
        spectrum = torch.cat([spectrum, spectrum[:, :, -1:]], dim=2)
        length = (spectrum.shape[2] - 1) * self.hop
        return torch.istft(spectrum, self.n_fft, self.hop, self.n_fft, self.window, length=length)


class Vocos(nn.Module):
    """Frames (B, F, D) → samples (B, F · hop)."""

    Config = VocosConfig
    weight_normed = False

    def __init__(self, config: VocosConfig, features: int, hop: int) -> None:
        super().__init__()
        self.sizes, self.hop = config, hop
        self.front = nn.Conv1d(features, config.width, 7, padding=3)
        self.norm_in = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(ConvBlock(config.width, 7, 3, 0.0) for _ in range(config.blocks))
        self.norm_out = nn.LayerNorm(config.width)
        n_fft = config.n_fft or 4 * hop
        if n_fft % 2 or n_fft < 2 * hop:
            raise InputError(f"vocos.n_fft is {n_fft}: it must be even, and two hops of {hop} samples at least")
        self.head = IstftHead(config.width, n_fft, hop)

    @property
    def reach(self) -> int:
        """Frames on either side that a sample depends on."""
        windows = -(-self.head.n_fft // (2 * self.hop)) + 1
        return self.front.kernel_size[0] // 2 + reach(self.blocks) + windows

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, F, D) → samples (B, F · hop)."""
        x = self.norm_in(convolve(self.front, frames.to(self.front.weight.dtype)))  # (B, F, C)
        mask = torch.ones(1, 1, 1, dtype=x.dtype, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        samples: Tensor = self.head(self.norm_out(x))
        return samples


def reach(blocks: Iterable[nn.Module]) -> int:
    """Neighbors on either side that a stack of blocks looks at."""
    return sum(block.depthwise.kernel_size[0] // 2 for block in blocks if isinstance(block, ConvBlock))
