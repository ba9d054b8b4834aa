"""Stacking: neighboring frames side by side, then one linear map (Fathullah et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, shorter, stack


@dataclass(frozen=True, kw_only=True)
class StackingConfig:
    """Options of `stacking`."""

    stride: int = 4
    """Frames per vector."""

    def __post_init__(self) -> None:
        check_positive("stride", self.stride)


class StackingAdapter(Adapter):
    """⌈T / stride⌉ vectors. The same as a convolution whose kernel is its stride."""

    name, Config = "stacking", StackingConfig

    def __init__(self, config: StackingConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.project = nn.Linear(config.stride * sizes.frames, sizes.vectors)

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        return self.project(stack(frames, self.config.stride)), shorter(lengths, self.config.stride)
