"""Parallel heads: every slot of a position is predicted from the same state, as if the others were not there.

One product a position, and no slot knows what another holds: the baseline that a depth decoder is measured against,
and what patterns of delays and channels of a spectrogram are built of.

P positions, S slots, K predicted slots, B sequences, C width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.configured import ConfiguredLayout, books_beside
from unitok.layouts.slots import (
    SlotHeads,
    SlotTables,
    counted_positions,
    drawn,
    expected,
    no_losses,
    predicted_columns,
    read_columns,
    span,
    weighed,
)
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Options of parallel heads."""

    reads_id: bool = False
    """The position's id, which is known by then, is read as well as the state: a matrix (C, C) more."""
    absent_rows: bool = False
    """Absence has a row in the tables; else it adds nothing."""


class HeadsLayout(ConfiguredLayout):
    """What layouts with parallel heads do; their `Config` has what `ParallelConfig` has.

    MusicGen's heads read the state alone (`reads_id=False`).
    """

    def __init__(
        self, options: Any, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        self.read, self.predicted = read_columns(pattern), predicted_columns(pattern)
        self.tables = self.make_tables(generator)
        self.from_id = drawn(width, width, generator=generator) if options.reads_id else None
        self.heads = SlotHeads(self.class_counts(), width, generator=generator)

    def make_tables(self, generator: torch.Generator | None) -> SlotTables:
        """Rows of the slots that are read."""
        sizes = [self.pattern.slots[column].size for column in self.read]
        return SlotTables(sizes, self.width, absent_rows=self.options.absent_rows, generator=generator)

    def class_counts(self) -> list[int]:
        """Classes of each predicted slot: its codes, and behind them absence, where that is predicted."""
        return [self.pattern.slots[column].size for column in self.predicted]

    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""
        return self.tables.total(slots[:, span(self.read)])

    def states(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """What heads read, (P, C)."""
        if self.from_id is None:
            return hidden
        return hidden + functional.linear(rows.to(hidden.dtype), self.from_id.to(hidden.dtype))

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Losses of the predicted slots; see `CodebookLayout.losses`."""
        kept = counted_positions(weight)
        if not len(kept):
            return no_losses(self, len(self.pattern.slots), hidden.device)
        classes = self.classes(slots[kept][:, span(self.predicted)])
        nll = self.heads.losses(self.states(hidden[kept], rows[kept]), classes)
        return weighed(nll, classes != ABSENT, weight[kept], self.predicted, len(self.pattern.slots))

    def classes(self, codes: Tensor) -> Tensor:
        """Codes (P, K) → the classes that heads predict, -1 where nothing is."""
        return codes

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence; see `CodebookLayout.step`."""
        held = expected(self.pattern, before, behind)
        logits = self.heads.logits(self.states(hidden, rows))
        slots = torch.full_like(held, ABSENT, dtype=torch.int64)
        scores = torch.zeros(held.shape, dtype=torch.float32, device=held.device)
        for place, column in enumerate(self.predicted):
            codes, score = choose(column, logits[:, place, : self.heads.classes[place]])
            asked = held[:, column] & self.asked(place, slots[:, span(self.predicted)])
            found = asked & (codes < self.pattern.slots[column].size)  # the class behind the codes is absence
            slots[:, column] = torch.where(found, codes, ABSENT)
            scores[:, column] = torch.where(asked, score, 0.0)
        return slots, scores

    def asked(self, place: int, codes: Tensor) -> Tensor:
        """(P,) whether a predicted slot is asked for, codes (P, K) of those before it being known."""
        return torch.ones_like(codes[:, place], dtype=torch.bool)


class ParallelLayout(HeadsLayout):
    """The first codebook inline, a head for each of the others, all of the same frame."""

    name = "parallel"
    Config = ParallelConfig

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: ParallelConfig) -> FramePattern:
        """Codebook 0 inline, the others beside it without delay; InputError for one codebook."""
        sizes = stream.cardinalities
        slots = [SlotSpec(stream=stream.name, codebook=q, size=sizes[q]) for q in books_beside(stream, cls.name)]
        return FramePattern(layout=cls.name, stream=stream.name, cardinalities=sizes, inline=(0,), slots=tuple(slots))
