"""A latent run from a manifest to a model directory: what `unitok train-latent` calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from unitok.model import Model
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json
from unitok_tokenizers.heap import map_large_blocks
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.files import STATE_FILE, is_checkpoint, list_checkpoints
from unitok_training.data.latent_examples import LatentSource
from unitok_training.data.latent_tasks import LATENT_TASKS, asked_items
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import check_shared
from unitok_training.evaluation.latent import score_lines
from unitok_training.fitting.spelling import fit_spelling
from unitok_training.fitting.tokenizers import FitConfig, fit_text, training_rows
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.run_models.checkpoint import model_of
from unitok_training.run_models.held_out import LatentScores
from unitok_training.run_models.latent import LatentStart, encoder_folders, kind_and_folder, spelled_as
from unitok_training.run_models.origin import (
    RECIPE,
    START,
    TOKENIZERS,
    LatentOrigin,
    check_run_folder,
    check_same_origin,
    place,
    weights_of,
    write_origin,
)
from unitok_training.trainer.decoder import HELD_OUT
from unitok_training.trainer.distributed import World, world_from_environment
from unitok_training.trainer.latent import frame_cache, latent_setup
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.parts import Part, all_moving
from unitok_training.trainer.run_state import measure_of, written_alone

MOST_OFTEN = 32
"""Memory that holds the decoder's weights so often is not saved at the price of time."""


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
        start: a model directory, or a checkpoint of a run, whose decoder, vocabulary, tokenizers and, where it has one,
            front end are taken over; of the front end the encoder alone where the recipe names another adapter.
        device: where to train; a GPU where there is one.
        split: rows that are scored at the end; none where the manifest has none of it.
        limit: most rows of a task that are scored.
        allow_change: settings, as dotted keys, that may differ from those of the run that is continued; "start".
        on_row: called with each row of metrics, in every process.

    Raises:
        InputError: a recipe, start and manifest that do not fit together.
    """
    rows, run = _read(manifest, limit), Path(out)
    check_run_folder(run, tokenizers=start is None)
    run.mkdir(parents=True, exist_ok=True)
    opened = _start(recipe, rows, start)
    model, config = opened.model, recipe.train
    _spare_memory(model)
    if model.latent is not None and model.latent.adapter.alphabet:
        recipe = replace(recipe, adapter=spelled_as(recipe.adapter, model.latent.adapter))
    source = _source(recipe, model, training_rows(rows), recipe.mixture, augmented=config.augment)
    if recipe.curriculum.tasks and start is None:
        source.follow(recipe.curriculum, config.steps * config.packs_per_step * config.pack_size)
    origin = _origin(recipe, manifest, start, source, _languages(rows))
    check_same_origin(run, origin, allow_change)
    opened.widen(origin.text_per_vector)
    kind = None if device is None else torch.device(device).type
    scorer = _scorer(recipe, model, rows) if config.eval_examples else None
    measure_of(config, () if scorer is None else scorer.scores)
    with world_from_environment(kind) as world, written_alone(run, world):
        check_shared(config.packs_per_step, world.size)
        if opened.new_adapter:  # which may take long: what can be refused before, is
            _spell(recipe, source, run, resolve(world.device, config.precision))
        setup = latent_setup(
            config, recipe.tuning, source.front_end, model.decoder, source, world, first_new=opened.first_new,
            held_out=_held_out(recipe, model, rows) if config.eval_every else None,
            scorer=scorer,
            frames=recipe.frames,
        )  # fmt: skip
        trainer = Trainer(config, setup, run, world=world)
        trainer.resume(allow_change=[key for key in allow_change if key != START])
        if world.is_main:  # once it is known that it can be continued so
            write_origin(run, origin)  # first: by it the folder is known as a run's
            recipe.save(run / RECIPE)
            if start is None:
                model.tokenizers.save(run / TOKENIZERS)
        trainer.run(on_row=on_row)
    if not world.is_main:
        return LatentRun(model, run / "model", {})
    model = opened.finished(recipe)
    model.save(run / "model")
    scores: dict[str, Any] = score_lines(model, [row for row in rows if row.split == split], recipe.mixture.keys, limit)
    scores["trainable_parameters"] = {
        name: sum(value.numel() for value in moving.values()) for name, moving in all_moving(trainer.parts).items()
    }
    write_json(run / "scores.json", scores)
    return LatentRun(model, run / "model", scores)


def _read(manifest: Path | str | Sequence[Row], limit: int) -> list[Row]:
    """The rows; InputError where none is to be scored."""
    if limit < 1:
        raise InputError(f"limit is {limit}: give 1 or more rows of a task to score")
    return read_manifest(manifest) if isinstance(manifest, str | Path) else list(manifest)


def _origin(
    recipe: LatentRecipe, manifest: Path | str | Sequence[Row], start: Path | str | None,
    source: LatentSource, languages: Sequence[str],
) -> LatentOrigin:  # fmt: skip
    """Where a run comes from."""
    encoder, beside = encoder_folders(recipe.encoder)
    folder = kind_and_folder(encoder)[1] if encoder else None
    return LatentOrigin(
        start=place(start), manifest=place(manifest) if isinstance(manifest, str | Path) else None,
        languages=tuple(languages), text_per_vector=source.text_per_vector(), encoder=encoder,
        beside=beside, start_weights=weights_of(start), encoder_weights=weights_of(folder),
        beside_weights=weights_of(beside),
    )  # fmt: skip


def _spare_memory(model: Model) -> None:
    """Map large blocks where memory is short."""
    weights = sum(value.numel() * value.element_size() for value in model.decoder.parameters())
    if MOST_OFTEN * weights > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        map_large_blocks()


def _spell(recipe: LatentRecipe, source: LatentSource, run: Path, compute: Compute) -> None:
    """Let a new adapter that spells learn its letters, where the recipe says so and the run has not begun before."""
    steps = recipe.train.spelling_steps
    if not steps or list_checkpoints(run / "checkpoints"):
        return
    if not source.front_end.adapter.alphabet or not recipe.tuning.encoder.frozen:
        raise InputError(
            "train.spelling_steps is for an adapter that spells behind an encoder that does not move: set "
            "adapter.kind=subwords (or spelling) and tuning.encoder.full=false, or leave it out"
        )
    front_end = source.front_end.to(compute.device)
    # As training has it, which finds the frames that are kept by what the encoder is.
    still = Part("encoder", front_end.encoder, recipe.tuning.encoder, recipe.train.optim, compute, World())
    try:
        kept = frame_cache(recipe.frames, recipe.tuning, front_end, compute.precision)
        fit_spelling(front_end, source, steps=steps, seed=recipe.train.seed, compute=compute, kept=kept)
    finally:
        still.restore()


def _start(recipe: LatentRecipe, rows: Sequence[Row], start: Path | str | None) -> LatentStart:
    """The model before training, of a start or of new tokenizers."""
    if start is not None and is_checkpoint(Path(start)) and not (Path(start) / STATE_FILE).is_file():
        raise InputError(f"{start} holds checkpoints, of which the newest changes; name one of them, step_XXXXXXXX")
    if start is None:
        config = FitConfig(text_pieces=recipe.text_pieces, seed=recipe.train.seed)
        given: Model | TokenizerSet = TokenizerSet.of(fit_text(rows, config))
    else:
        given = model_of(start)
    return LatentStart.of(recipe, given, _languages(rows), [row.text or "" for row in training_rows(rows)])


def _languages(rows: Sequence[Row]) -> list[str]:
    return sorted({row.lang for row in rows})


def _held_out_rows(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.split == HELD_OUT]


def _scorer(recipe: LatentRecipe, model: Model, rows: Sequence[Row]) -> LatentScores:
    """Scores of generated examples while it trains."""
    return LatentScores(model, _held_out_rows(rows), recipe.mixture.keys, examples=recipe.train.eval_examples)


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
    chosen = _held_out_rows(rows)
    tasks = {key: recipe.mixture.tasks[key] for key in recipe.mixture.keys if asked_items(LATENT_TASKS[key], chosen)}
    if not tasks:
        raise InputError(
            f"train.eval_every is set, but no row of split {HELD_OUT!r} serves a task of the mixture; give the "
            "manifest such rows, or leave train.eval_every out"
        )
    return _source(recipe, model, chosen, Mixture(tasks=tasks), augmented=False)
