"""CTC compression by removing blanks: frames whose best label is the blank say nothing (Wu et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from unitok.adapters.base import BLANK, Adapter, AdapterSizes, at_least_one, compact


@dataclass(frozen=True, kw_only=True)
class BlankRemovalConfig:
    """Options of `blank_removal`: none."""


class BlankRemovalAdapter(Adapter):
    """The frames that are not blank, projected; of an all-blank recording the least blank one."""

    name, Config = "blank_removal", BlankRemovalConfig
    by_content, needs_labels = True, True

    def __init__(self, config: BlankRemovalConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.project = nn.Linear(sizes.frames, sizes.vectors)

    def length(self, frames: int) -> int:
        """At most all frames."""
        return frames

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        assert ctc is not None
        keep = at_least_one(ctc.argmax(-1) != BLANK, -ctc[..., BLANK], lengths)
        kept, sizes = compact(frames, keep)
        return self.project(kept), sizes
