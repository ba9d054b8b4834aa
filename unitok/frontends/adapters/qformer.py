"""Q-Former: learned queries read a whole recording into a fixed number of vectors (Li et al. 2023; Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_heads, check_positive
from unitok_tokenizers.encoders.networks.attention import QueryLayer, inside


@dataclass(frozen=True, kw_only=True)
class QFormerConfig:
    """Options of `qformer`."""

    queries: int = 32
    """Vectors of every recording."""
    layers: int = 2
    """Layers of self-attention, cross-attention and feed-forward."""
    heads: int = 4
    """Heads; the width must be a multiple of twice as many."""
    width: int = 256
    """Width of the queries."""

    def __post_init__(self) -> None:
        for name in ("queries", "layers", "heads", "width"):
            check_positive(name, getattr(self, name))


class QueryReader(nn.Module):
    """Queries (N, W) that read frames (B, T, D) → (B, N, C)."""

    def __init__(self, queries: int, layers: int, heads: int, width: int, sizes: AdapterSizes) -> None:
        super().__init__()
        check_heads(width, heads, "adapter.width")
        self.queries = nn.Parameter(0.5 * torch.randn(queries, width))
        self.frame_norm = nn.LayerNorm(sizes.frames)
        self.layers = nn.ModuleList(QueryLayer(width, heads, 4 * width, sizes.frames) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, sizes.vectors)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """frames (B, T, D), mask (B, T) with at least one True a row → (B, N, C)."""
        x = self.queries.expand(len(frames), -1, -1)
        frames = self.frame_norm(frames)
        for layer in self.layers:
            x = layer(x, frames, mask)
        return self.project(self.norm(x))


class QFormerAdapter(Adapter):
    """As many vectors as there are queries, whatever the length."""

    name, Config = "qformer", QFormerConfig

    def __init__(self, config: QFormerConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.reader = QueryReader(config.queries, config.layers, config.heads, config.width, sizes)

    def length(self, frames: int) -> int:
        """The number of queries."""
        return self.config.queries

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        vectors = self.reader(frames, inside(lengths, frames.shape[1]))
        return vectors, torch.full_like(lengths, self.config.queries)
