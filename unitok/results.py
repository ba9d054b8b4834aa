"""What the Python API returns: frozen results with the answer first and how it came about behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from unitok_tokenizers.audio import write_audio
from unitok_tokenizers.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Alternative:
    """One entry of an n-best list."""

    text: str | None
    """Its text, None where the answer is speech."""
    ids: np.ndarray
    """(N,) generated ids."""
    logprob: float
    """Sum of the log-probabilities, which teacher forcing reproduces."""
    score: float
    """What the list is sorted by: `logprob` ÷ length ** length_penalty."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """An answer of the model."""

    text: str | None = None
    """The answer's text."""
    audio: np.ndarray | None = field(default=None, repr=False)
    """(S,) float32 samples of the answer, within [-1, 1]."""
    sample_rate: int | None = None
    """Hz of `audio`."""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """(N,) generated ids, the end of sequence included."""
    score: float = 0.0
    """Sum of the ids' log-probabilities among the allowed ones."""
    nbest: tuple[Alternative, ...] = field(default=(), repr=False)
    """Best first; empty without beam search."""
    trace: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What lies between question and answer: local units and codes, intermediate texts, chunks of long audio."""
    finish_reason: str = "eos"
    """eos, or length where a limit ended the answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Transcription(Result):
    """Text of speech in the same language."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Translation(Result):
    """Text in another language."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Speech(Result):
    """Generated speech."""

    @property
    def seconds(self) -> float:
        """Duration."""
        return 0.0 if self.audio is None or not self.sample_rate else len(self.audio) / self.sample_rate

    def save(self, path: Path | str) -> Path:
        """Write the audio as 16-bit WAV, FLAC or OGG, by the name's suffix; returns the path.

        Raises:
            InputError: there is no audio (the model has no vocoder), or the file cannot be written.
        """
        if self.audio is None or self.sample_rate is None:
            raise InputError(f"cannot write {path}: this speech has units but no audio; load a model with a vocoder")
        write_audio(path, self.audio, self.sample_rate)
        return Path(path)
