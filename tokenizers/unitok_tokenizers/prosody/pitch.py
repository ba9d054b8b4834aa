"""Pitch tokens: how far a voice is above or below its own level, 12.5 times a second, or that there is none.

F frames of a contour, N tokens, K levels.
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
from unitok_tokenizers.prosody.contour import RATE, Contour
from unitok_tokenizers.semantic.kmeans import fit_kmeans

FRAMES = 8
"""Frames of a token."""
VOICED_FRAMES = 3
"""Of them with a voice, for a token that has a pitch."""
EACH = 10
"""Tokens to learn from for each level, at least."""


class PitchTokenizer(ContourTokenizer):
    """Nearest of K levels of log-pitch over the recording's own; token 0 is unvoiced, and higher tokens are higher.

    Args:
        levels: (K,) float32 octaves over the own level, ascending.
    """

    name, most, frame_rate = "pitch", 64, Fraction(RATE, FRAMES)

    def __init__(self, levels: np.ndarray) -> None:
        self.levels = levels
        self.cardinality = 1 + len(levels)

    @classmethod
    def fit(cls, source: ProsodySource, most: int) -> Self:
        """See `ProsodyTokenizer.fit`."""
        values = np.concatenate([np.zeros(0), *map(relative_pitch, source.contours)])
        heard = values[~np.isnan(values)]
        count = min(most - 1, len(heard) // EACH)
        if count < 1:
            raise InputError("pitch tokens: the recordings have next to no voice; give recordings of people speaking")
        points = torch.from_numpy(heard.astype(np.float32)[:, None])
        return cls(np.unique(fit_kmeans(points, count, seed=source.seed).numpy()))

    def tokens(self, found: Contour) -> np.ndarray:
        """See `ContourTokenizer.tokens`."""
        values = relative_pitch(found)
        edges = (self.levels[1:] + self.levels[:-1]) / 2
        return np.where(np.isnan(values), 0, 1 + np.searchsorted(edges, np.nan_to_num(values))).astype(np.int64)

    def decode(self, tokens: np.ndarray, own_level: float) -> np.ndarray:
        """Tokens (N,), Hz of a voice's own level → pitch (N,) float32 in Hz, 0 where there is none."""
        ratios = np.concatenate([[0.0], 2.0 ** self.levels.astype(np.float64)])
        found: np.ndarray = (own_level * ratios[np.asarray(tokens)]).astype(np.float32)
        return found

    @property
    def fingerprint(self) -> str:
        """See `ProsodyTokenizer.fingerprint`."""
        return fingerprint([self.name, array_fingerprint(self.levels)])

    def save(self, folder: Path) -> None:
        """See `ProsodyTokenizer.save`."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"levels": self.levels}, folder / "levels.safetensors")
        write_json(folder / "config.json", {"class": self.name, "name": self.name})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `ProsodyTokenizer.load`."""
        return cls(read_tensors(folder / "levels.safetensors")["levels"].numpy())


def relative_pitch(found: Contour) -> np.ndarray:
    """(N,) float64 octaves over the recording's own level, each the middle of `FRAMES` frames; NaN without a voice."""
    padding = -len(found) % FRAMES
    frames = np.pad(found.octaves.astype(np.float64), (0, padding), constant_values=np.nan).reshape(-1, FRAMES)
    voiced = (~np.isnan(frames)).sum(1) >= VOICED_FRAMES
    values = np.full(len(frames), np.nan)
    values[voiced] = np.nanmedian(frames[voiced], axis=1) - found.own_level
    return values
