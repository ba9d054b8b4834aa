"""Downsampling and fully connected layers (Yu et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, shorter, stack


@dataclass(frozen=True, kw_only=True)
class FullyConnectedConfig:
    """Options of `fully_connected`."""

    stride: int = 4
    """Frames per vector."""
    hidden: int = 512
    """Width of the hidden layers."""
    layers: int = 2
    """Hidden layers."""

    def __post_init__(self) -> None:
        for name in ("stride", "hidden", "layers"):
            check_positive(name, getattr(self, name))


class FullyConnectedAdapter(Adapter):
    """⌈T / stride⌉ vectors; norm and GELU in every layer."""

    name, Config = "fully_connected", FullyConnectedConfig

    def __init__(self, config: FullyConnectedConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        parts: list[nn.Module] = []
        width = config.stride * sizes.frames
        for _ in range(config.layers):
            parts += [nn.Linear(width, config.hidden), nn.LayerNorm(config.hidden), nn.GELU()]
            width = config.hidden
        self.project = nn.Sequential(*parts, nn.Linear(width, sizes.vectors))

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        return self.project(stack(frames, self.config.stride)), shorter(lengths, self.config.stride)
