"""Training of a vocoder on any manifest: what `unitok train-vocoder` calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import AcousticTokenizer, codec_mel
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, ensure_folder, fingerprint, write_json
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.kept import Kept
from unitok_training.fitting.tokenizers import fitting_rows, load_recordings, some_recorded, sounding_rows
from unitok_training.fitting.waveforms.vocoder_start import VocoderStart
from unitok_training.fitting.waveforms.waveform import VocoderRecipe, WaveTraining
from unitok_training.fitting.waveforms.waveform_sources import (
    Crops,
    CropSizes,
    PlainSource,
    UnitsSource,
    WaveSource,
    decoded_series,
    mel_series,
    pitch_series,
)
from unitok_training.trainer.distributed import World, check_alone
from unitok_training.trainer.run_state import written_alone
from unitok_vocoder.conditions import CodesInput, MelInput, UnitsInput, stride_of
from unitok_vocoder.generator import CONDITIONS, GENERATORS, Generator
from unitok_vocoder.losses import RESOLUTIONS
from unitok_vocoder.vocoder import Vocoder

RECIPE, VOCODER = "recipe.json", "vocoder"
"""Of a run: the resolved recipe, and the folder that `Vocoder.load` reads."""
FREE = ("keeping",)
"""Settings that a run may be continued with others of."""
SHORTEST = max(size for size, _ in RESOLUTIONS) // 2
"""Samples that a crop must have more of, for the widest window of the losses."""


def train_vocoder(
    rows: Sequence[Row],
    out: Path | str,
    recipe: VocoderRecipe,
    *,
    tokenizers: TokenizerSet | None = None,
    start: VocoderStart | None = None,
    device: str = "auto",
    notice: Callable[[str], None] | None = None,
) -> Path:
    """Train a vocoder and write `out`/vocoder; returns its path. A repeat goes on from the newest checkpoint.

    One process trains it: spectral convergence, what discriminators say and the balance between the losses are of a
    whole batch, no sums of what is said of its parts.

    Args:
        rows: of a manifest; those of the training split are learned from, all where none is named so.
        out: run folder.
        recipe: how.
        tokenizers: whose codes or units are spoken; from log-mels, the codec whose log-mels are learned from too.
        start: a network to train on, of the recipe's shape; its voices are kept. Weights are drawn where None.
        device: "cpu", "cuda", "cuda:N" or "auto".
        notice: called with what was left out of the recordings.

    Raises:
        InputError: no recordings, no tokenizer of what is to be spoken, a start of another shape or other tokens, a run
            of another recipe or other data there, another process that writes it, or several processes.
    """
    check_alone("a vocoder learns from discriminators")
    for registry, name in ((GENERATORS, recipe.kind), (CONDITIONS, recipe.given)):
        registry[name]  # InputError for one that there is not
    compute, run = resolve(device, recipe.precision), Path(out)
    maker = _maker(recipe, tokenizers)
    ensure_folder(run)
    fitting = fitting_rows(sounding_rows(rows))
    if notice is not None:
        for line in fitting.lines():
            notice(line)
    chosen = some_recorded(fitting.rows, recipe.recordings, recipe.seed)
    if not chosen:
        raise InputError("no training row has audio: a vocoder is trained on recordings")
    mel = _mel(recipe, maker)
    recordings = load_recordings(chosen, mel.sample_rate)
    if maker is not None:
        maker.to(compute.device)
    source, inputs = _source(recipe, recordings, [row.speaker for row in chosen], maker, mel)
    torch.manual_seed(recipe.seed)
    sizes = recipe.hifigan if recipe.kind == "hifigan" else recipe.vocos
    generator = Generator(recipe.kind, sizes, recipe.given, inputs, mel)
    if start is not None:
        start.check(recipe, inputs, generator)
        start.begin(generator)
    with written_alone(run, World()):
        training = WaveTraining(generator, source, recipe, compute)
        with _kept(run, recipe, compute, recordings, maker, start) as kept:
            training.run(kept)
        generator.cpu()
        voices = {**({} if start is None else start.voices), **source.voices(generator)}
        made = _vocoder(recipe, generator, voices)
        write_json(run / RECIPE, asdict(recipe))
        with atomic_directory(run / VOCODER, may_drop=("mel", "units", "codes", "voices.safetensors")) as draft:
            made.save(draft)
        return run / VOCODER


def _kept(
    run: Path,
    recipe: VocoderRecipe,
    compute: Compute,
    recordings: Sequence[np.ndarray],
    maker: AcousticTokenizer | UnitTokenizer | None,
    start: VocoderStart | None,
) -> Kept:
    settings: dict[str, Any] = {**asdict(recipe), "tokenizer": "" if maker is None else maker.fingerprint}
    settings["recordings_fingerprint"] = recordings_fingerprint(recordings)
    settings["start"] = "" if start is None else start.fingerprint
    return Kept(
        run, steps=recipe.steps, settings=settings, compute=compute, keeping=recipe.keeping, free=FREE
    )  # fmt: skip


def recordings_fingerprint(recordings: Sequence[np.ndarray]) -> str:
    """Identifies what is learned from by lengths and means: another manifest is another run."""
    return fingerprint([[len(one), float(np.abs(one).mean()) if len(one) else 0.0] for one in recordings])


def _maker(recipe: VocoderRecipe, tokenizers: TokenizerSet | None) -> AcousticTokenizer | UnitTokenizer | None:
    """The tokenizer whose tokens are spoken, or whose log-mels are; InputError where there is none.

    What is merged is spoken as the units in it: one network speaks both.
    """
    units = None if tokenizers is None else tokenizers.unit_tokenizer
    found: Mapping[str, AcousticTokenizer | UnitTokenizer | None] = {
        "codes": None if tokenizers is None else tokenizers.codec,
        "units": None if units is None else units.unmerged,
    }
    if recipe.given == "mel":
        codec = found["codes"]
        return codec if codec is not None and codec_mel(codec) is not None else None
    if found[recipe.given] is None:
        raise InputError(f"--from {recipe.given} needs a tokenizer that makes {recipe.given}; give --tokenizers DIR")
    return found[recipe.given]


def _mel(recipe: VocoderRecipe, maker: AcousticTokenizer | UnitTokenizer | None) -> MelConfig:
    """Sample rate, features of the losses, and as its hop the samples of a frame that the network is given."""
    if maker is None:
        return MelConfig()
    if recipe.given == "mel":
        found = codec_mel(maker)
        assert found is not None
        return found
    rate, hop = maker.sample_rate, samples_of(maker)
    plain = MelConfig(hop_length=hop // stride_of(hop))
    if rate == plain.sample_rate:
        return plain
    return MelConfig(sample_rate=rate, hop_length=plain.hop_length, fmax=min(plain.fmax, 0.475 * rate))


def samples_of(maker: AcousticTokenizer | UnitTokenizer) -> int:
    """Samples of a frame; InputError where they are not whole."""
    found = Fraction(maker.sample_rate) / maker.frame_rate
    if found.denominator != 1:
        raise InputError(f"a frame of {maker.name} lasts {float(found):g} samples: a vocoder needs whole ones")
    return int(found)


def _source(
    recipe: VocoderRecipe,
    recordings: Sequence[np.ndarray],
    speakers: Sequence[str],
    maker: AcousticTokenizer | UnitTokenizer | None,
    mel: MelConfig,
) -> tuple[WaveSource, MelInput | CodesInput | UnitsInput]:
    """Crops, and the sizes of what reads them."""
    hop = mel.hop_length if maker is None or recipe.given == "mel" else samples_of(maker)
    length = max(1, round(recipe.crop * mel.sample_rate / hop))
    least = length * hop
    if least <= SHORTEST:
        raise InputError(
            f"crop is {recipe.crop} s, {least} samples at {mel.sample_rate} Hz: the losses look at more than {SHORTEST}"
        )
    given = recordings
    recordings = [np.pad(one, (0, max(0, least - len(one)))) for one in recordings]  # of single words most are shorter
    sizes = CropSizes(hop=hop, length=length, batch=recipe.batch, seed=recipe.seed)
    if recipe.given == "mel" or maker is None:
        others = decoded_series(recordings, maker) if maker is not None and recipe.decoded_share else []  # type: ignore[arg-type]
        crops = Crops(recordings, mel_series(recordings, mel), sizes, others)
        return PlainSource(crops, recipe.decoded_share), MelInput(num_mels=mel.num_mels)
    tokens = maker.encode_batch(recordings)
    if isinstance(maker, UnitTokenizer):
        pitch = pitch_series(recordings, tokens, mel.sample_rate)
        pairs = [(torch.from_numpy(one), heard) for one, heard in zip(tokens, pitch)]
        made = UnitsInput(
            units=maker.cardinality, stride=stride_of(hop), made_by=maker.fingerprint, width=recipe.width
        )  # fmt: skip
        own = [one[: -(-len(samples) // hop)] for one, samples in zip(tokens, given)]
        return UnitsSource(Crops(recordings, pairs, sizes), speakers, mel, given, own), made
    crops = Crops(recordings, [(torch.from_numpy(one),) for one in tokens], sizes)
    return PlainSource(crops), CodesInput(
        cardinalities=tuple(maker.cardinalities), stride=stride_of(hop), made_by=maker.fingerprint, width=recipe.width
    )


def _vocoder(recipe: VocoderRecipe, generator: Generator, voices: dict[str, np.ndarray]) -> Vocoder:
    if recipe.given == "mel":
        return Vocoder(generator)
    if recipe.given == "codes":
        return Vocoder(None, codes=generator)
    return Vocoder(None, generator, voices)
