"""What an independent ear consists of: three small interfaces, and the set that an evaluation is given.

N recordings, S samples, E width of a voice vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Ear(Protocol):
    """Tells what is said."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""

    @property
    def lang(self) -> str:
        """Code of the language that it reads."""

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """Recordings (S,) float32 each → their normalized texts."""

    def normalize(self, text: str) -> str:
        """A reference text, written as `transcribe` writes: word errors are counted between the two."""


class SpeakerEncoder(Protocol):
    """Tells whose voice it is."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""

    def embed(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """Recordings (S,) float32 each → voice vectors (N, E) of length 1; a silent one has a row of zeros."""


class QualityModel(Protocol):
    """Tells how natural it sounds."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""

    def rate(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """Recordings (S,) float32 each → estimated mean opinion scores (N,), 1 to 5; NaN for an empty one."""


@dataclass(frozen=True, kw_only=True)
class Ears:
    """The parts that are at hand; each may be missing."""

    ear: Ear | None = None
    """Recognizer."""
    speaker: SpeakerEncoder | None = None
    """Speaker encoder."""
    quality: QualityModel | None = None
    """Model of quality."""
    others: Mapping[str, Ear] = field(default_factory=dict)
    """Further recognizers by name, which share nothing with the first one: what both say is no fault of an ear."""
    source: str = ""
    """Where the parts come from, for people."""
