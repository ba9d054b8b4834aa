"""Strided convolution and Transformer layers: a small encoder between encoder and decoder (Hono et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.frontends.adapters.base import (
    Adapter,
    AdapterSizes,
    check_heads,
    check_not_negative,
    check_positive,
    shorter,
)
from unitok.frontends.adapters.convolution import StridedConvolution
from unitok_tokenizers.encoders.networks.attention import TransformerLayer, inside


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Options of `transformer`."""

    stride: int = 4
    """Frames per vector."""
    kernel: int = 0
    """Kernel of the convolution in frames, never less than the stride."""
    layers: int = 2
    """Transformer layers."""
    heads: int = 4
    """Heads of their attention; the decoder's width must be a multiple of twice as many."""

    def __post_init__(self) -> None:
        for name in ("stride", "layers", "heads"):
            check_positive(name, getattr(self, name))
        check_not_negative("kernel", self.kernel)


class TransformerAdapter(Adapter):
    """⌈T / stride⌉ vectors that have seen one another in both directions."""

    name, Config = "transformer", TransformerConfig

    def __init__(self, config: TransformerConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        width = sizes.vectors
        check_heads(width, config.heads, "the decoder's width")
        self.down = StridedConvolution(sizes.frames, width, config.stride, config.kernel)
        self.layers = nn.ModuleList(TransformerLayer(width, config.heads, 4 * width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        x, sizes = self.down(frames), shorter(lengths, self.config.stride)
        mask = inside(sizes, x.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x), sizes
