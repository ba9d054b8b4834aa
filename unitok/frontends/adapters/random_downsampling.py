"""Random downsampling: a random ordered subset of the frames, drawn anew at every step (Wang et al. 2023, SLM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes, check_positive, compact, shorter
from unitok_tokenizers.encoders.networks.attention import inside


@dataclass(frozen=True, kw_only=True)
class RandomDownsamplingConfig:
    """Options of `random_downsampling`."""

    rate: int = 4
    """One of so many frames is kept."""
    hidden: int = 512
    """Width of the hidden layer of the projection."""

    def __post_init__(self) -> None:
        check_positive("rate", self.rate)
        check_positive("hidden", self.hidden)


class RandomDownsamplingAdapter(Adapter):
    """⌈T / rate⌉ vectors: random frames in training, by torch's own random state; every rate-th one otherwise."""

    name, Config = "random_downsampling", RandomDownsamplingConfig

    def __init__(self, config: RandomDownsamplingConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.project = nn.Sequential(
            nn.Linear(sizes.frames, config.hidden), nn.GELU(), nn.Linear(config.hidden, sizes.vectors)
        )

    def length(self, frames: int) -> int:
        """⌈frames / rate⌉."""
        return -(-frames // self.config.rate)

    def kept(self, lengths: Tensor, size: int) -> Tensor:
        """(B, size) bool, ⌈length / rate⌉ of each row True."""
        valid = inside(lengths, size)
        if not self.training:
            return valid & (torch.arange(size, device=lengths.device) % self.config.rate == 0)
        draws = torch.rand(valid.shape, device=lengths.device).masked_fill(~valid, math.inf)
        rank = draws.argsort(1).argsort(1)
        return rank < shorter(lengths, self.config.rate)[:, None]

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        chosen, sizes = compact(frames, self.kept(lengths, frames.shape[1]))
        return self.project(chosen), sizes
