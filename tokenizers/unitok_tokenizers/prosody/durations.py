"""Duration tokens: how long each unit lasts, in steps that grow with the duration as differences that are heard do.

N units, K levels.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.base import ProsodySource, ProsodyTokenizer

LONGEST_SECONDS = 1.0
"""What the last level stands for; longer runs are silence, and as long as that."""


class DurationTokenizer(ProsodyTokenizer):
    """Nearest of K durations to that of each deduplicated unit, by ratio: one token a unit.

    Args:
        levels: (K,) int64 frames of the units, ascending from 1.
        units: fingerprint of the units that have these durations.
        runs_of: their stream.
    """

    name, most, frame_rate = "durations", 16, None

    def __init__(self, levels: np.ndarray, units: str, runs_of: str) -> None:
        self.levels, self.units = levels, units
        self.runs_of: str = runs_of
        self.cardinality = len(levels)

    @classmethod
    def fit(cls, source: ProsodySource, most: int) -> Self:
        """See `ProsodyTokenizer.fit`: levels are spaced evenly by ratio, and each a whole number of frames."""
        units = source.units
        if units is None or not units.deduplicated:
            raise InputError("duration tokens: there are no units that are stored once a run; fit units too")
        longest = max(1, round(LONGEST_SECONDS * float(units.frame_rate or Fraction(50))))
        count = next((n for n in range(longest, most, -1) if len(_spaced(n, longest)) <= most), most)
        return cls(_spaced(count, longest), units.fingerprint, units.name)

    def encode(self, durations: np.ndarray) -> np.ndarray:
        """Frames (N,) of each unit → tokens (N,) int64."""
        edges = np.sqrt(self.levels[1:] * self.levels[:-1])
        found: np.ndarray = np.searchsorted(edges, np.asarray(durations)).astype(np.int64)
        return found

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens (N,) → frames (N,) int64 of each unit."""
        found: np.ndarray = self.levels[np.asarray(tokens)]
        return found

    def info(self) -> StreamInfo:
        """See `ProsodyTokenizer.info`."""
        return replace(super().info(), runs_of=self.runs_of)

    @property
    def fingerprint(self) -> str:
        """See `ProsodyTokenizer.fingerprint`."""
        return fingerprint([self.name, self.levels.tolist(), self.units])

    def save(self, folder: Path) -> None:
        """See `ProsodyTokenizer.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"levels": self.levels.tolist(), "units": self.units, "runs_of": self.runs_of}
        write_json(folder / "config.json", {"class": self.name, "name": self.name, **config})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `ProsodyTokenizer.load`."""
        config = read_json(folder / "config.json")
        return cls(np.asarray(config["levels"], dtype=np.int64), config["units"], config["runs_of"])


def _spaced(count: int, longest: int) -> np.ndarray:
    """Whole numbers from 1 to the longest, spaced as evenly by ratio as they can be: at most `count` of them."""
    return np.unique(np.rint(np.geomspace(1, longest, count))).astype(np.int64)
