"""A training run from folders to a model directory: what `unitok train` calls."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.lora import LoraConfig, lora_config, plain_name
from unitok.decoder.model import Decoder
from unitok.huggingface.stored_core import bare_decoder
from unitok.model import Model
from unitok.model_directory import read_decoder, write_model
from unitok_tokenizers.files import write_json
from unitok_tokenizers.heap import map_large_blocks
from unitok_tokenizers.stored_tensors import StoredTensors
from unitok_training.checkpoint.state import read_checkpoint
from unitok_training.cost.advice import check_fits
from unitok_training.cost.devices import Device
from unitok_training.cost.memory import memory as memory_needed
from unitok_training.cost.step import setup_of
from unitok_training.evaluation.text_ability import TextEvals, evaluate_text, read_text_evals, text_ability
from unitok_training.objectives.teacher import Teacher
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.run_models.checkpoint import model_of
from unitok_training.run_models.held_out import TokenScores
from unitok_training.run_models.origin import (
    RECIPE,
    START,
    TokenOrigin,
    check_run_folder,
    check_same_origin,
    write_origin,
)
from unitok_training.run_models.spelling import can_spell, spell
from unitok_training.run_models.tokens import Beside, Materials, begun, finished, first_beside, first_new_row, materials
from unitok_training.shard_set import ShardSet, continued, open_shards, record
from unitok_training.trainer.decoder import HELD_OUT, train
from unitok_training.trainer.distributed import World, local_processes, world_from_environment

TEXTS = 200
"""Texts by which the ability of a language model is measured, or nearly twice as many."""


SPARE = 2.5
"""A processor's memory that holds so many times what a run needs is not saved at the price of time."""


def check_memory(
    recipe: DecoderRecipe, vocab_size: int, world: World, *, teacher: Teacher | None = None, force: bool = False
) -> None:
    """InputError, with the nearest that fits, where a recipe needs far more memory than this process's device has.

    A warning where it may just fit, or where `force` says that it is to be tried.
    """
    on_gpu = world.device.type == "cuda"
    if on_gpu:
        memory, sharers = torch.cuda.get_device_properties(world.device).total_memory, 1
    else:  # the processes of one machine share its memory
        memory, sharers = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), local_processes()
    place = Device(
        name="this GPU" if on_gpu else "this machine" if sharers == 1 else f"a process of {sharers} here",
        memory_bytes=memory // sharers, flops=1e12, bandwidth=1e12, link=0.0,
    )  # fmt: skip
    shape = None if teacher is None else teacher.decoder.config
    setup = setup_of(recipe, vocab_size, flash=on_gpu, processes=world.size, teacher=shape)
    if not on_gpu and SPARE * memory_needed(setup).peak > place.memory_bytes:
        map_large_blocks()
    said = check_fits(setup, place, force=force)
    if said and world.is_main:
        warnings.warn(said, stacklevel=3)


