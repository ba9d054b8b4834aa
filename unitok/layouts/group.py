"""Groups of frames (VALL-E 2, arXiv 2406.05370): G frames of the first codebook a position, so that steps are G times
fewer.

The first frame's code is the position's id; the other G − 1 are predicted in parallel. Where a span ends is no multiple
of G: their heads have one class more, for absence. A frame behind an absent one is absent as well: it is neither asked
for nor paid for, so that the probabilities of what a position can hold sum to one. The other codebooks are a second
pass's (VALL-E 2), or parallel heads of the same position.

P positions, S slots, K predicted slots, B sequences, C width, V codes of the first codebook.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.layouts.parallel import HeadsLayout, ParallelConfig
from unitok.layouts.slots import SlotTables, drawn, span
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, Role, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class GroupConfig(ParallelConfig):
    """Options of groups."""

    frames: int = 2
    """G, frames of one position."""
    refined: bool = True
    """Codebooks behind the first are left to a second pass; else they are predicted in parallel as well."""
    joined: bool = True
    """A frame's code has the same row wherever it stands, seen through a matrix (C, C) of its place: joined rows
    through one matrix. Else each place has rows of its own."""


class GroupLayout(HeadsLayout):
    """G frames a position; see the module."""

    name = "group"
    Config = GroupConfig
    options: GroupConfig

    def __init__(
        self, options: GroupConfig, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        deciding = {
            pattern.slots[column].frame: place for place, column in enumerate(self.predicted) if self._decides(column)
        }
        if list(deciding) != list(range(1, pattern.frames)):
            raise InputError(f"layout 'group' of {pattern.frames} frames predicts the first codebook of {[*deciding]}")
        self.needed = [
            deciding.get(slot.frame - self._decides(column), -1)
            for column, slot in ((column, pattern.slots[column]) for column in self.predicted)
        ]
        """Per predicted slot: the place of the one without whose code it is not asked for; -1 for none."""
        self.places = drawn(len(self.read), width, width, generator=generator) if options.joined else None

    def _decides(self, column: int) -> bool:
        """Whether a slot says that its frame is there: those of the first codebook do."""
        return self.pattern.slots[column].codebook == self.pattern.inline[0]

    def make_tables(self, generator: torch.Generator | None) -> SlotTables:
        """Rows of the slots that are read: of the same codebook the same, where they are joined."""
        read = [self.pattern.slots[column] for column in self.read]
        return SlotTables(
            [slot.size for slot in read],
            self.width,
            tables=[slot.codebook for slot in read] if self.options.joined else None,
            absent_rows=self.options.absent_rows,
            generator=generator,
        )

    def class_counts(self) -> list[int]:
        """Classes of each predicted slot; absence behind the codes of those that decide."""
        return [self.pattern.slots[column].size + self._decides(column) for column in self.predicted]

    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""
        if self.places is None:
            return super().vectors(slots)
        found = self.tables.rows(slots[:, span(self.read)])
        return torch.einsum("pkc,kdc->pd", found, self.places.to(found.dtype)).to(found.dtype)

    def asked(self, place: int, codes: Tensor) -> Tensor:
        """(P,) whether a predicted slot is asked for: what stands behind an absent frame is not."""
        needed = self.needed[place]
        return super().asked(place, codes) if needed < 0 else codes[:, needed] != ABSENT

    def classes(self, codes: Tensor) -> Tensor:
        """Codes (P, K) → the classes that heads predict, -1 where nothing is."""
        found = []
        for place, column in enumerate(self.predicted):
            own = codes[:, place]
            named = torch.where(own == ABSENT, self.pattern.slots[column].size, own) if self._decides(column) else own
            found.append(torch.where(self.asked(place, codes), named, -1))
        return torch.stack(found, 1)

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: GroupConfig) -> FramePattern:
        """Codebook 0 of a group's first frame inline, of the others in slots, and all other codebooks in slots.

        InputError for groups of one frame.
        """
        if options.frames < 2:
            raise InputError(f"layout 'group' of {options.frames} frames: groups have 2 or more")
        sizes = stream.cardinalities
        beside: Role = "refined" if options.refined else "predicted"
        slots = [
            SlotSpec(stream=stream.name, codebook=q, size=sizes[q], frame=frame, role=beside if q else "predicted")
            for frame in range(options.frames)
            for q in range(len(sizes))
            if q or frame
        ]
        return FramePattern(
            layout=cls.name,
            stream=stream.name,
            cardinalities=sizes,
            inline=(0,),
            slots=tuple(slots),
            frames=options.frames,
        )
