"""CTC compression by removing blanks: frames whose best label is the blank say nothing (Wu et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unitok.frontends.adapters.base import BLANK, at_least_one, compact
from unitok.frontends.adapters.ctc_compression import CtcCompression


@dataclass(frozen=True, kw_only=True)
class BlankRemovalConfig:
    """Options of `blank_removal`: none."""


class BlankRemovalAdapter(CtcCompression):
    """The frames that are not blank, projected; of an all-blank recording the least blank one."""

    name, Config = "blank_removal", BlankRemovalConfig

    def compress(self, frames: Tensor, lengths: Tensor, ctc: Tensor) -> tuple[Tensor, Tensor]:
        """See `CtcCompression`."""
        keep = at_least_one(ctc.argmax(-1) != BLANK, -ctc[..., BLANK], lengths)
        return compact(frames, keep)