def train_model(
    recipe: DecoderRecipe,
    *,
    shards: Path | str | Sequence[Path | str],
    tokenizers: Path | str | None = None,
    out: Path | str,
    start: Path | str | None = None,
    streams: Mapping[str, str] | None = None,
    allow_change: Sequence[str] = (),
    force: bool = False,
    text_evals: Sequence[Path | str] = (),
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> Path | None:
    """Train a recipe and write `out`/model; returns its path, or None on processes other than the first.

    Args:
        recipe: what to train.
        shards: token shards: a folder, or several as `shard_set.open_shards` takes them, with weights and tasks.
        tokenizers: the tokenizers that made them; those of the model `start` where None. Units and codes that no
            tokenizer here makes are described by the shards, and the model keeps that description.
        out: run folder; a repeat continues from its newest checkpoint.
        start: a model directory or a run's checkpoints to take the weights from. A model also gives its shape (the
            recipe's `decoder` is not used), vocabulary (languages and streams of the shards join it), vocoder, voices
            and limits.
        streams: kind → which stream of the shards it stands for, where there are several; the vocabulary keeps it.
        allow_change: what may differ from the run that is continued: "shards", "start", and settings as dotted keys.
        force: try also what is predicted to need far more memory than there is.
        text_evals: files for `read_text_evals`, by which the model is measured before and after.
        on_row: called with each row of metrics, in every process.

    Raises:
        InputError: shards and tokenizers that do not belong together, a mixture without rows, a broken checkpoint, or
            other shards than those that the run was trained on.
    """
    evals = read_text_evals(text_evals)
    split = recipe.train.shard and int(os.environ.get("WORLD_SIZE", "1")) > 1
    opened = open_shards(shards, check=int(os.environ.get("RANK", "0")) == 0)  # read through once, by one process
    given = can_spell(materials(recipe, opened, tokenizers=tokenizers, start=start, streams=streams, split=split))
    recipe, base, run = given.recipe, given.base, Path(out)
    check_run_folder(run)
    origin = TokenOrigin.of(tokenizers, start, streams)
    check_same_origin(run, origin, allow_change)
    data, teacher = continued(run, given.data, may_change="shards" in allow_change), teacher_of(recipe)
    with world_from_environment() as world:
        check_memory(recipe, given.vocabulary.size, world, teacher=teacher, force=force)
        (decoder, initial), beside = begun(given, split=split), first_beside(given)
        before = _before(given, evals) if world.is_main else {}
        answering = finished(decoder, given, beside) if recipe.train.eval_examples else None
        taken = train(
            recipe.train, decoder, data, given.vocabulary, run,
            mixture=recipe.mixture, curriculum=recipe.curriculum, plans=recipe.plans,
            pieces=given.bundle.text.pieces(),
            tuning=recipe.tuning,
            first_new=None if base is None else first_new_row(base, given.vocabulary),
            initial=initial, spelling=recipe.spelling,
            distill=recipe.distill, teacher=teacher, layout=beside.layout, finished=beside.finished,
            scorer=None if answering is None else _scorer(recipe, answering, data),
            world=world,
            allow_change=[key for key in allow_change if key not in ("shards", START)],
            first=partial(spell, given, decoder, run, world),
            on_begin=partial(_keep, run, recipe, data, origin) if world.is_main else None,
            on_row=on_row,
        )  # fmt: skip
    if not world.is_main:
        return None
    # The other processes have left: none of them waits while the shards are looked through.
    given = replace(given, data=data)
    if initial is not None:
        trained = _written_by_files(taken, given, run, lora_config(decoder))
    else:
        for module in beside.modules().values():
            module.cpu().float().eval()
        trained = _written(decoder.cpu().float().eval(), given, run, answering, beside)
    _tell(given, run, evals, before, trained)
    return run / "model"


def _keep(run: Path, recipe: DecoderRecipe, data: ShardSet, origin: TokenOrigin) -> None:
    """Write what a run is, once it is known that it can be continued so."""
    write_origin(run, origin)  # first: by it the folder is known as a run's
    recipe.save(run / RECIPE)
    record(run, data)


def _written(decoder: Decoder, given: Materials, run: Path, answering: Model | None, beside: Beside) -> Model:
    """Write the model of a run that has ended, which is returned."""
    trained = finished(decoder, given, beside) if answering is None else replace(answering, decoder=decoder)
    trained.save(run / "model")
    return trained


def _written_by_files(taken: Path, given: Materials, run: Path, lora: LoraConfig | None) -> Model:
    """As `_written`, of a decoder that was split: weights go from the checkpoint's files to the model's, so that the
    whole is in no process after the run either; the model that is returned has none."""
    found = read_checkpoint(taken).model
    assert isinstance(found, StoredTensors)
    trained = finished(bare_decoder(given.decoder_config(), lora).eval(), given)
    write_model(trained, run / "model", {plain_name(name): value for name, value in found.stored.items()})
    return trained


def teacher_of(recipe: DecoderRecipe) -> Teacher | None:
    """The model that a recipe learns from. InputError where there is none, or the recipe's keys do not fit together."""
    recipe.distill.check()
    if not (path := recipe.distill.teacher):
        return None
    model = model_of(path)
    return Teacher(path=path, decoder=model.decoder, vocabulary=model.vocabulary)


def _scorer(recipe: DecoderRecipe, model: Model, data: ShardSet) -> TokenScores:
    """Scores of generated examples while it trains."""
    return TokenScores(model, data, recipe.mixture.keys, split=HELD_OUT, examples=recipe.train.eval_examples)


def _some_texts(data: ShardSet) -> tuple[str, list[np.ndarray]]:
    """(split, text ids of a few hundred utterances): of `dev` where any have text, else of `test`, else of `train`."""
    for split in ("dev", "test", "train"):
        found = list[np.ndarray]()
        for folder in data.folders:
            if "text_ids" not in folder.shards.table.column_names:
                continue
            rows = np.flatnonzero((folder.shards.split == split) & folder.shards.offsets("text_ids").some())
            chosen = rows[:: max(1, len(rows) * len(data.folders) // TEXTS)].tolist()
            found += [folder.shards.cell("text_ids", row) for row in chosen]
        if found:
            return split, found
    return "", []


def _before(given: Materials, evals: TextEvals) -> dict[str, Any]:
    """What the start makes of text before it is trained, as `_known`; nothing of a start without a model."""
    if given.base is None or not (_held_out_measured(given) or evals):
        return {}
    assert given.start is not None
    # Of a decoder that is to be split this is the one time that it is whole, in one process, and it is let go.
    decoder = given.base.decoder if given.start.stored is None else read_decoder(given.start.path, torch.float32)
    return _known(given, evals, decoder, given.base)


def _held_out_measured(given: Materials) -> bool:
    """Whether held-out texts of the shards tell what was lost: of an imported language model."""
    return given.base is not None and "imported_from" in given.base.info


def _known(given: Materials, evals: TextEvals, decoder: Decoder, model: Model) -> dict[str, Any]:
    """What a model's decoder makes of held-out texts, where they are measured, and of the files."""
    text, vocabulary, found = model.tokenizers.text, model.vocabulary, {}
    split, texts = _some_texts(given.data) if _held_out_measured(given) else ("", [])
    if texts:
        found = {**asdict(text_ability(decoder, texts, vocabulary)), "split": split}
    return {**found, **(evaluate_text(decoder, text, vocabulary, evals) if evals else {})}


def _tell(given: Materials, run: Path, evals: TextEvals, before: dict[str, Any], trained: Model) -> None:
    """Say where the model's speech comes from, if not from a network; write and print what it knew of text before, if
    it was one, and what it knows after, where it is asked."""
    if trained.fallback:
        print(f"this model {trained.fallback}", flush=True)
    if not before and not evals:
        return
    meta = trained.decoder.embedding.is_meta
    after = _known(given, evals, read_decoder(run / "model", torch.float32) if meta else trained.decoder, trained)
    write_json(run / "text_ability.json", {**({"before": before} if before else {}), "after": after})
    if "perplexity" in before:
        print(
            f"perplexity of texts of split {before['split']}: {before['perplexity']:.4g} before, "
            f"{after['perplexity']:.4g} after",
            flush=True,
        )
    for name, value in after.get("text", {}).items():
        if isinstance(value, float):
            was = before.get("text", {}).get(name)
            print(f"text.{name}: {f'{was:.4g} before, ' if was is not None else ''}{value:.4g} after", flush=True)
