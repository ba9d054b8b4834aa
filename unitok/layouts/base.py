"""What every layout of codebooks is: trainer and engine call it and never index a slot.

The decoder reads, at every position, an embedding row of its id plus what the layout adds for the codes beside it; its
state before a position predicts the id by the head, and then, the id known, the layout predicts the codes. A flat
stream needs none of this. What stands here is the module; where codes stand is `FramePattern`, which it carries.

P positions with slots, B sequences, C width, S slots, V codes of a slot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from unitok_tokenizers.grammar.frames import FramePattern


class Choose(Protocol):
    """Chooses codes of one slot: the engine's, with random numbers counted by request, frame and slot."""

    def __call__(self, slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, V) → codes (B,) int64 and their log-probabilities (B,) float32."""


class Step(Protocol):
    """What `CodebookLayout.step` does, with its arguments and results."""

    def __call__(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence."""


@dataclass(frozen=True, kw_only=True)
class SlotLosses:
    """What the slots of some positions cost; nothing is divided yet."""

    total: Tensor
    """(S,) float32 sums of weight · negative log-likelihood, in nats; with a gradient."""
    weight: Tensor
    """(S,) float32 sums of the weights of what was predicted."""


class CodebookLayout(nn.Module, ABC):
    """Tables, heads and order of a layout's slots. Its weights are its own; the core has none for them.

    Args:
        pattern: where codes stand.
    """

    def __init__(self, pattern: FramePattern) -> None:
        super().__init__()
        self.pattern = pattern

    @abstractmethod
    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""

    def id_rows(self, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """The `rows` that `losses` and `step` take, for ids (P,): (P, C) of the core's table by `embed`, or of a table
        of the layout's own, of whatever width (Moshi)."""
        return embed(ids)

    @abstractmethod
    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Losses of the predicted slots.

        Args:
            hidden: (P, C) the decoder's state before each position: what predicts its id.
            rows: (P, C) embedding rows of the positions' ids.
            slots: (P, S) int64 codes to predict, -1 where there is none: no loss, unless the layout predicts absence.
            weight: (P,) float32 weight of each position's losses; 0 where it is given. What slots weigh against each
                other (`SlotSpec.weight`) is not in it, nor in what is returned: whoever joins groups applies it.
        """

    @abstractmethod
    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence.

        Args:
            hidden: (B, C) the state that chose the position's id.
            rows: (B, C) embedding rows of that id.
            before: (B,) int64 positions of the same span before this one: delays count from its start.
            choose: chooses each slot's codes from their logits, in the order in which the layout asks. All rows are
                asked together: what it chooses for a row in which the slot holds nothing is not used.
            behind: (B,) int64 positions since the one of the span's last frame, 0 while frames go on (all 0 where
                None): of the positions that flush delays, the first is 1.

        Returns:
            Slots (B, S) int64, -1 where a slot holds nothing here or is not the layout's to predict, and
            log-probabilities (B, S) float32, 0 where nothing was predicted. That a slot holds nothing is predicted
            too where the layout has a class for it.
        """

    def quick_step(self, *, compiled: bool = False) -> Step:
        """What does `step` many times in a row, without gradients, and may keep what it works with.

        It follows weights that change meanwhile. `compiled` as in `unitok.decoder.fast_step.Stepper`.
        """
        return self.step

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What builds it again, with its pattern; JSON."""
