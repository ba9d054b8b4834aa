"""Channels to one: their mean, unless they cancel each other.

B frames of a block, C channels.
"""

from __future__ import annotations

import numpy as np

WINDOW = 4096
"""Frames that are judged together."""
CANCELED = 0.1
"""Power of the mean of C channels, as a share of a Cth of their mean power, below which they cancel: independent
channels have 1, equal ones C. Of two channels it is a correlation below −0.9: one of them was wired upside down."""
AUDIBLE = 0.25
"""Power of a channel, as a share of the loudest one's, from which it is kept rather than another one."""


class Downmix:
    """Makes (B, C) blocks of one recording mono, (B,).

    The mean of the channels; where they cancel in it, as with one of two channels in antiphase, one channel alone: the
    loudest, and from then on the same one as long as it can be heard, so that the polarity does not change on the way.
    """

    def __init__(self) -> None:
        self.kept: int | None = None

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """(B, C) float32 → (B,) float32."""
        if block.shape[1] == 1:
            return np.ascontiguousarray(block[:, 0])
        mean = block.mean(axis=1)
        for start in range(0, len(block), WINDOW):
            part = block[start : start + WINDOW]
            power = part.var(axis=0, dtype=np.float64)  # (C,): an offset is no sound, and does not cancel
            own = float(mean[start : start + WINDOW].var(dtype=np.float64))
            if own < CANCELED * float(power.mean()) / part.shape[1]:
                mean[start : start + WINDOW] = part[:, self._channel(power)]
        return mean

    def _channel(self, power: np.ndarray) -> int:
        if self.kept is None or power[self.kept] < AUDIBLE * power.max():
            self.kept = int(power.argmax())
        return self.kept
