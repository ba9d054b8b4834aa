"""Units of Whisper, and what speaks units: made alike wherever real recordings are learned from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.pretrained import EncoderSource
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.fitting.tokenizers import load_recordings, steps_of
from unitok_training.fitting.units import ChosenUnits
from unitok_training.fitting.waveforms.vocoder import (
    MelVocoderTraining,
    UnitMelTraining,
    train_mel_vocoder,
    train_unit_mel,
)
from unitok_vocoder.mel_vocoder import MelVocoder
from unitok_vocoder.vocoder import Vocoder


def whisper_units(whisper: Path, layer: int) -> ChosenUnits:
    """25 units a second of a block of Whisper's encoder, unpadded."""
    return ChosenUnits(encoder=EncoderSource(kind="whisper_unpadded", folder=whisper, layer=layer), pool=2)


def trained_vocoder(rows: Sequence[Row], *, steps: int, seed: int, compute: Compute) -> MelVocoder:
    """Log-mels to samples, learned from recordings."""
    config = MelVocoderTraining(steps=steps, seed=seed)
    return train_mel_vocoder(load_recordings(rows), None, config, compute=compute, progress=steps_of("vocoder", steps))


def trained_synthesizer(
    rows: Sequence[Row], units: UnitTokenizer, vocoder: MelVocoder, *, steps: int, seed: int, compute: Compute
) -> Vocoder:
    """Units and a voice to log-mels, learned from recordings, and those to samples; with the voices of the rows."""
    mel = MelConfig()
    recordings = load_recordings(rows, mel.sample_rate)
    stride = round(float(mel.frame_rate / units.frame_rate))
    heard = [
        one[: len(samples) // mel.hop_length // stride]
        for one, samples in zip(units.encode_batch(recordings), recordings)
    ]
    model, voices = train_unit_mel(
        recordings, heard, [row.speaker for row in rows], units.cardinality, UnitMelTraining(steps=steps, seed=seed),
        stride=stride, mel=mel, compute=compute, progress=steps_of("unit synthesizer", steps),
    )  # fmt: skip
    return Vocoder(vocoder, model, voices)
