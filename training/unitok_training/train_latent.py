"""A latent run from a manifest to a model directory: what `unitok train-latent` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unitok.decoder.model import Decoder
from unitok.frontends.adapters.base import Adapter, AdapterSizes
from unitok.frontends.adapters.registry import make_adapter
from unitok.frontends.base import LatentFrontEnd
from unitok.model import Model
from unitok.nbest.audio_context import encoder_of
from unitok_tokenizers.compute import map_large_blocks
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.combined import LayerMix, SideBySide
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.encoders.pitch import PitchEncoder
from unitok_tokenizers.encoders.registry import ready_encoder, ready_encoders
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, write_json
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.latent_tasks import LATENT_TASKS, asked_items
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.latent import score_lines
from unitok_training.fitting.tokenizers import FitConfig, fit_text, training_rows
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.train import first_new_row
from unitok_training.trainer.decoder import HELD_OUT
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.latent import latent_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.parts import all_moving

MARGIN = 1.5
"""Answers may be so much longer, in pieces per vector, than any of the training."""


def make_encoder(choice: EncoderChoice, labels: int) -> FrameEncoder:
    """The encoder that a recipe names. `labels` are those of a CTC head, blank included."""
    encoder = _plain_encoder(choice, labels)
    if choice.mix or choice.layer is not None:
        encoder = LayerMix(encoder, None if choice.mix else choice.layer)
    if choice.beside:
        encoder = SideBySide(encoder, _second_encoder(choice.beside))
    return encoder


def _plain_encoder(choice: EncoderChoice, labels: int) -> FrameEncoder:
    if choice.kind in ready_encoders():
        return ready_encoder(choice.kind)
    if choice.kind == "pretrained":
        if not choice.folder:
            raise InputError(
                "encoder.folder is empty: name a local folder with a HuBERT, wav2vec 2.0, WavLM or Whisper"
            )
        return encoder_of(choice.folder)
    trunks = {"conformer": ConformerEncoder, "transformer": TransformerEncoder}
    if choice.kind not in trunks:
        known = ", ".join([*trunks, *ready_encoders(), "pretrained"])
        raise InputError(f"encoder.kind is {choice.kind!r}: choose one of {known}")
    sizes = {name: getattr(choice, name) for name in ("width", "layers", "heads", "inner", "dropout")}
    return trunks[choice.kind](TrunkConfig(**sizes, labels=labels if choice.ctc else 0))


def _second_encoder(name: str) -> FrameEncoder:
    if name == "voice":
        return SideBySide(FilterbankEncoder(centered=False), PitchEncoder())
    return ready_encoder(name) if name in ready_encoders() else encoder_of(name)


def make_front_end(
    recipe: LatentRecipe, decoder: Decoder, pieces: int, encoder: FrameEncoder | None = None
) -> LatentFrontEnd:
    """A new front end for a decoder, around a given encoder or a new one. `pieces` are what a CTC head tells apart."""
    torch.manual_seed(recipe.train.seed)
    encoder = encoder or make_encoder(recipe.encoder, pieces + 1)
    sizes = AdapterSizes(frames=encoder.width, vectors=decoder.config.width, labels=encoder.labels)
    adapter = make_adapter(recipe.adapter.kind, sizes, recipe.adapter.options())
    rows = decoder.embedding.detach()[:pieces]
    adapter.initialize(rows)
    if recipe.adapter.match_scale:
        adapter.match_scale(rows)
    return LatentFrontEnd(encoder, adapter)


@dataclass(frozen=True)
class LatentRun:
    """What a run trained."""

    model: Model
    folder: Path
    """Its model directory."""
    scores: dict[str, Any]
    """What `score_lines` gives on held-out rows, and the parameters that moved; empty but in the first process."""


def train_latent(
    recipe: LatentRecipe,
    manifest: Path | str | Sequence[Row],
    out: Path | str,
    *,
    start: Path | str | None = None,
    device: torch.device | str | None = None,
    split: str = "test",
    limit: int = 200,
    allow_change: Sequence[str] = (),
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> LatentRun:
    """Train a recipe on a manifest and write `out`/model and `out`/scores.json; the first process does, of several.

    Args:
        recipe: what to train.
        manifest: rows with audio and text; rows of one group are translations of each other.
        out: run folder; a repeat continues from its newest checkpoint.
        start: a model directory whose decoder, vocabulary, tokenizers and, where it has one, front end are taken over;
            of the front end the encoder alone where the recipe names another adapter.
        device: where to train; a GPU where there is one.
        split: rows that are scored at the end; none where the manifest has none of it.
        limit: most rows of a task that are scored.
        allow_change: settings, as dotted keys, that may differ from those of the run that is continued.
        on_row: called with each row of metrics, in every process.

    Raises:
        InputError: a recipe, start and manifest that do not fit together.
    """
    map_large_blocks()
    rows = read_manifest(manifest) if isinstance(manifest, str | Path) else list(manifest)
    run = Path(out)
    ensure_folder(run)
    run.mkdir(parents=True, exist_ok=True)
    model, new = _start(recipe, rows, start)
    assert model.latent is not None
    config = recipe.train
    source = _source(recipe, model, training_rows(rows), recipe.mixture, augmented=config.augment)
    if recipe.curriculum.tasks and start is None:
        source.follow(recipe.curriculum, config.steps * config.packs_per_step * config.pack_size)
    held_out = _held_out(recipe, model, rows) if config.eval_every else None
    first_new = first_new_row(model, model.vocabulary)
    with world_from_environment(None if device is None else torch.device(device).type) as world:
        if world.is_main:
            recipe.save(run / "recipe.json")
        setup = latent_setup(
            config, recipe.tuning, model.latent, model.decoder, source, world, first_new=first_new, held_out=held_out,
            frames=recipe.frames,
        )  # fmt: skip
        trainer = Trainer(config, setup, run, world=world)
        trainer.resume(allow_change=allow_change)
        trainer.run(on_row=on_row)
    if not world.is_main:
        return LatentRun(model, run / "model", {})
    model.decoder.cpu().eval()
    model.latent.cpu().eval()
    model.limits = replace(model.limits, text_per_vector=MARGIN * source.text_per_vector())
    if new and not any("audio" in line.needs for line in source.lines):
        model.latent = None  # a stage of text alone: the next one makes a front end for the decoder that it finds
    model.save(run / "model")
    scores: dict[str, Any] = score_lines(model, [row for row in rows if row.split == split], recipe.mixture.keys, limit)
    scores["trainable_parameters"] = {
        name: sum(value.numel() for value in moving.values()) for name, moving in all_moving(trainer.parts).items()
    }
    write_json(run / "scores.json", scores)
    return LatentRun(model, run / "model", scores)


def _source(
    recipe: LatentRecipe, model: Model, rows: Sequence[Row], mixture: Mixture, *, augmented: bool
) -> LatentSource:
    assert model.latent is not None
    return LatentSource(
        rows, mixture, model.tokenizers.text, model.vocabulary, model.latent,
        seed=recipe.train.seed, augmented=augmented, phones=recipe.encoder.phones,
    )  # fmt: skip


def _held_out(recipe: LatentRecipe, model: Model, rows: Sequence[Row]) -> LatentSource:
    """Held-out rows with the tasks that they can serve, as they are; InputError where they serve none."""
    chosen = [row for row in rows if row.split == HELD_OUT]
    tasks = {key: recipe.mixture.tasks[key] for key in recipe.mixture.keys if asked_items(LATENT_TASKS[key], chosen)}
    if not tasks:
        raise InputError(
            f"train.eval_every is set, but no row of split {HELD_OUT!r} serves a task of the mixture; give the "
            "manifest such rows, or leave train.eval_every out"
        )
    return _source(recipe, model, chosen, Mixture(tasks=tasks), augmented=False)


def _start(recipe: LatentRecipe, rows: Sequence[Row], start: Path | str | None) -> tuple[Model, bool]:
    """(the model before training, from a directory or new; whether its front end is new)."""
    languages = sorted({row.lang for row in rows})
    if start is not None:
        model = Model.load(start)
        for code in languages:
            if code not in model.vocabulary.languages:
                model.vocabulary = model.vocabulary.append_language(code)
    else:
        text = fit_text(rows, FitConfig(text_pieces=recipe.text_pieces, seed=recipe.train.seed))
        bundle = TokenizerSet.of(text)
        vocabulary = bundle.vocabulary(languages)
        seeded = torch.Generator().manual_seed(recipe.train.seed)
        decoder = Decoder(recipe.decoder.config(vocabulary.size), generator=seeded)
        model = Model(decoder=decoder, vocabulary=vocabulary, tokenizers=bundle)
    pieces = model.vocabulary.streams["text"].cardinalities[0]
    new = model.latent is None
    if model.latent is None:
        model.latent = make_front_end(recipe, model.decoder, pieces)
    elif not _chosen(recipe.adapter, model.latent.adapter):
        model.latent = make_front_end(recipe, model.decoder, pieces, model.latent.encoder)
    tasks = [*model.info.get("tasks", []), *(f"latent.{key}" for key in recipe.mixture.keys)]
    model.info = {**model.info, "tasks": list(dict.fromkeys(tasks)), "preset": recipe.name}
    return model, new


def _chosen(choice: AdapterChoice, adapter: Adapter) -> bool:
    """Whether an adapter is what a recipe asks for."""
    given = adapter.to_json()
    return given["class"] == choice.kind and all(given["config"][k] == v for k, v in choice.options().items())
