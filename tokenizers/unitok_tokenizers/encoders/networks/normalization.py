"""Log-mels normalized by a recording's own level and mean: of all that is spoken in it, or of what was heard so far.

B batch, F mel frames (100 Hz), M mel bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_tokenizers.float32_buffers import Float32Buffers

SPOKEN, ALL = "spoken", "all"
LOUD_FRAMES = 30
"""How many of the loudest frames say how loud an utterance is."""
BELOW_LOUD_DB = 15.0
"""Frames that are not further below those are spoken: silence and noise around them do not count."""
NEPER = math.log(10.0) / 20.0
"""Of a decibel, in the natural logarithm of an amplitude."""
FALL_DB = 0.01
"""Running statistics: how much a frame that is not loud takes off the level, 1 dB a second: after a bang that is 20 dB
above what is said, five seconds go by until this counts again."""
QUIET_DB = 40.0
"""So far below the level of the recordings that were learned from, nothing is taken for speech."""
HEARD_FRAMES = 1000.0
"""Loud frames, ten seconds, that running statistics remember."""
TYPICAL_FRAMES = 100.0
"""Loud frames that the statistics of the training recordings weigh at the beginning."""
BLOCK = 256
"""Frames that are summed at once: powers of what is forgotten stay within what float64 holds."""


def normalize(mels: Tensor, frames: Tensor, statistics: str = ALL) -> Tensor:
    """Subtract each utterance's mean per bin, and scale by its overall deviation: (B, F, M) → (B, F, M).

    Both are taken over `statistics`: all frames, or the spoken ones, so that a second of silence changes nothing.
    """
    inside = (torch.arange(mels.shape[1], device=mels.device) < frames[:, None])[..., None].to(mels.dtype)
    counted = inside if statistics == ALL else inside * loud_frames(mels, frames)[..., None].to(mels.dtype)
    count = counted.sum(1, keepdim=True).clamp(min=1)
    mean = (mels * counted).sum(1, keepdim=True) / count
    centered = (mels - mean) * inside
    deviation = ((centered**2 * counted).sum((1, 2), keepdim=True) / (count * mels.shape[2])).sqrt()
    return centered / (deviation + 1e-3)


def loud_frames(mels: Tensor, frames: Tensor) -> Tensor:
    """(B, F) bool: frames near the loudest ones of their utterance, of log-mels (B, F, M) with lengths (B,).

    The loudness is that of the loudest so many frames, and not of a share of them, which would depend on the silence.
    """
    inside = torch.arange(mels.shape[1], device=mels.device) < frames[:, None]
    power = 2.0 * levels(mels.float()).masked_fill(~inside, -torch.inf)  # (B, F) natural log
    count = (frames // 3).clamp(1, LOUD_FRAMES)
    ranked = power.topk(min(LOUD_FRAMES, power.shape[1]), dim=1).values
    loud = ranked.gather(1, count[:, None] - 1)  # (B, 1)
    return inside & (power >= loud - BELOW_LOUD_DB * math.log(10.0) / 10.0)


def levels(mels: Tensor) -> Tensor:
    """Natural logarithm (…) of the amplitude of log-mels (…, M)."""
    return torch.logsumexp(2.0 * mels, -1) / 2.0


@dataclass(frozen=True, kw_only=True)
class RunningState:
    """What running statistics know of the recordings of a batch, in float64."""

    level: Tensor
    """(B,) natural logarithm of the amplitude of its loudest moments, slowly falling."""
    sums: Tensor
    """(B, M + 2) of loud frames, older ones weighing less: of ones, of log-mels, of the mean of their squares."""
    typical: Tensor
    """(B,) what the training recordings still weigh, in frames."""


class RunningStatistics(Float32Buffers):
    """Log-mels normalized by the mean and the deviation of the loud frames so far: for networks that look back only.

    At first these are those of the recordings that were learned from, brought to the level that is heard. Where the
    level rises, what was loud before it weighs less by as much: noise before the first word is soon forgotten.
    """

    def __init__(self, num_mels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_mels))
        self.register_buffer("deviation", torch.ones(num_mels))
        self.register_buffer("level", torch.zeros(()))
        self.mean: Tensor
        """(M,) of a loud frame, relative to the level."""
        self.deviation: Tensor
        """(M,) of the same."""
        self.level: Tensor
        """() of the recordings."""

    @torch.no_grad()
    def learn(self, recordings: Iterable[Tensor]) -> None:
        """Take what is typical from log-mels (F, M) of recordings."""
        num_mels, device = len(self.mean), self.mean.device
        totals = torch.zeros(3, num_mels, dtype=torch.float64, device=device)
        level, count = torch.zeros((), dtype=torch.float64, device=device), 0
        for given in recordings:
            mels = given.to(device).double()[None]
            loud = loud_frames(mels, torch.tensor([mels.shape[1]], device=device))[0]
            heard = self._levels(levels(mels), mels.new_full((1,), -torch.inf))[0]
            relative = (mels[0] - heard[:, None])[loud]
            totals += torch.stack([torch.ones_like(relative), relative, relative**2]).sum(1)
            level, count = level + heard[loud].sum(), count + int(loud.sum())
        mean = totals[1] / totals[0].clamp(min=1)
        self.mean.copy_(mean)
        self.deviation.copy_((totals[2] / totals[0].clamp(min=1) - mean**2).clamp(min=0).sqrt())
        self.level.copy_(level / max(1, count))

    def begin(self, rows: int) -> RunningState:
        """Nothing was heard yet."""
        empty = torch.zeros(rows, len(self.mean) + 2, dtype=torch.float64, device=self.mean.device)
        return RunningState(
            level=empty.new_full((rows,), -torch.inf),
            sums=empty,
            typical=empty.new_full((rows,), TYPICAL_FRAMES),
        )

    @torch.no_grad()
    def forward(self, mels: Tensor, state: RunningState | None = None) -> tuple[Tensor, RunningState]:
        """Log-mels (B, F, M) that follow what `state` has heard → normalized (B, F, M), and what is known then."""
        state, made = state or self.begin(len(mels)), []
        for block in mels.split(BLOCK, dim=1):
            normal, state = self._block(block.double(), state)
            made.append(normal.float())
        return torch.cat(made, dim=1) if made else mels, state

    @staticmethod
    def _levels(found: Tensor, before: Tensor) -> Tensor:
        """The largest level so far (B, F) of levels (B, F), falling slowly, behind one of `before` (B,)."""
        fall = FALL_DB * NEPER * torch.arange(found.shape[1] + 1, device=found.device, dtype=found.dtype)
        return (torch.cat([before[:, None], found], dim=1) + fall).cummax(1).values[:, 1:] - fall[1:]

    def _block(self, mels: Tensor, state: RunningState) -> tuple[Tensor, RunningState]:
        found = levels(mels)
        heard = self._levels(found, state.level)
        least = self.level.double() - QUIET_DB * NEPER
        level = heard.clamp(min=least)
        loud = (found >= level - BELOW_LOUD_DB * NEPER).double()  # (B, F)
        before = torch.cat([state.level[:, None].clamp(min=least), level[:, :-1]], dim=1)
        counted = (loud / HEARD_FRAMES).cumsum(1)
        forgotten = (counted + (2.0 * (level - before).clamp(min=0)).cumsum(1))[..., None]  # (B, F, 1) natural log
        parts = torch.cat([torch.ones_like(mels[..., :1]), mels, mels.square().mean(-1, keepdim=True)], dim=-1)
        sums = state.sums[:, None] + (parts * loud[..., None] * forgotten.exp()).cumsum(1)
        sums = sums * (-forgotten).exp()  # (B, F, M + 2)
        typical = (state.typical[:, None] * (-counted).exp())[..., None]  # (B, F, 1)
        expected = self.mean.double() + level[..., None]
        square = (self.deviation.double().square() + expected.square()).mean(-1, keepdim=True)
        weight = typical + sums[..., :1]
        mean = (typical * expected + sums[..., 1:-1]) / weight
        variance = (typical * square + sums[..., -1:]) / weight - mean.square().mean(-1, keepdim=True)
        normal = (mels - mean) / (variance.clamp(min=0).sqrt() + 1e-3)
        return normal, RunningState(level=heard[:, -1], sums=sums[:, -1], typical=typical[:, -1, 0])
