"""Whisper as an independent ear: greedy transcripts of English, normalized as Whisper's own scores are.

Texts go through `transformers`' EnglishTextNormalizer (OpenAI's: lower case, contractions written out, number words as
digits, no punctuation), with the table of British spellings where the folder has one (`normalizer.json`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.pipelines.backends.interfaces import Recognizer
from unitok.pipelines.backends.whisper import WhisperRecognizer
from unitok_tokenizers.files import read_json


@dataclass
class EnglishEar:
    """An `Ear` for English: a recognizer, and Whisper's normalizer behind it."""

    recognizer: Recognizer
    """What hears."""
    normalizer: Any
    """`EnglishTextNormalizer`."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.recognizer.sample_rate

    @property
    def lang(self) -> str:
        """English: the normalizer knows no other language."""
        return "en"

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """As `Ear.transcribe`; Whisper cuts what is longer than its window at pauses, and silence is an empty text."""
        return [self.normalize(found[0].text) for found in self.recognizer.recognize(recordings, lang=self.lang)]

    def normalize(self, text: str) -> str:
        """As `Ear.normalize`."""
        return str(self.normalizer(text)).strip()


@dataclass
class WhisperEar(EnglishEar):
    """The ear whose recognizer is Whisper."""

    @staticmethod
    def load(folder: Path | str) -> WhisperEar:
        """Read a local folder of CTranslate2 or Hugging Face; InputError where it is not understood."""
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        recognizer = WhisperRecognizer.load(folder)
        recognizer.parts.prompt("en")  # a tokenizer without the control tokens is told now
        table = Path(folder) / "normalizer.json"
        return WhisperEar(recognizer, EnglishTextNormalizer(read_json(table) if table.is_file() else {}))
