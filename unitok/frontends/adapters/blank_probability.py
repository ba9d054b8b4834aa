"""CTC compression by the blank's probability: frames above a threshold are dropped (Ling et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unitok.frontends.adapters.base import BLANK, at_least_one, compact
from unitok.frontends.adapters.ctc_compression import CtcCompression
from unitok_tokenizers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class BlankProbabilityConfig:
    """Options of `blank_probability`."""

    threshold: float = 0.95
    """Frames whose blank is more probable are dropped; 1 keeps all."""

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise InputError(f"adapter.threshold is {self.threshold}: it lies between 0 and 1")


class BlankProbabilityAdapter(CtcCompression):
    """The frames that may say something, projected; of a recording without any the least blank one."""

    name, Config = "blank_probability", BlankProbabilityConfig

    def compress(self, frames: Tensor, lengths: Tensor, ctc: Tensor) -> tuple[Tensor, Tensor]:
        """See `CtcCompression`."""
        blank = ctc[..., BLANK].exp()
        keep = blank.clamp(max=1.0) <= self.config.threshold  # a probability may be rounded above 1
        return compact(frames, at_least_one(keep, -blank, lengths))
