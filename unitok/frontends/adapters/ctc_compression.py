"""What the three compressions by a CTC head share: frames that the head finds empty go, the others are projected.

B batch, T frames, D width of the frames, V labels of the CTC head.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unitok.frontends.adapters.base import Adapter, AdapterSizes


class CtcCompression(Adapter):
    """Some of the frames, or means of some, projected; a subclass says which in `compress`."""

    by_content, needs_labels = True, True

    def __init__(self, config: Any, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.project = nn.Linear(sizes.frames, sizes.vectors)

    def length(self, frames: int) -> int:
        """At most all frames."""
        return frames

    def compress(self, frames: Tensor, lengths: Tensor, ctc: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, T, D), lengths (B,), log-probabilities (B, T, V) → (kept frames (B, N, D), their number (B,))."""
        raise NotImplementedError

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        assert ctc is not None
        kept, sizes = self.compress(frames, lengths, ctc)
        return self.project(kept), sizes
