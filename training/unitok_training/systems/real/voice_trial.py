"""What speaks in voices that were held out, and what two independent ears make of it.

N recordings, S samples, E width of a voice vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch

from unitok_tokenizers.audio.features import log_mel
from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_training.evaluation.ears.find import find_ears
from unitok_training.evaluation.ears.interfaces import Ear, SpeakerEncoder
from unitok_training.fitting.tokenizers import FitConfig, fit_units
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_parts import word_errors
from unitok_training.systems.real.settings import whisper_folder
from unitok_training.systems.real.speaking import trained_synthesizer, trained_vocoder, whisper_units
from unitok_training.systems.real.voice_recordings import RATE, HeldOut, RealVoicesConfig, Recordings
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.vocoder import Vocoder


class Speakers:
    """Units, a vocoder and synthesizers, each made once in a run folder."""

    def __init__(self, bench: Bench, config: RealVoicesConfig, recordings: Recordings) -> None:
        self.run, self.report, self.config, self.recordings = bench.run, bench.report, config, recordings

    @property
    def compute(self) -> Compute:
        """Where all is trained."""
        return resolve("cpu", self.config.precision)

    @cached_property
    def units(self) -> UnitTokenizer:
        """Units of Whisper's encoder, 25 a second."""
        folder, config = self.run / "units", self.config
        if not folder.exists():
            self.report(f"{config.clusters} units")
            chosen = whisper_units(whisper_folder(asdict(config)), config.layer)
            fit = FitConfig(
                clusters=config.clusters, units=chosen, codec=None, precision=config.precision, seed=config.seed
            )
            made = fit_units(self.recordings.heard, fit)
            with atomic_directory(folder) as draft:
                made.save(draft)
        return UnitTokenizer.load(folder)

    @cached_property
    def vocoder(self) -> MelVocoder:
        """Log-mels to samples."""
        folder, config = self.run / "vocoder", self.config
        if not folder.exists():
            self.report(f"mel vocoder: {config.vocoder_steps} steps")
            made = trained_vocoder(
                self.recordings.heard, steps=config.vocoder_steps, seed=config.seed, compute=self.compute
            )
            with atomic_directory(folder) as draft:
                made.save(draft)
        return MelVocoder.load(folder)

    def synthesizer(self, count: int, seed: int) -> Vocoder:
        """What speaks units, learned from so many speakers."""
        folder, config = self.run / f"{count}-{seed}", self.config
        if not folder.exists():
            self.report(f"synthesizer of {count} speakers, seed {seed}: {config.steps} steps")
            made = trained_synthesizer(
                self.recordings.learned(count), self.units, self.vocoder, steps=config.steps, seed=seed,
                compute=self.compute,
            )  # fmt: skip
            with atomic_directory(folder) as draft:
                made.save(draft)
        return Vocoder.load(folder)


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """How like the voices that were asked for N recordings sound."""

    similarity: Counted
    """Cosine with the reference of the voice."""
    first: Counted
    """Whether no other voice's reference is nearer."""


class Judges:
    """Two ears that know nothing of what is trained here, and the voices among which they choose.

    Raises:
        InputError: one of the ears is not installed.
    """

    def __init__(self, config: RealVoicesConfig, voices: Sequence[HeldOut]) -> None:
        found = find_ears(config.whisper or "auto")
        if found is None or found.ear is None or found.speaker is None:
            raise InputError(
                "no ear for words, or none for voices, is installed: make install-real, or name a folder that holds "
                "both: --set whisper=FOLDER (with Resemblyzer's pretrained.pt in it)"
            )
        self.ear: Ear = found.ear
        self.speaker: SpeakerEncoder = found.speaker
        self.references = self._embedded([one.reference for one in voices])

    def _embedded(self, sounds: Sequence[np.ndarray]) -> np.ndarray:
        """(N, E) of (S,) each."""
        return self.speaker.embed([resample(one, RATE, self.speaker.sample_rate) for one in sounds])

    def likeness(self, sounds: Sequence[np.ndarray]) -> Likeness:
        """Of what each of the voices has said (S,), in their order."""
        cosines, ones = self._embedded(sounds) @ self.references.T, np.ones(len(sounds))
        own = cosines.diagonal()
        nearest = (cosines.argmax(1) == np.arange(len(sounds))) & (own > 0)
        return Likeness(
            similarity=Counted(counts=own.astype(np.float64), sizes=ones),
            first=Counted(counts=nearest.astype(np.float64), sizes=ones),
        )

    def errors(self, texts: Sequence[str], sounds: Sequence[np.ndarray]) -> Counted:
        """Words that are read otherwise in (S,) each."""
        read = self.ear.transcribe([resample(one, RATE, self.ear.sample_rate) for one in sounds])
        return word_errors([self.ear.normalize(text) for text in texts], read)


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What is heard of one synthesizer."""

    words: Counted
    """Errors."""
    voice: Likeness
    """Whose voice."""


class Trial:
    """What held-out voices say through one synthesizer after another."""

    def __init__(self, speakers: Speakers, voices: Sequence[HeldOut], judges: Judges) -> None:
        self.speakers, self.voices, self.judges = speakers, voices, judges
        self.said = [one.said.load(RATE) for one in voices]
        self.texts = [one.said.text or "" for one in voices]
        self.contents = self._units(self.said)
        self.own = self._units([one.prompt for one in voices])

    def _units(self, sounds: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [deduplicate(one) for one in self.speakers.units.encode_batch(list(sounds))]

    def controls(self) -> Figures:
        """What the ears make of the recordings, and of the same through log-mels and back."""
        prompts, speak = [one.prompt for one in self.voices], Vocoder(self.speakers.vocoder)
        found = Figures()
        for name, shown, said in (
            ("recordings", prompts, self.said),
            ("mels", [remade(speak, one) for one in prompts], [remade(speak, one) for one in self.said]),
        ):
            voice, words = self.judges.likeness(shown), self.judges.errors(self.texts, said)
            found |= {f"{name}.first": voice.first.rate, f"{name}.similarity": voice.similarity.rate}
            found[f"{name}.wer"] = words.rate
        return found

    def heard(self, vocoder: Vocoder) -> dict[str, Heard]:
        """Of recordings through units in their speaker's own voice, of what is said in that of a prompt, and of the
        same in the mean voice of the training."""
        prompts = [vocoder.voice_of(one.prompt) for one in self.voices]
        own = [vocoder.voice_of(one) for one in self.said]
        copies, remade_prompts = self._spoken(vocoder, self.contents, own), self._spoken(vocoder, self.own, prompts)
        found = {"copied": self._heard(copies, remade_prompts)}
        for name, voices in (("prompted", prompts), ("unprompted", [None] * len(prompts))):
            sounds = self._spoken(vocoder, self.contents, voices)
            found[name] = self._heard(sounds, sounds)
        return found

    def _spoken(
        self, vocoder: Vocoder, said: Sequence[tuple[np.ndarray, np.ndarray]], voices: Sequence[np.ndarray | None]
    ) -> list[np.ndarray]:
        return [
            vocoder.from_units(units, voice=voice, durations=durations)
            for (units, durations), voice in zip(said, voices, strict=True)
        ]

    def _heard(self, words: Sequence[np.ndarray], voices: Sequence[np.ndarray]) -> Heard:
        return Heard(words=self.judges.errors(self.texts, words), voice=self.judges.likeness(voices))


def remade(vocoder: Vocoder, samples: np.ndarray) -> np.ndarray:
    """(S,) through log-mels and back."""
    return vocoder.from_features(log_mel(torch.from_numpy(samples), vocoder.mel_config))
