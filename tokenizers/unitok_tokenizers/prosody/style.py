"""Style tokens: how a second of speech is spoken, as one of K clusters of prosodic statistics.

Nothing in them depends on how loud a recording is, or how high a voice is by itself.

F frames of a contour, N windows, D statistics, K clusters.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
import torch

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_tensors, write_json
from unitok_tokenizers.prosody.base import ContourTokenizer, ProsodySource
from unitok_tokenizers.prosody.contour import QUIETEST, RATE, Contour
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans

STATISTICS = ("height", "range", "movement", "voiced", "dynamics", "pace", "brightness")
"""Of a window, in their order: pitch over the recording's own level and its spread (octaves), how fast it moves
(octaves a second), share of voiced frames, spread of the level (dB), syllables a second by the level's crests,
brightness (dB)."""
EACH = 5
"""Windows to learn from for each cluster, at least."""
SMOOTH, CREST = 7, 1.5
"""Frames over which the level is averaged before its crests are counted, and dB by which one stands out."""


class StyleTokenizer(ContourTokenizer):
    """Nearest of K centroids to the statistics of each second; what is left at the end belongs to the last one.

    Args:
        mean: (D,) float32 of the statistics that it was fitted to.
        deviation: (D,) float32 of them.
        centroids: (K, D) float32 of statistics with mean 0 and deviation 1.
    """

    name, most, frame_rate = "style", 100, Fraction(1)

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, centroids: np.ndarray) -> None:
        self.mean, self.deviation, self.centroids = mean, deviation, centroids
        self.cardinality = len(centroids)

    @classmethod
    def fit(cls, source: ProsodySource, most: int) -> Self:
        """See `ProsodyTokenizer.fit`."""
        found = np.concatenate([np.zeros((0, len(STATISTICS))), *map(window_statistics, source.contours)])
        count = min(most, len(found) // EACH)
        if count < 1:
            raise InputError(f"style tokens: {len(found)} s of recordings are too few; give more")
        mean, deviation = found.mean(0).astype(np.float32), np.maximum(found.std(0), 1e-3).astype(np.float32)
        points = torch.from_numpy((found.astype(np.float32) - mean) / deviation)
        return cls(mean, deviation, fit_kmeans(points, count, seed=source.seed).numpy())

    def tokens(self, found: Contour) -> np.ndarray:
        """See `ContourTokenizer.tokens`."""
        points = (window_statistics(found).astype(np.float32) - self.mean) / self.deviation
        return assign(torch.from_numpy(points), torch.from_numpy(self.centroids)).numpy()

    @property
    def fingerprint(self) -> str:
        """See `ProsodyTokenizer.fingerprint`."""
        return fingerprint([self.name, array_fingerprint(self.mean, self.deviation, self.centroids)])

    def save(self, folder: Path) -> None:
        """See `ProsodyTokenizer.save`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"mean": self.mean, "deviation": self.deviation, "centroids": self.centroids}
        save_file(tensors, folder / "centroids.safetensors")
        write_json(folder / "config.json", {"class": self.name, "name": self.name, "statistics": list(STATISTICS)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `ProsodyTokenizer.load`."""
        found = read_tensors(folder / "centroids.safetensors")
        return cls(*(found[name].numpy() for name in ("mean", "deviation", "centroids")))


def window_statistics(found: Contour) -> np.ndarray:
    """(N, D) float64 of each second; the last window is up to two seconds long, or the whole of a shorter recording."""
    starts = np.arange(max(1, len(found) // RATE)) * RATE
    stops = [*starts[1:].tolist(), len(found)]
    return np.stack([_statistics(found, slice(start, stop)) for start, stop in zip(starts.tolist(), stops)])


def _statistics(found: Contour, of: slice) -> np.ndarray:
    octaves, level = found.octaves[of].astype(np.float64) - found.own_level, found.level[of].astype(np.float64)
    voiced, spoken = ~np.isnan(octaves), level > -QUIETEST
    heard = octaves[voiced]
    steps = np.abs(np.diff(octaves))
    steps = steps[~np.isnan(steps)]
    return np.array(
        [
            np.median(heard) if len(heard) else 0.0,
            heard.std() if len(heard) else 0.0,
            steps.mean() * RATE if len(steps) else 0.0,
            voiced.mean(),
            level[spoken].std() if spoken.any() else 0.0,
            _crests(level) * RATE / len(level),
            found.brightness[of][voiced].mean() if len(heard) else 0.0,
        ]
    )


def _crests(level: np.ndarray) -> int:
    """How often the level (F,) rises to a crest and falls again, each by `CREST` at least."""
    smooth = np.convolve(
        np.pad(np.maximum(level, -QUIETEST), SMOOTH // 2, mode="edge"), np.ones(SMOOTH) / SMOOTH, "valid"
    )
    count, low, high, rising = 0, smooth[0], smooth[0], True
    for value in smooth.tolist():
        if rising:
            high = max(high, value)
            if value < high - CREST:
                count, low, rising = count + (high - low > CREST), value, False
        else:
            low = min(low, value)
            if value > low + CREST:
                high, rising = value, True
    return int(count)
