"""CTC compression by averaging: each run of frames with one best label becomes its mean (Gaido et al. 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.frontends.adapters.base import BLANK, at_least_one, compact
from unitok.frontends.adapters.ctc_compression import CtcCompression
from unitok_tokenizers.encoders.networks.attention import inside


@dataclass(frozen=True, kw_only=True)
class FrameAveragingConfig:
    """Options of `frame_averaging`."""

    keep_blanks: bool = False
    """Runs of blanks give a vector too."""


class FrameAveragingAdapter(CtcCompression):
    """One vector per run of equal labels, projected; of an all-blank recording one, the mean of all."""

    name, Config = "frame_averaging", FrameAveragingConfig

    def compress(self, frames: Tensor, lengths: Tensor, ctc: Tensor) -> tuple[Tensor, Tensor]:
        """See `CtcCompression`."""
        means, labels, runs = average_runs(frames, ctc.argmax(-1), lengths)
        keep = torch.ones_like(labels, dtype=torch.bool) if self.config.keep_blanks else labels != BLANK
        return compact(means, at_least_one(keep, torch.zeros_like(means[..., 0]), runs))


def average_runs(frames: Tensor, labels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs of equal labels: frames (B, T, D), labels (B, T) → (means (B, R, D), labels (B, R), runs (B,))."""
    valid = inside(lengths, frames.shape[1])
    begins = torch.ones_like(valid)
    begins[:, 1:] = labels[:, 1:] != labels[:, :-1]
    begins &= valid
    run = (begins.cumsum(1) - 1).clamp(min=0)  # (B, T)
    runs = begins.sum(1)
    most = int(runs.max())
    weight = valid.float()  # in bfloat16 a count stays at 256, and a sum stops growing before
    sums = weight.new_zeros(len(frames), most, frames.shape[2])
    place = run[..., None].expand_as(frames)
    sums = sums.scatter_add(1, place, frames.float() * weight[..., None])
    counts = weight.new_zeros(len(frames), most).scatter_add(1, run, weight).clamp(min=1)
    first, _ = compact(labels[..., None], begins)
    return (sums / counts[..., None]).to(frames.dtype), first[..., 0], runs
