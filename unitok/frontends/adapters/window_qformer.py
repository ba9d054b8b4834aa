"""Window-level Q-Former: the queries read one short window after another (Tang et al. 2024, SALMONN)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, shorter, stack
from unitok.frontends.adapters.qformer import QueryReader
from unitok_tokenizers.encoders.networks.attention import inside


@dataclass(frozen=True, kw_only=True)
class WindowQFormerConfig:
    """Options of `window_qformer`."""

    window: int = 17
    """Frames of a window (a third of a second at 50 Hz)."""
    queries: int = 1
    """Vectors per window."""
    layers: int = 2
    """Layers of self-attention, cross-attention and feed-forward."""
    heads: int = 4
    """Heads; the width must be a multiple of twice as many."""
    width: int = 256
    """Width of the queries."""

    def __post_init__(self) -> None:
        for name in ("window", "queries", "layers", "heads", "width"):
            check_positive(name, getattr(self, name))


class WindowQFormerAdapter(Adapter):
    """⌈T / window⌉ · queries vectors; those of a window depend on its frames alone."""

    name, Config = "window_qformer", WindowQFormerConfig

    def __init__(self, config: WindowQFormerConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.reader = QueryReader(config.queries, config.layers, config.heads, config.width, sizes)

    def length(self, frames: int) -> int:
        """⌈frames / window⌉ · queries."""
        return -(-frames // self.config.window) * self.config.queries

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        size = self.config.window
        windows = stack(frames, size).unflatten(2, (size, -1))  # (B, W, L, D)
        mask = stack(inside(lengths, frames.shape[1])[..., None], size)  # (B, W, L)
        mask[..., 0] = True  # windows of padding alone are cut off below; a softmax over nothing is not a number
        vectors = self.reader(windows.flatten(0, 1), mask.flatten(0, 1))  # (B · W, N, C)
        vectors = vectors.unflatten(0, windows.shape[:2]).flatten(1, 2)
        return vectors, shorter(lengths, size) * self.config.queries
