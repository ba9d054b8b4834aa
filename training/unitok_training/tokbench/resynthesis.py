"""Held-out recordings again, from their tokens alone.

F frames, Q codebooks, S samples, M mel bins, E width of a voice vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.dmel import DmelCodec
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.progress import advance
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_training.fitting.tokenizers import steps_of
from unitok_training.fitting.waveforms.vocoder import UnitMelTraining, train_unit_mel
from unitok_training.tokbench.contestants import Contestant, Tokens
from unitok_training.tokbench.corpus import Corpus, load_all
from unitok_training.tokbench.measured import NotMeasured
from unitok_vocoder.vocoder import Vocoder


@dataclass(frozen=True, kw_only=True)
class Synthesizing:
    """What speaks, where a codec does not."""

    steps: int = 900
    """Updates of a unit synthesizer; 0 leaves units unspoken."""
    vocoder: Vocoder | None = None
    """Speaks the codes of the codec that it was trained for, and its log-mels; Griffin-Lim speaks others."""
    seed: int = 0
    """Of the unit synthesizer."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"--synthesizer-steps is {self.steps}: give 1 or more, or 0 to leave units unspoken")


@dataclass(frozen=True, kw_only=True)
class Resynthesis:
    """What was made."""

    audio: list[np.ndarray]
    """(S,) of each held-out recording."""
    sample_rate: int
    """Hz."""
    by: str
    """What made it, for people."""


def resynthesize(
    one: Contestant, tokens: Tokens, corpus: Corpus, config: Synthesizing, compute: Compute
) -> Resynthesis:
    """Every held-out recording from its tokens; NotMeasured, with the reason, where nothing can speak them."""
    if one.info.kind == "units":
        return from_units(one, tokens, corpus, config, compute)
    return from_codes(cast(AcousticTokenizer, one.tokenizer), tokens.held_out, config.vocoder)


def from_codes(codec: AcousticTokenizer, codes: Sequence[np.ndarray], vocoder: Vocoder | None) -> Resynthesis:
    """Codes (F, Q) each, by what was trained to speak them, the codec's own decoder, or through its log-mels."""
    if vocoder is not None and vocoder.speaks(codec):
        audio = []
        for done, table in enumerate(codes, 1):
            audio.append(vocoder.from_codes(table, codec))
            advance("recording spoken", done, len(codes))
        return Resynthesis(audio=audio, sample_rate=vocoder.sample_rate, by="the vocoder of its codes")
    speaker, by = Vocoder(None), "its own decoder"
    if isinstance(codec, MelCodec | DmelCodec):
        speaker, by = speaker_of(codec.mel if isinstance(codec, MelCodec) else codec.config.mel, vocoder)
    audio, rate = [], codec.sample_rate
    for done, table in enumerate(codes, 1):
        samples = codec.decode(table) if len(table) else np.zeros(0, dtype=np.float32)
        if samples is None:
            features = codec.decode_features(table)
            assert features is not None, "a codec decodes to samples or to features"
            samples, rate = speaker.from_features(torch.from_numpy(features)), speaker.sample_rate
        audio.append(samples)
        advance("recording spoken", done, len(codes))
    return Resynthesis(audio=audio, sample_rate=rate, by=by)


def speaker_of(mel: MelConfig, vocoder: Vocoder | None) -> tuple[Vocoder, str]:
    """What speaks log-mels of these settings, and its name."""
    if vocoder is not None and vocoder.mel is not None and vocoder.mel_config == mel:
        return Vocoder(vocoder.mel), "the mel vocoder"
    return Vocoder(None, mel_config=mel), "Griffin-Lim"


def from_units(one: Contestant, tokens: Tokens, corpus: Corpus, config: Synthesizing, compute: Compute) -> Resynthesis:
    """Units through a synthesizer that learns them from the training rows.

    It is given the units of every frame, so that durations are true, and the mean voice of the training speakers: a
    voice of the recording itself would tell what the units do not.
    """
    if not config.steps:
        raise NotMeasured("--synthesizer-steps is 0")
    given = config.vocoder  # one of codes alone says nothing of units
    mel = given.mel_config if given is not None and given.mel is not None else MelConfig()
    stride = float(mel.frame_rate) / one.frame_rate
    if stride != round(stride) or stride < 1:
        raise NotMeasured(f"{one.frame_rate:g} units a second do not divide {float(mel.frame_rate):g} mel frames")
    recordings = load_all(corpus.train, mel.sample_rate)
    pairs = zip(tokens.train, recordings, strict=True)
    # An encoder that pads may give a frame more than there are mel frames for.
    units = [table[: len(samples) // mel.hop_length // round(stride), 0] for table, samples in pairs]
    try:
        model, voices = train_unit_mel(
            recordings, units, [row.speaker for row in corpus.train], one.info.cardinalities[0],
            UnitMelTraining(steps=config.steps, seed=config.seed), stride=round(stride), mel=mel, compute=compute,
            progress=steps_of("unit synthesizer", config.steps),
        )  # fmt: skip
    except InputError as error:  # recordings that are all shorter than a unit
        raise NotMeasured(str(error)) from error
    vocoder, by = speaker_of(mel, config.vocoder)
    speaker = Vocoder(vocoder.mel, model, voices)
    audio = []
    for done, table in enumerate(tokens.held_out, 1):
        runs, durations = deduplicate(table[:, 0])
        audio.append(speaker.from_units(runs, durations=durations))
        advance("recording spoken", done, len(tokens.held_out))
    return Resynthesis(
        audio=audio, sample_rate=speaker.sample_rate, by=f"a unit synthesizer of {config.steps} steps, {by}"
    )
