"""What the Python API returns: frozen results with the answer first and how it came about behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span


class SaidText(str):
    """A text that a stage gave, and how it ended."""

    finish_reason: str
    """As of `Result`."""

    def __new__(cls, text: str, finish_reason: str = "eos") -> SaidText:
        """A text, by default one that came to its end."""
        made = super().__new__(cls, text)
        made.finish_reason = finish_reason
        return made


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """One call of a cascade."""

    name: str
    """Name of its result in the plan."""
    tool: str
    """Tool that was called."""
    output: Any
    """What it gave: a text, or speech."""
    seconds: float
    """How long it took."""

    @property
    def finish_reason(self) -> str:
        """How its output ended, as of `Result`; "eos" where its tool does not say."""
        return str(getattr(self.output, "finish_reason", "eos"))

    def __str__(self) -> str:
        shown = self.output if isinstance(self.output, str) else type(self.output).__name__
        return f"{self.name} ({self.tool}, {self.seconds:.3f} s): {shown}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """An answer of the model."""

    text: str | None = None
    """The answer's text: the last one of a chain, None where the answer is speech alone."""
    audio: np.ndarray | None = field(default=None, repr=False)
    """(S,) float32 samples of the answer, within [-1, 1]; None where it is text."""
    sample_rate: int | None = None
    """Hz of `audio`."""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    """(N,) generated ids, the end of sequence included."""
    score: float = 0.0
    """Sum of the ids' log-probabilities among the allowed ones."""
    nbest: tuple[tuple[str, float], ...] = ()
    """(text, score) of the beam search's list, best first; empty without a search."""
    trace: tuple[str | Stage, ...] = ()
    """How the answer came about: a line per piece of a long recording, or the stages of a cascade with their times."""
    finish_reason: str = "eos"
    """eos, length where a limit ended an output, or loop where speech that went round in a cycle was ended."""
    outputs: tuple[Span, ...] = field(default=(), repr=False)
    """Every output span with its local ids, in the order of the grammar."""
    texts: tuple[str, ...] = ()
    """Every output text: a chain gives the transcript, then its translation."""
    latents: np.ndarray | None = field(default=None, repr=False)
    """(F, D) float32 of the last codes, where a second pass finds the codec's latents in place of codes: these have -1
    in the codebooks that the decoder does not say."""
    heard_seconds: float = 0.0
    """Length of the recording that was answered, in seconds; 0 for texts and for tokens made elsewhere."""

    @property
    def cut(self) -> bool:
        """Whether an output was ended that could have gone on."""
        return self.finish_reason in ("length", "loop")

    @property
    def seconds(self) -> float:
        """Duration of the audio; 0 without any."""
        return 0.0 if self.audio is None or not self.sample_rate else len(self.audio) / self.sample_rate

    def save(self, path: Path | str) -> Path:
        """Write the audio by the name's suffix, whatever its case; returns the path.

        .wav, .flac, .aiff, .au, .caf and .w64 keep the samples in 16 bits; .ogg (Vorbis), .opus and .mp3 compress them
        (.opus and .mp3 have the usual sample rates only). A name without a suffix is a WAV.

        Raises:
            InputError: there is no audio, another suffix, a rate that the format does not have, or a file that cannot
                be written.
        """
        if self.audio is None or self.sample_rate is None:
            raise InputError(f"cannot write {path}: this result has no audio; ask for speech of a model with a vocoder")
        write_audio(path, self.audio, self.sample_rate)
        return Path(path)
