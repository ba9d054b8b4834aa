"""What a tokenizer of prosody is: a stream of its own kind beside units, learned without labels.

F frames, N tokens. A new one is a class in a file of its own and a line in `registry.PROSODY_TOKENIZERS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from unitok_tokenizers.encoders.pitch import SAMPLE_RATE
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.contour import Contour, contour


@dataclass(frozen=True, kw_only=True)
class ProsodySource:
    """What tokenizers of prosody are fitted to."""

    contours: Sequence[Contour]
    """Of recordings."""
    units: StreamInfo | None
    """The units beside them; None where there are none."""
    seed: int
    """Of every draw."""


class ProsodyTokenizer:
    """Makes the stream that is named like its entry in the registry."""

    name: str
    """Stream, entry in the registry, and kind of spans."""
    most: ClassVar[int]
    """Ids where nobody says how many, at most."""
    cardinality: int
    """Number of ids."""
    frame_rate: ClassVar[Fraction | None]
    """Tokens a second; None where they go with something else."""

    @classmethod
    def fit(cls, source: ProsodySource, most: int) -> Self:
        """Of recordings, with at most so many ids; InputError where there is nothing to learn from."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        raise NotImplementedError

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return StreamInfo(
            name=self.name, kind="prosody", fingerprint=self.fingerprint, frame_rate=self.frame_rate,
            cardinalities=(self.cardinality,),
        )  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        raise NotImplementedError


class ContourTokenizer(ProsodyTokenizer):
    """One that reads recordings, through their contours: on the processor, in no time beside any network."""

    sample_rate: ClassVar[int] = SAMPLE_RATE
    """Hz of the samples that `encode` takes."""

    def tokens(self, found: Contour) -> np.ndarray:
        """Tokens (N,) int64 of a contour, at least one."""
        raise NotImplementedError

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) float32 → tokens (N,) int64, at least one."""
        return self.tokens(contour(samples))

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`encode` of each."""
        return [self.encode(samples) for samples in recordings]

    def to(self, device: torch.device | str) -> Self:
        """Nothing moves; returns itself."""
        return self
