"""Training of the built-in codec on any manifest: what `unitok train-codec` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from unitok_tokenizers.acoustic.mel_network import STRIDE
from unitok_tokenizers.audio.backgrounds import among_noises
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.compute import AUTO, Compute, check_precision, resolve
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.encoders.registry import ready_encoder, ready_encoders
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, ensure_folder, fingerprint, intact, read_json, write_json
from unitok_tokenizers.seeds import check_seed
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.fitting.codec import CodecConfig, train_codec
from unitok_training.fitting.ctc import CtcConfig
from unitok_training.fitting.kept import Keeping, Kept
from unitok_training.fitting.tokenizers import (
    FitConfig,
    fit_units,
    fitting_rows,
    load_recordings,
    some_recorded,
    sounding_rows,
)
from unitok_training.fitting.waveforms.vocoder_run import FREE, RECIPE, recordings_fingerprint
from unitok_training.trainer.distributed import World
from unitok_training.trainer.run_state import written_alone

UNITS, CODEC = "units", "codec"
"""Folders of a run: the tokenizer of the first codebook, and what `--codec mel_rvq:FOLDER` opens."""
UNITS_FROM = "units.json"
"""File of a run: what its units were fitted with, where it has fitted them itself."""


@dataclass(frozen=True, kw_only=True)
class UnitsRecipe:
    """The units of the first codebook, where no tokenizers are given."""

    encoder: str = "ctc"
    """Frames under them: `ctc` (trained, needs text; MFCC where there is none), or one that is not trained, of whose
    frames as many are averaged as make one of the codec's."""
    encoder_steps: int = 700
    """Training steps of the CTC encoder."""
    clusters: int = 384
    """Units."""
    cluster_recordings: int = 600
    """Recordings whose frames are clustered."""

    def __post_init__(self) -> None:
        known = ("ctc", *ready_encoders())
        if self.encoder not in known:
            raise InputError(f"units.encoder is {self.encoder!r}: choose one of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class CodecRecipe:
    """How a codec is trained."""

    codec: CodecConfig = field(default_factory=CodecConfig)
    """Codebooks, sizes, steps."""
    units: UnitsRecipe = field(default_factory=UnitsRecipe)
    """The first codebook."""
    recordings: int = 2000
    """Most recordings that are learned from, and of those two hours at most."""
    noises: bool = True
    """Whether recordings are also heard among noises, as `fit-tokenizers` does."""
    keeping: Keeping = field(default_factory=Keeping)
    """How often the run is written down."""
    precision: str = AUTO
    """One of `unitok_tokenizers.compute.PRECISIONS`."""
    seed: int = 0
    """Of the units and of which recordings are taken; `codec.seed` is that of the codec."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_precision(self.precision)
        if self.precision == "bf16-pure":
            raise InputError("precision is 'bf16-pure': choose auto, fp32 or bf16; `unitok train` alone takes it")
        if self.recordings < 1:
            raise InputError(f"recordings is {self.recordings}: it must be 1 or more")


def train_codec_run(
    rows: Sequence[Row],
    out: Path | str,
    recipe: CodecRecipe,
    *,
    units: UnitTokenizer | None = None,
    device: str = "auto",
    notice: Callable[[str], None] | None = None,
    world: World | None = None,
) -> Path:
    """Train the built-in codec and write `out`/codec; returns its path. A repeat goes on from the newest checkpoint.

    Args:
        rows: of a manifest; those of the training split are learned from, all where none is named so.
        out: run folder.
        recipe: how.
        units: of the first codebook; fitted first, and kept in `out`/units, where None.
        device: "cpu", "cuda", "cuda:N" or "auto"; of several processes each has that of the world.
        notice: called with what was left out of the recordings.
        world: processes that share the training; the first one writes.

    Raises:
        InputError: no recordings, units of another frame rate, a run of another recipe or other data there, or another
            process that writes it.
    """
    world, run = world or World(), Path(out)
    compute = resolve(device if world.size == 1 else world.device, recipe.precision)
    ensure_folder(run)
    fitting = fitting_rows(sounding_rows(rows))
    if notice is not None:
        for line in fitting.lines():
            notice(line)
    chosen = some_recorded(fitting.rows, recipe.recordings, recipe.seed)
    if not chosen:
        raise InputError("no training row has audio: a codec is trained on recordings")
    mel = MelConfig()
    recordings = load_recordings(chosen, mel.sample_rate)
    with written_alone(run, world):
        if units is None:
            units = _fitted(run, fitting.rows, recipe, recordings_fingerprint(recordings), device, world)
        _check_rate(units, mel)
        heard = among_noises(recordings, mel.sample_rate, recipe.seed) if recipe.noises else recordings
        units.to(compute.device)
        if _causal_units(recipe) and units.latency_ms is None and notice is not None:
            notice(
                f"the units of the {units.encoder.name} encoder are known at the end of a recording only: this codec "
                "can speak codes as they come, and cannot make them so"
            )
        with _kept(run, recipe, compute, recordings_fingerprint(recordings), units, world) as kept:
            codec = train_codec(heard, units, recipe.codec, mel=mel, compute=compute, kept=kept, world=world)
        units.to("cpu")
        if world.is_main:
            write_json(run / RECIPE, asdict(recipe))
            with atomic_directory(run / CODEC) as draft:
                codec.save(draft)
        world.barrier()
        return run / CODEC


def _fitted(run: Path, rows: Sequence[Row], recipe: CodecRecipe, data: str, device: str, world: World) -> UnitTokenizer:
    """Units that this run has fitted, now or before it was stopped."""
    made_from = {**asdict(recipe.units), "seed": recipe.seed, "recordings": data}
    made_from["rows"] = fingerprint([[row.id, row.split, row.text, row.offset, row.seconds] for row in rows])
    if _causal_units(recipe):
        made_from["causal"] = True
    if world.agree(int((run / UNITS).is_dir() and (run / UNITS_FROM).is_file())):
        if {"rows": made_from["rows"], **read_json(run / UNITS_FROM)} != made_from:
            raise InputError(
                f"{run} holds units of other settings or recordings: choose another output folder, or the same settings"
            )
        with intact(run / UNITS, "remove it and its description, to fit them again"):
            return UnitTokenizer.load(run / UNITS)
    found = _fit(rows, recipe, device, world)
    if world.is_main:
        with atomic_directory(run / UNITS) as draft:
            found.save(draft)
        write_json(run / UNITS_FROM, made_from)  # last: with it they are whole
    world.barrier()
    return UnitTokenizer.load(run / UNITS)


def _causal_units(recipe: CodecRecipe) -> bool:
    """Whether the units must look back only: those that teach a first codebook may look forward."""
    return recipe.codec.causal and not recipe.codec.distilled


def _fit(rows: Sequence[Row], recipe: CodecRecipe, device: str, world: World) -> UnitTokenizer:
    """Units as `fit-tokenizers` fits them; of an encoder that is not trained at the codec's rate."""
    kind, sounding = recipe.units.encoder, [row for row in rows if row.audio is not None]
    if kind == "ctc" and any(row.text for row in sounding):
        config = FitConfig(
            clusters=recipe.units.clusters, cluster_recordings=recipe.units.cluster_recordings,
            ctc=CtcConfig(steps=recipe.units.encoder_steps, seed=recipe.seed, causal=_causal_units(recipe)), codec=None,
            precision=recipe.precision, device=device, seed=recipe.seed,
        )  # fmt: skip
        return fit_units(sounding, config, world=world)
    encoder = ready_encoder("mfcc" if kind == "ctc" else kind)
    pool = encoder.frame_rate / (MelConfig().frame_rate / STRIDE)
    assert pool.denominator == 1, "encoders that are not trained have some 25 frames a second, or a multiple"
    chosen = some_recorded(sounding, recipe.units.cluster_recordings, recipe.seed)
    recordings = load_recordings(chosen, encoder.sample_rate)
    return UnitTokenizer.fit_stream(
        encoder, recordings, recipe.units.clusters, seed=recipe.seed, pool=int(pool)
    )  # fmt: skip


def _check_rate(units: UnitTokenizer, mel: MelConfig) -> None:
    if units.frame_rate != mel.frame_rate / STRIDE or units.sample_rate != mel.sample_rate:
        raise InputError(
            f"these units come {float(units.frame_rate):g} times a second at {units.sample_rate} Hz, and the codec's "
            f"first codebook {float(mel.frame_rate / STRIDE):g} times at {mel.sample_rate} Hz; leave --tokenizers out, "
            "or take units of that rate"
        )


def _kept(run: Path, recipe: CodecRecipe, compute: Compute, data: str, units: UnitTokenizer, world: World) -> Kept:
    settings = {**asdict(recipe), "recordings_fingerprint": data, "tokenizer": units.fingerprint}
    return Kept(
        run, steps=recipe.codec.steps, settings=settings, compute=compute, keeping=recipe.keeping, free=FREE,
        world=world,
    )  # fmt: skip
