"""Codes that are heard and never said: their rows are added to those of the ids, and nothing of them is predicted.

So reads a recognizer that writes text beside the codes of what it hears (Kyutai's speech to text).

P positions, S slots, C width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.configured import ConfiguredLayout
from unitok.layouts.slots import SlotTables, drawn, no_losses
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class InputOnlyConfig:
    """Options: none."""


class InputOnlyLayout(ConfiguredLayout):
    """Every codebook beside the ids, read and not predicted; one row, for all slots, stands for absence."""

    name = "input_only"
    Config = InputOnlyConfig

    def __init__(
        self,
        options: InputOnlyConfig,
        pattern: FramePattern,
        *,
        width: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        self.tables = SlotTables([slot.size for slot in pattern.slots], width, generator=generator)
        self.absent = nn.Parameter(drawn(1, width, generator=generator).detach())

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: InputOnlyConfig) -> FramePattern:
        """All codebooks as slots, without delays."""
        slots = [
            SlotSpec(stream=stream.name, codebook=book, size=size, role="input-only")
            for book, size in enumerate(stream.cardinalities)
        ]
        return FramePattern(
            layout=cls.name, stream=stream.name, cardinalities=stream.cardinalities, inline=(), slots=tuple(slots)
        )

    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""
        missing = (slots == ABSENT).sum(1, keepdim=True)
        return self.tables.total(slots) + missing.to(self.absent.dtype) * self.absent

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """None of any slot; see `CodebookLayout.losses`."""
        return no_losses(self, len(self.pattern.slots), hidden.device)

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """No codes: these are given; see `CodebookLayout.step`."""
        slots = torch.full((len(hidden), len(self.pattern.slots)), ABSENT, dtype=torch.int64, device=hidden.device)
        return slots, torch.zeros(slots.shape, dtype=torch.float32, device=hidden.device)
