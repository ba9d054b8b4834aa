"""The two interfaces behind which recognizers and synthesizers stand, and how a function becomes one.

S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from unitok.inputs import Audio
from unitok_tokenizers.errors import InputError

Voice = Audio | None
"""A name that a synthesizer knows, or a recording; None for its usual voice."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """One hypothesis of a recognizer."""

    text: str
    """What was said."""
    logprob: float = 0.0
    """log p(text | audio), natural, summed over the tokens with the end of sequence; 0 where a recognizer has none."""
    tokens: int = 1
    """Tokens that `logprob` sums over, the end of sequence included."""
    finish_reason: str = "eos"
    """eos, or length or loop where it was ended before it had come to its end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SpokenText:
    """What a synthesizer says."""

    samples: np.ndarray
    """(S,) float32 within [-1, 1]."""
    sample_rate: int
    """Hz."""
    finish_reason: str = "eos"
    """As of `Transcript`."""


@runtime_checkable
class Recognizer(Protocol):
    """Speech to text."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """Recordings (S,) each, at `sample_rate` → up to `n_best` distinct hypotheses of each, best first."""


@runtime_checkable
class Synthesizer(Protocol):
    """Text to speech."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """Texts → what they sound like; `voice` is a name that it knows, or a recording where it can imitate one."""


@dataclass(frozen=True, kw_only=True)
class FunctionRecognizer:
    """Any function from samples and a language to a text or a list of texts, best first."""

    function: Callable[[np.ndarray, str], str | Sequence[str]]
    """(samples (S,), language) → text or texts."""
    sample_rate: int = 16000
    """Hz of the samples that the function takes."""

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`; the hypotheses have no scores."""
        return [self._hypotheses(self.function(samples, lang), n_best) for samples in audio]

    def _hypotheses(self, answer: str | Sequence[str], n_best: int) -> list[Transcript]:
        texts = [answer] if isinstance(answer, str) else list(answer)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"the recognizer returned {repr(answer)[:60]}: return a text, or texts, best first")
        return [Transcript(text=text) for text in dict.fromkeys(texts)][:n_best]


@dataclass(frozen=True, kw_only=True)
class FunctionSynthesizer:
    """Any function from a text, a language and a voice to samples."""

    function: Callable[[str, str, Voice], np.ndarray]
    """(text, language, voice) → samples (S,) within [-1, 1]."""
    sample_rate: int = 16000
    """Hz of what the function returns."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`."""
        return [self._spoken(self.function(text, lang, voice)) for text in texts]

    def _spoken(self, samples: np.ndarray) -> SpokenText:
        samples = np.asarray(samples)
        if samples.ndim != 1 or samples.dtype.kind != "f":
            raise InputError(
                f"the synthesizer returned {samples.dtype} of shape {samples.shape}: return float samples (S,)"
            )
        return SpokenText(samples=samples.astype(np.float32), sample_rate=self.sample_rate)
