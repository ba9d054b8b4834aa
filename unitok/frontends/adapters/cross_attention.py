"""Multi-head cross-attention from learned queries, without layers around it (Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_heads, check_positive
from unitok_tokenizers.encoders.networks.attention import Attention, inside


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig:
    """Options of `cross_attention`."""

    queries: int = 32
    """Vectors of every recording."""
    heads: int = 4
    """Heads; the decoder's width must be a multiple of twice as many."""

    def __post_init__(self) -> None:
        check_positive("queries", self.queries)
        check_positive("heads", self.heads)


class CrossAttentionAdapter(Adapter):
    """As many vectors as there are queries, whatever the length."""

    name, Config = "cross_attention", CrossAttentionConfig

    def __init__(self, config: CrossAttentionConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        check_heads(sizes.vectors, config.heads, "the decoder's width")
        self.queries = nn.Parameter(torch.randn(config.queries, sizes.vectors))
        self.attention = Attention(sizes.vectors, config.heads, context_width=sizes.frames)
        self.norm = nn.LayerNorm(sizes.vectors)

    def length(self, frames: int) -> int:
        """The number of queries."""
        return self.config.queries

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        queries = self.queries.expand(len(frames), -1, -1)
        mixed = self.attention(queries, frames, inside(lengths, frames.shape[1]))
        return self.norm(mixed), torch.full_like(lengths, self.config.queries)
