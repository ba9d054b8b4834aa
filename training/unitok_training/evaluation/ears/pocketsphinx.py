"""PocketSphinx as a second ear for English: it shares neither data nor architecture with Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok.pipelines.backends.sphinx import SphinxRecognizer


class SphinxEar:
    """An `Ear`, normalized as `WhisperEar` is. InputError where `pocketsphinx` is not installed."""

    def __init__(self) -> None:
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self.recognizer = SphinxRecognizer()
        self.normalizer: Any = EnglishTextNormalizer({})  # type: ignore[no-untyped-call]

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.recognizer.sample_rate

    @property
    def lang(self) -> str:
        """English."""
        return "en"

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """As `Ear.transcribe`."""
        return [self.normalize(found[0].text) for found in self.recognizer.recognize(recordings, lang=self.lang)]

    def normalize(self, text: str) -> str:
        """As `Ear.normalize`."""
        return str(self.normalizer(text)).strip()
