"""The first pass of `first_nar` and `first_regress`: the decoder says codebook 0, a second pass the rest of a span.

The other codebooks have slots that nobody predicts step by step. Frames that are given whole (voice prompts, noisy
speech, a beginning to continue) may enter the decoder by codebook 0 alone, as VALL-E has it, or as sums of codebooks.

P positions with slots, B sequences, C width, S slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import INITIAL_SCALE
from unitok.layouts.base import Choose, CodebookLayout, SlotLosses
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo

FIRST_NAR, FIRST_REGRESS = "first_nar", "first_regress"
"""Names of the two layouts: what the second pass predicts, codes or the codec's latents."""


@dataclass(frozen=True, kw_only=True)
class FirstConfig:
    """How the first pass reads."""

    width: int
    """C of the decoder."""
    sums: bool = False
    """Frames that are given enter as the sum of all their codebooks; by codebook 0 alone otherwise."""


def first_nar_pattern(stream: StreamInfo) -> FramePattern:
    """Codebook 0 in the sequence, the others refined."""
    return _pattern(FIRST_NAR, stream)


def first_regress_pattern(stream: StreamInfo) -> FramePattern:
    """Codebook 0 in the sequence; the others only in what is given, and in the latents that are predicted."""
    return _pattern(FIRST_REGRESS, stream)


def _pattern(layout: str, stream: StreamInfo) -> FramePattern:
    slots = tuple(
        SlotSpec(stream=stream.name, codebook=book, size=size, role="refined", group=stream.name)
        for book, size in enumerate(stream.cardinalities)
        if book
    )
    return FramePattern(
        layout=layout, stream=stream.name, cardinalities=tuple(stream.cardinalities), inline=(0,), slots=slots
    )


def readable(pattern: FramePattern, slots: Tensor, weight: Tensor) -> Tensor:
    """Slots (P, S) as the decoder may read them: refined ones only where a position is given, `weight` (P,) being 0.

    While it writes it does not know them, so that it must not learn to rely on them.
    """
    refined = torch.tensor([slot.role == "refined" for slot in pattern.slots], device=slots.device)
    return slots.masked_fill((weight > 0)[:, None] & refined, ABSENT)


class FirstPass(CodebookLayout):
    """What the refined slots add to the decoder's input, and nothing else: they have no loss and no step here.

    Args:
        pattern: where codes stand.
        options: how it reads.
        generator: draws the initial weights; torch's default generator where None.
    """

    def __init__(
        self, pattern: FramePattern, options: FirstConfig, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(pattern)
        self.options = options
        sizes = [slot.size for slot in pattern.slots] if options.sums else []
        self.tables = nn.ParameterList(torch.empty(size, options.width) for size in sizes)
        for table in self.tables:
            nn.init.normal_(table, 0.0, INITIAL_SCALE, generator=generator)

    def vectors(self, slots: Tensor) -> Tensor:
        """(P, S) → (P, C): zeros, or sums of the rows of the codes that are there (see `readable`)."""
        total = torch.zeros(len(slots), self.options.width, device=slots.device)
        for table, column in zip(self.tables, slots.unbind(1)):
            total = total + functional.embedding(column.clamp(min=0), table) * (column >= 0)[:, None]
        return total

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Nothing: zeros (S,)."""
        none = torch.zeros(slots.shape[1], device=hidden.device)
        return SlotLosses(total=none, weight=none)

    def step(self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
        """Absent codes (B, S) and zeros: the second pass finds them when the span stands."""
        shape = len(hidden), len(self.pattern.slots)
        return torch.full(shape, ABSENT, device=hidden.device), torch.zeros(shape, device=hidden.device)

    def config(self) -> dict[str, Any]:
        """What builds it again; JSON."""
        return {
            "class": self.pattern.layout,
            "pattern": self.pattern.to_json(),
            "width": self.options.width,
            "sums": self.options.sums,
        }

    @staticmethod
    def from_config(config: dict[str, Any], generator: torch.Generator | None = None) -> FirstPass:
        """With fresh weights, from what `config` gave."""
        options = FirstConfig(width=config["width"], sums=config["sums"])
        return FirstPass(FramePattern.from_json(config["pattern"]), options, generator=generator)
