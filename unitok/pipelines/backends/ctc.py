"""A CTC network as recognizer: it hears characters and knows no sentences, so that a language model has work to do.

The judge and the encoder behind the units are such networks; `unitok demo` trains both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.ctc_search import prefix_search
from unitok_tokenizers.encoders.registry import load_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json


def ctc_folder(folder: Path | str) -> Path | None:
    """Where in a folder (a judge, a units tokenizer, an encoder) a CTC network lies; None where there is none."""
    for place in (Path(folder), Path(folder) / "encoder"):
        config = read_json(place / "config.json") if (place / "config.json").is_file() else None
        if isinstance(config, dict) and config.get("class") == "ctc":
            return place
    return None


@dataclass(frozen=True)
class CtcRecognizer:
    """Prefix beam search over a network's characters, in whatever language they are."""

    encoder: CtcEncoder
    """The network."""
    beams: int = 16
    """Texts that the search follows."""

    @staticmethod
    def load(folder: Path | str) -> CtcRecognizer:
        """The network of a folder: a judge, or the encoder inside a units tokenizer. InputError where it is neither."""
        place = ctc_folder(folder)
        found = None if place is None else load_encoder(place)
        if not isinstance(found, CtcEncoder) or not found.network.config.alphabet:
            raise InputError(f"{folder} holds no CTC network; `unitok demo` leaves one in its folder judge")
        return CtcRecognizer(found)

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that it takes."""
        return self.encoder.sample_rate

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`; a token is a character, and the language is not asked for."""
        return [self._one(frames, n_best) for frames in self.encoder.log_probabilities(audio)]

    def _one(self, frames: np.ndarray, n_best: int) -> list[Transcript]:
        alphabet = self.encoder.network.config.alphabet
        heard: dict[str, Transcript] = {}
        for indices, logprob in prefix_search(frames, beams=max(self.beams, n_best)):
            text = " ".join("".join(alphabet[index - 1] for index in indices).split())
            heard.setdefault(text, Transcript(text=text, logprob=logprob, tokens=len(text) + 1))
        return list(heard.values())[:n_best]
