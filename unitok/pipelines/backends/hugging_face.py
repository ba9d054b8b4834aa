"""Pipelines of `transformers` with local weights as recognizer and synthesizer: nothing is ever downloaded.

A name on the hub is refused before it is looked up, and while a folder is read the hub's client is offline: some
pipelines would fetch a part that the folder lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.pipelines.backends.interfaces import SpokenText, Transcript, Voice
from unitok_tokenizers.errors import InputError

LANGUAGE_NAMES = {"en": "english", "de": "german", "fr": "french", "es": "spanish"}
"""Names that Whisper knows languages by."""

SHORTEST = 0.1
"""Seconds; a recording that is shorter is filled up with silence."""


@contextmanager
def offline() -> Iterator[None]:
    """While this lasts, the hub's client answers from local files only."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def local_pipeline(task: str, folder: Path | str, device: torch.device | str = "cpu") -> Any:
    """A `transformers` pipeline of a local folder, on a device; InputError where there is none."""
    root = Path(folder)
    if not (root / "config.json").is_file():
        raise InputError(f"{folder} is no local folder of a transformers model (no config.json); download it yourself")
    from transformers import pipeline

    try:
        with offline():
            return pipeline(task, model=str(root), device=device)  # type: ignore[call-overload]
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{folder} does not load as a {task} pipeline: {' '.join(str(error).split())[:200]}; use a folder that has "
            "weights, tokenizer and preprocessor"
        ) from error


@dataclass
class PipelineRecognizer:
    """An `automatic-speech-recognition` pipeline: Whisper, wav2vec 2.0, HuBERT and others."""

    pipeline: Any
    """What `transformers.pipeline` made; `local_pipeline("automatic-speech-recognition", FOLDER)` makes one."""

    @property
    def sample_rate(self) -> int:
        """Hz of the samples that the feature extractor takes."""
        return int(self.pipeline.feature_extractor.sampling_rate)

    def recognize(self, audio: Sequence[np.ndarray], *, lang: str, n_best: int = 1) -> list[list[Transcript]]:
        """As `Recognizer.recognize`; one hypothesis of each, without a score. Whisper is told the language."""
        options: dict[str, Any] = {}
        if getattr(self.pipeline.model.config, "model_type", "") == "whisper":
            options["generate_kwargs"] = {"language": LANGUAGE_NAMES.get(lang, lang), "task": "transcribe"}
        rate = self.sample_rate
        answers = [self.pipeline({"raw": filled(samples, rate), "sampling_rate": rate}, **options) for samples in audio]
        return [[Transcript(text=str(answer["text"]).strip())] for answer in answers]


def filled(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S,) samples with silence behind them up to `SHORTEST`: a convolution of wav2vec 2.0 takes no fewer."""
    return np.pad(samples, (0, max(0, round(SHORTEST * rate) - len(samples))))


@dataclass
class PipelineSynthesizer:
    """A `text-to-speech` pipeline: VITS/MMS, SpeechT5, Bark and others."""

    pipeline: Any
    """`local_pipeline("text-to-speech", FOLDER)` makes one."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`; the folder decides language and voice. InputError for a voice."""
        if voice is not None:
            raise InputError(
                "the synthesizer's folder decides the voice: leave the voice out, or name another synthesizer"
            )
        spoken = []
        for text in texts:
            answer = self.pipeline(text)
            samples = np.asarray(answer["audio"], dtype=np.float32).reshape(-1)
            spoken.append(SpokenText(samples=np.clip(samples, -1.0, 1.0), sample_rate=int(answer["sampling_rate"])))
        return spoken
