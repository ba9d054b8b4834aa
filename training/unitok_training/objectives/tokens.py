"""Cross-entropy of the tokens of packs: the objective of a decoder that learns from token shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.layouts.base import CodebookLayout
from unitok.second_passes.base import SecondPass
from unitok_training.data.batch import Pack
from unitok_training.objectives.base import TOKENS, BatchLosses
from unitok_training.objectives.pack_losses import Supervised, hidden_states, losses_of_states
from unitok_training.objectives.second_pass import PassBatch, pass_terms, with_refined
from unitok_training.objectives.slot_losses import framed_states, slot_counts, slot_groups, slot_losses, slot_terms


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """A pack and where its labels are."""

    pack: Pack
    """The documents."""
    supervised: Supervised
    """Its positions with a label."""
    taught: Supervised | None = None
    """Those of which a teacher has something to say, where that is not all of them."""
    finished: PassBatch | None = None
    """The spans of codes that a second pass learns from; None where there are none, or no second pass."""

    def to(self, device: torch.device | str) -> TokenBatch:
        """The same on a device, copied without waiting where the memory is pinned."""
        taught = None if self.taught is None else self.taught.to(device)
        finished = None if self.finished is None else self.finished.to(device)
        return TokenBatch(
            pack=self.pack.to(device), supervised=self.supervised.to(device), taught=taught, finished=finished
        )

    def pin(self) -> TokenBatch:
        """The same in page-locked memory."""
        taught = None if self.taught is None else self.taught.pin()
        finished = None if self.finished is None else self.finished.pin()
        return TokenBatch(pack=self.pack.pin(), supervised=self.supervised.pin(), taught=taught, finished=finished)


@dataclass(frozen=True, kw_only=True)
class TokenObjective:
    """See `Objective`."""

    decoder: Decoder
    """What is trained."""
    smoothing: float = 0.0
    """Probability spread over the whole vocabulary."""
    chunk: int = 0
    """Supervised positions whose logits are held at once; 0 for as many as fit."""
    layout: CodebookLayout | None = None
    """Predicts codes beside ids, and is trained with the decoder; None where ids say everything."""
    second: SecondPass | None = None
    """Finds what the layout leaves open, and is trained beside both."""

    @property
    def weights(self) -> Mapping[str, float]:
        """The tokens, each group of a layout's slots, and what a second pass learns."""
        groups = {} if self.layout is None else slot_groups(self.layout.pattern)
        finished = () if self.second is None else self.second.loss_terms
        return {TOKENS: 1.0, **dict.fromkeys((*groups, *finished), 1.0)}

    def counts(self, batch: TokenBatch) -> Mapping[str, float]:
        """Labels of a pack, codes of each group, and what the second pass finds."""
        slots = {} if self.layout is None else slot_counts(self.layout.pattern, batch.pack)
        finished = {} if self.second is None else dict.fromkeys(self.second.loss_terms, 0.0)
        if batch.finished is not None:
            finished |= batch.finished.counts
        return {TOKENS: batch.pack.supervised, **slots, **finished}

    def losses(self, batch: TokenBatch) -> BatchLosses:
        """Forward one pack."""
        moved = batch.to(self.decoder.embedding.device)
        pack, slots, terms = moved.pack, None, dict[str, Tensor]()
        if self.layout is None:
            hidden = hidden_states(self.decoder, pack)
        else:
            states = framed_states(self.decoder, self.layout, pack)
            slots, hidden = slot_losses(self.layout, states, pack), states.hidden
            terms = slot_terms(self.layout.pattern, slots)
        if self.second is not None and slots is not None:
            found_terms, finished = pass_terms(self.second, moved.finished)
            slots, terms = with_refined(slots, self.second, finished), {**terms, **found_terms}
        found = losses_of_states(
            hidden, self.decoder, pack, moved.supervised, smoothing=self.smoothing, chunk=self.chunk
        )
        return BatchLosses(
            terms={TOKENS: found.total, **terms}, tokens=found, used=pack.used, positions=pack.size,
            supervised=pack.supervised, slots=slots,
        )  # fmt: skip
