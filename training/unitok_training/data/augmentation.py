"""Augmentation of log-mels: another speaker, speed and channel of the same words.

F mel frames, M mel bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a recording is changed."""

    warp: float = 0.12
    """Largest relative stretch of the frequency axis: other vocal tracts (Jaitly & Hinton 2013)."""
    tempo: float = 0.12
    """Largest relative change of speed."""
    noise: float = 0.3
    """Deviation of noise added to normalized log-mels."""
    mask_bins: int = 12
    """Widest band of bins set to the mean, twice an utterance (Park et al. 2019)."""
    mask_frames: int = 12
    """Longest run of frames set to the mean, twice an utterance."""


def augment(mels: Tensor, random: np.random.Generator, config: Augmentation) -> Tensor:
    """A random other speaker, speed and channel for log-mels (F, M): one bilinear resampling, noise and masks."""
    frames, bins = mels.shape
    tempo = 1.0 + random.uniform(-config.tempo, config.tempo)
    length = max(8, round(frames * tempo))
    warp = 1.0 + random.uniform(-config.warp, config.warp)
    rows = torch.linspace(-1.0, 1.0, length, device="cpu")
    columns = torch.linspace(0.0, 1.0, bins, device="cpu")
    columns = torch.clamp(columns * warp, max=1.0) * 2.0 - 1.0
    grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), dim=-1)  # (F', M, 2)
    warped = functional.grid_sample(mels[None, None], grid[None], align_corners=True)[0, 0]  # (F', M)
    noise = torch.from_numpy(random.standard_normal((length, bins), dtype=np.float32))
    tilt = torch.linspace(-1.0, 1.0, bins, device="cpu") * random.uniform(-1.0, 1.0)
    warped = warped + tilt + noise * random.uniform(0.0, config.noise)
    mean = warped.mean(0)
    for _ in range(2):
        width, start = random.integers(0, config.mask_bins + 1), random.integers(0, bins)
        warped[:, start : start + width] = mean[start : start + width]
        span, begin = random.integers(0, min(config.mask_frames, length // 8) + 1), random.integers(0, length)
        warped[begin : begin + span] = mean
    return warped
