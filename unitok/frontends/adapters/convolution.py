"""Convolutional downsampling: a strided convolution, then linear, GELU, linear (Yang et al. 2024, MaLa-ASR)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_not_negative, check_positive, shorter


@dataclass(frozen=True, kw_only=True)
class ConvolutionConfig:
    """Options of `convolution`."""

    stride: int = 4
    """Frames per vector."""
    kernel: int = 0
    """Frames that a vector looks at, never fewer than the stride."""
    hidden: int = 0
    """Width between the two linear maps; no maps behind the convolution where 0."""

    def __post_init__(self) -> None:
        check_positive("stride", self.stride)
        check_not_negative("kernel", self.kernel)
        check_not_negative("hidden", self.hidden)


class StridedConvolution(nn.Module):
    """(B, T, D) → (B, ⌈T / stride⌉, C); a kernel wider than the stride reaches equally far to both sides."""

    def __init__(self, width: int, out: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.stride, self.kernel = stride, max(kernel, stride)
        self.conv = nn.Conv1d(width, out, self.kernel, stride=stride)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames behind a row's end must be zero."""
        count = -(-frames.shape[1] // self.stride)
        before = (self.kernel - self.stride) // 2
        after = (count - 1) * self.stride + self.kernel - before - frames.shape[1]
        padded = functional.pad(frames.transpose(1, 2), (before, max(after, 0)))
        return self.conv(padded).transpose(1, 2)


class ConvolutionAdapter(Adapter):
    """⌈T / stride⌉ vectors."""

    name, Config = "convolution", ConvolutionConfig

    def __init__(self, config: ConvolutionConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        inner = config.hidden or sizes.vectors
        self.down = StridedConvolution(sizes.frames, inner, config.stride, config.kernel)
        self.maps: nn.Module = nn.Identity()
        if config.hidden:
            self.maps = nn.Sequential(nn.GELU(), nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, sizes.vectors))

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        return self.maps(self.down(frames)), shorter(lengths, self.config.stride)
