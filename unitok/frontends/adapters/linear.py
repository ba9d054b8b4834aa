"""Linear projector: neighboring frames side by side, then linear, ReLU, linear (Ma et al. 2024, SLAM-ASR)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, shorter, stack


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Options of `linear`."""

    stride: int = 5
    """Frames per vector."""
    hidden: int = 2048
    """Width between the two maps."""

    def __post_init__(self) -> None:
        check_positive("stride", self.stride)
        check_positive("hidden", self.hidden)


class LinearAdapter(Adapter):
    """⌈T / stride⌉ vectors."""

    name, Config = "linear", LinearConfig

    def __init__(self, config: LinearConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.project = nn.Sequential(
            nn.Linear(config.stride * sizes.frames, config.hidden), nn.ReLU(), nn.Linear(config.hidden, sizes.vectors)
        )

    def length(self, frames: int) -> int:
        """⌈frames / stride⌉."""
        return -(-frames // self.config.stride)

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        return self.project(stack(frames, self.config.stride)), shorter(lengths, self.config.stride)
