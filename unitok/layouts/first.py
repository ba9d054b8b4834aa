"""The first pass of `first_nar` and `first_regress`: the decoder says codebook 0, a second pass the rest of a span.

The other codebooks have slots that nobody predicts step by step. Frames that are given whole (voice prompts, noisy
speech, a beginning to continue) may enter the decoder by codebook 0 alone, as VALL-E has it, or as sums of codebooks.

P positions with slots, B sequences, C width, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.configured import ConfiguredLayout, books_beside
from unitok.layouts.slots import SlotTables, no_losses
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class FirstConfig:
    """Options of a first pass."""

    sums: bool = False
    """Frames that are given enter as the sum of all their codebooks; by codebook 0 alone otherwise."""


class FirstNarLayout(ConfiguredLayout):
    """Codebook 0 inline, the others refined (VALL-E): no loss and no step here, only what given frames add."""

    name = "first_nar"
    Config = FirstConfig
    options: FirstConfig

    def __init__(
        self, options: FirstConfig, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        sizes = [slot.size for slot in pattern.slots]
        self.tables = SlotTables(sizes, width, generator=generator) if options.sums else None

    def vectors(self, slots: Tensor) -> Tensor:
        """(P, S) → (P, C): zeros, or sums of the rows of the codes that are there (see `readable`)."""
        if self.tables is None:
            return torch.zeros(len(slots), self.width, device=slots.device)
        return self.tables.total(slots)

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Nothing: zeros (S,), which hang on the state."""
        nothing = no_losses(self, len(self.pattern.slots), hidden.device)
        return SlotLosses(total=nothing.total + 0 * hidden.sum().float(), weight=nothing.weight)

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Absent codes (B, S) and zeros: the second pass finds them when the span stands."""
        shape = len(hidden), len(self.pattern.slots)
        return torch.full(shape, ABSENT, device=hidden.device), torch.zeros(shape, device=hidden.device)

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: FirstConfig) -> FramePattern:
        """Codebook 0 in the sequence, the others refined; InputError for a stream of one codebook."""
        slots = tuple(
            SlotSpec(stream=stream.name, codebook=book, size=stream.cardinalities[book], role="refined")
            for book in books_beside(stream, cls.name)
        )
        return FramePattern(
            layout=cls.name, stream=stream.name, cardinalities=stream.cardinalities, inline=(0,), slots=slots
        )


class FirstRegressLayout(FirstNarLayout):
    """The same before a regression (LauraGPT): the other codebooks are in what is given alone, and in the latents."""

    name = "first_regress"


def readable(pattern: FramePattern, slots: Tensor, weight: Tensor) -> Tensor:
    """Slots (P, S) as the decoder may read them: refined ones only where a position is given, `weight` (P,) being 0.

    While it writes it does not know them, so that it must not learn to rely on them.
    """
    refined = torch.tensor([slot.role == "refined" for slot in pattern.slots], device=slots.device)
    return slots.masked_fill((weight > 0)[:, None] & refined, ABSENT)
