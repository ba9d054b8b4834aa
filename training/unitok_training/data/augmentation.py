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


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is drawn for one recording, before anything is computed with it."""

    frames: int
    """F afterwards."""
    warp: float
    """Stretch of the frequency axis."""
    noise: np.ndarray
    """(F, M) float32, of deviation 1."""
    tilt: float
    """What the last bin gains and the first one loses."""
    loudness: float
    """Deviation of the noise."""
    masks: tuple[tuple[slice, slice], ...]
    """Bands of bins and runs of frames that are set to the mean."""


def draw_change(frames: int, bins: int, random: np.random.Generator, config: Augmentation) -> Change:
    """A random other speaker, speed and channel for log-mels (frames, bins)."""
    length = max(8, round(frames * (1.0 + random.uniform(-config.tempo, config.tempo))))
    warp = 1.0 + random.uniform(-config.warp, config.warp)
    noise = random.standard_normal((length, bins), dtype=np.float32)
    tilt, loudness = random.uniform(-1.0, 1.0), random.uniform(0.0, config.noise)
    masks = []
    for _ in range(2):
        width, start = random.integers(0, config.mask_bins + 1), random.integers(0, bins)
        span, begin = random.integers(0, min(config.mask_frames, length // 8) + 1), random.integers(0, length)
        masks.append((slice(start, start + width), slice(begin, begin + span)))
    return Change(frames=length, warp=warp, noise=noise, tilt=tilt, loudness=loudness, masks=tuple(masks))


def changed(mels: Tensor, change: Change) -> Tensor:
    """Log-mels (F, M) as another speaker's: one bilinear resampling, noise and masks."""
    bins = mels.shape[1]
    rows = torch.linspace(-1.0, 1.0, change.frames, device="cpu")
    columns = torch.linspace(0.0, 1.0, bins, device="cpu")
    columns = torch.clamp(columns * change.warp, max=1.0) * 2.0 - 1.0
    grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), dim=-1)  # (F', M, 2)
    warped = functional.grid_sample(mels[None, None], grid[None], align_corners=True)[0, 0]  # (F', M)
    tilt = torch.linspace(-1.0, 1.0, bins, device="cpu") * change.tilt
    warped = warped + tilt + torch.from_numpy(change.noise) * change.loudness
    mean = warped.mean(0)
    for band, run in change.masks:
        warped[:, band] = mean[band]
        warped[run] = mean
    return warped


def augment(mels: Tensor, random: np.random.Generator, config: Augmentation) -> Tensor:
    """A random other speaker, speed and channel for log-mels (F, M)."""
    frames, bins = mels.shape
    return changed(mels, draw_change(frames, bins, random, config))
