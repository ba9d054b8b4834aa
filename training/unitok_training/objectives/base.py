"""What every objective has in common: sums of losses, and how many labels each of them is of.

The loss of a step is Σ weight · (sum of a term's losses ÷ number of its labels) over all micro-batches of all processes
together: neither accumulation nor the number of processes changes what is learned, and a label counts the same in a
short batch as in a long one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from torch import Tensor

from unitok.layouts.base import SlotLosses
from unitok_training.objectives.token_loss import TokenLosses

Batch = TypeVar("Batch", contravariant=True)

TOKENS = "tokens"
"""The term of an objective that is a cross-entropy of tokens; every objective of a decoder has it."""


@dataclass(frozen=True, kw_only=True)
class BatchLosses:
    """What one micro-batch gives."""

    terms: Mapping[str, Tensor]
    """Term → sum of its losses (), float32; with a gradient where something moves."""
    tokens: TokenLosses
    """Losses of every supervised position, for reports by task and stream."""
    used: int
    """Positions that hold documents."""
    positions: int
    """Positions in all, padding included."""
    supervised: int
    """Tokens with a label."""
    slots: SlotLosses | None = None
    """Losses of codes beside the ids, by slot; None where there is no layout with slots."""


class Objective(Protocol[Batch]):
    """What is minimized: `Trainer` divides, adds up over processes and descends."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Term → its weight in the loss; one of 0 is reported only."""

    def counts(self, batch: Batch) -> Mapping[str, float]:
        """Term → labels of a micro-batch, each as often as it weighs, known on the host before anything is computed."""

    def losses(self, batch: Batch) -> BatchLosses:
        """Compute a micro-batch, under the caller's precision; on the device of the modules."""
