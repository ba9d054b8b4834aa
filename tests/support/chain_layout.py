"""A layout of codebooks as small as one can be: each slot is predicted from the state, the id and the codes before it.

P positions, B sequences, C width, S slots, V codes of a slot.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.layouts.base import Choose, CodebookLayout, SlotLosses
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern


class ChainLayout(CodebookLayout):
    """Tables and heads of random weights; delays are heeded."""

    def __init__(self, pattern: FramePattern, width: int, seed: int = 0) -> None:
        super().__init__(pattern)
        draw = torch.Generator().manual_seed(seed)
        sizes = [(slot.size, width) for slot in pattern.slots]
        self.tables = nn.ParameterList(nn.Parameter(torch.randn(size, generator=draw)) for size in sizes)
        self.heads = nn.ParameterList(nn.Parameter(torch.randn(size, generator=draw)) for size in sizes)

    def row(self, slot: int, codes: Tensor) -> Tensor:
        """(P,) codes → (P, C), nothing where there is none."""
        found = functional.embedding(codes.clamp_min(0), self.tables[slot])
        return found * (codes != ABSENT)[:, None]

    def vectors(self, slots: Tensor) -> Tensor:
        return torch.stack([self.row(slot, codes) for slot, codes in enumerate(slots.unbind(1))]).sum(0)

    def logits(self, hidden: Tensor, rows: Tensor, slots: Tensor, slot: int) -> Tensor:
        """(P, V) of a slot, the codes before it known."""
        x = hidden + rows
        for earlier in range(slot):
            x = x + self.row(earlier, slots[:, earlier])
        return functional.linear(x, self.heads[slot])

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        totals, weights = [], []
        for slot, one in enumerate(self.pattern.slots):
            target, there = slots[:, slot], (slots[:, slot] != ABSENT) * weight * (one.role == "predicted")
            each = functional.cross_entropy(
                self.logits(hidden, rows, slots, slot).float(), target.clamp_min(0), reduction="none"
            )
            totals.append((each * there).sum())
            weights.append(there.sum())
        return SlotLosses(total=torch.stack(totals), weight=torch.stack(weights).float())

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        shape = len(rows), len(self.pattern.slots)
        slots, logprobs = torch.full(shape, ABSENT), torch.zeros(shape)
        for slot, one in enumerate(self.pattern.slots):
            codes, chosen = choose(slot, self.logits(hidden, rows, slots, slot))
            there = (before >= one.delay) & (one.role == "predicted")
            if behind is not None:
                there &= (behind == 0) | (behind <= one.delay)
            slots[:, slot], logprobs[:, slot] = torch.where(there, codes, ABSENT), torch.where(there, chosen, 0.0)
        return slots, logprobs

    def config(self) -> dict[str, Any]:
        return {"pattern": self.pattern.to_json(), "width": self.tables[0].shape[1]}
