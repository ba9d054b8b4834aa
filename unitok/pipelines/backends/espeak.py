"""espeak-ng as synthesizer, spoken by a helper process that repeats itself bit for bit (extra `demo`)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitok.pipelines.backends import interfaces
from unitok.pipelines.backends.interfaces import SpokenText
from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.corpora.espeak import SAMPLE_RATE, Utterance, Voice, speak_all
from unitok_tokenizers.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EspeakSynthesizer:
    """espeak-ng with one speed and pitch; a voice is an espeak variant such as `f2` or `m3`."""

    variant: str = "m3"
    """Variant where no voice is asked for."""
    rate: int = 160
    """Words a minute."""
    pitch: int = 50
    """espeak's pitch, 0 to 99."""

    def speak(self, texts: Sequence[str], *, lang: str, voice: interfaces.Voice = None) -> list[SpokenText]:
        """As `Synthesizer.speak`.

        Raises:
            InputError: espeak-ng is not installed, or refuses the voice.
        """
        if voice is not None and not isinstance(voice, str):
            raise InputError("espeak-ng imitates no recording; name a variant such as f2 or m3")
        chosen = Voice(voice or self.variant, voice or self.variant, self.pitch)
        jobs = [
            Utterance(
                id=str(index), group=str(index), lang=lang, split="test", text=text, voice=chosen, rate=self.rate,
                pitch=self.pitch,
            )
            for index, text in enumerate(texts)
        ]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            speak_all(jobs, Path(folder), workers=1)
            return [
                SpokenText(
                    samples=read_audio(Path(folder) / f"{job.id}.flac", sample_rate=SAMPLE_RATE),
                    sample_rate=SAMPLE_RATE,
                )
                for job in jobs
            ]
