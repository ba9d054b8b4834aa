"""Piper voices (VITS as ONNX, Kim et al. 2021) as synthesizer: a file VOICE.onnx with VOICE.onnx.json (extra `piper`).

S samples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok.pipelines.backends.interfaces import SpokenText, Voice
from unitok_tokenizers.errors import InputError

SUFFIX = ".onnx"


def piper_file(name: Path | str) -> Path | None:
    """The voice that is named: a file, or the only one of a folder; None where it is neither."""
    found = sorted(Path(name).glob(f"*{SUFFIX}")) if Path(name).is_dir() else [Path(name)]
    fits = len(found) == 1 and found[0].suffix == SUFFIX and found[0].is_file()
    return found[0] if fits and description_of(found[0]).is_file() else None


def description_of(path: Path) -> Path:
    """What stands beside a voice and says its language, phonemes and speakers."""
    return path.with_name(path.name + ".json")


@dataclass(frozen=True, kw_only=True)
class PiperSynthesizer:
    """A voice, on a processor. Its graph draws random numbers, so that a text sounds different each time; those that
    are said in the same order behind `load` with the same seed and threads sound the same."""

    engine: Any
    """`piper.PiperVoice`."""
    rate: float = 1.0
    """Times as fast as the voice's usual."""

    @staticmethod
    def load(path: Path | str, *, seed: int = 0, threads: int = 1) -> PiperSynthesizer:
        """The voice of a file.

        Raises:
            InputError: `piper` is not installed, or the two files cannot be read.
        """
        try:
            import onnxruntime
            from piper import PiperConfig, PiperVoice
        except ModuleNotFoundError as error:
            raise InputError("this synthesizer needs Piper: pip install 'unitok[piper]'") from error
        onnxruntime.set_seed(seed)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            config = PiperConfig.from_dict(json.loads(description_of(Path(path)).read_text(encoding="utf-8")))
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no common class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path} is no voice of Piper: {type(error).__name__}: {reason}") from error
        return PiperSynthesizer(engine=PiperVoice(session=session, config=config))

    @property
    def lang(self) -> str:
        """Language code of the voice."""
        return str(self.engine.config.espeak_voice).partition("-")[0]

    def speak(self, texts: Sequence[str], *, lang: str, voice: Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`; a voice is the name of a speaker, of those that have several.

        Raises:
            InputError: another language, an unknown speaker, or a text of which nothing can be said.
        """
        if lang != self.lang:
            raise InputError(f"this voice speaks {self.lang!r}, lang is {lang!r}; name a voice of that language")
        return [self._one(text, self._speaker(voice)) for text in texts]

    def _speaker(self, voice: Voice) -> int | None:
        known = self.engine.config.speaker_id_map
        if voice is None:
            return None
        if not isinstance(voice, str) or voice not in known:
            had = f"it has {', '.join(sorted(known))}" if known else "it has one speaker: name none"
            raise InputError(f"this voice has no speaker {str(voice)[:60]!r}; {had}")
        return int(known[voice])

    def _one(self, text: str, speaker: int | None) -> SpokenText:
        from piper import SynthesisConfig

        chosen = SynthesisConfig(speaker_id=speaker, length_scale=self.engine.config.length_scale / self.rate)
        pieces = [piece.audio_float_array for piece in self.engine.synthesize(text, chosen)]
        if not pieces:
            raise InputError(f"Piper finds nothing to say in {text[:60]!r}; give words")
        return SpokenText(
            samples=np.concatenate(pieces).astype(np.float32), sample_rate=int(self.engine.config.sample_rate)
        )
