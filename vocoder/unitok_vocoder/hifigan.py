"""HiFi-GAN's generator (Kong et al. 2020): transposed convolutions, each followed by fused receptive fields.

B batch, F frames, D channels of a frame, C width, R samples of a stage, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.errors import InputError

KERNELS, DILATIONS = (3, 7, 11), (1, 3, 5)
"""Of the residual blocks that are fused, and of the convolutions in each (the published V1)."""
LARGEST_RATE = 8
"""Most samples that one transposed convolution makes of one."""
SLOPE = 0.1
"""Of the leaky ReLU."""


@dataclass(frozen=True, kw_only=True)
class HifiGanConfig:
    """Sizes of the network."""

    width: int = 256
    """Channels behind the first convolution, halved at every stage; 512 in the published V1."""
    fields: int = 3
    """How many residual blocks of growing kernels are fused, 1 to 3."""

    def __post_init__(self) -> None:
        if not 1 <= self.fields <= len(KERNELS):
            raise InputError(f"hifigan.fields is {self.fields}: choose 1 to {len(KERNELS)}")


def rates_of(hop: int) -> tuple[int, ...]:
    """Factors of a hop in samples, the largest first, none above `LARGEST_RATE`: 160 → 8, 5, 4.

    Raises:
        InputError: a hop that has a larger prime factor.
    """
    rest, found = hop, []
    while rest > 1:
        factor = next((one for one in range(LARGEST_RATE, 1, -1) if rest % one == 0), 0)
        if not factor:
            raise InputError(f"a hop of {hop} samples has the prime factor {rest}: HiFi-GAN cannot make it; take vocos")
        found.append(factor)
        rest //= factor
    return tuple(found)


class ResidualBlock(nn.Module):
    """Dilated convolutions, each with one that is not dilated behind it."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=one, padding=one * (kernel - 1) // 2) for one in DILATIONS
        )
        self.plain = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2) for _ in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, R) → (B, C, R)."""
        for dilated, plain in zip(self.dilated, self.plain):
            x = x + plain(functional.leaky_relu(dilated(functional.leaky_relu(x, SLOPE)), SLOPE))
        return x


class HifiGan(nn.Module):
    """Frames (B, F, D) → samples (B, F · hop)."""

    Config = HifiGanConfig
    weight_normed = True

    def __init__(self, config: HifiGanConfig, features: int, hop: int) -> None:
        super().__init__()
        self.sizes, self.hop = config, hop
        self.rates = rates_of(hop)
        widths = [max(4, config.width >> stage) for stage in range(len(self.rates) + 1)]
        self.front = nn.Conv1d(features, widths[0], 7, padding=3)
        # A kernel of two rates, one more where the rate is odd: then F frames become F · rate, no more and no less.
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(before, after, 2 * rate + rate % 2, rate, padding=(rate + rate % 2) // 2)
            for rate, before, after in zip(self.rates, widths, widths[1:])
        )
        self.fused = nn.ModuleList(
            nn.ModuleList(ResidualBlock(width, kernel) for kernel in KERNELS[: config.fields]) for width in widths[1:]
        )
        self.out = nn.Conv1d(widths[-1], 1, 7, padding=3)

    @property
    def reach(self) -> int:
        """Frames on either side that a sample depends on, at most."""
        kernel = KERNELS[self.sizes.fields - 1]
        field = sum((kernel - 1) // 2 * (one + 1) for one in DILATIONS)
        side, size = 3.0, 1.0  # in frames: the first convolution; how long a sample of the stage is
        for rate in self.rates:
            side += 2 * size  # a transposed kernel reaches over two samples of the stage before
            size /= rate
            side += field * size
        return int(side + 3 * size) + 1

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, F, D) → samples (B, F · hop)."""
        x = self.front(frames.to(self.front.weight.dtype).transpose(1, 2))
        for up, fields in zip(self.up, self.fused):
            assert isinstance(fields, nn.ModuleList)
            x = up(functional.leaky_relu(x, SLOPE))
            x = torch.stack([field(x) for field in fields]).mean(0)
        return torch.tanh(self.out(functional.leaky_relu(x))[:, 0].float())
