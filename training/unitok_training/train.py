"""A training run from folders to a model directory: what `unitok train` calls."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.stored_core import bare_decoder
from unitok.model import Model
from unitok.model_directory import read_decoder, write_model
from unitok_tokenizers.compute import map_large_blocks
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder, intact, read_json, write_json
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.stored_tensors import StoredTensors
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.files import best_checkpoint
from unitok_training.checkpoint.state import load_module, open_checkpoint, read_checkpoint
from unitok_training.cost.advice import check_fits
from unitok_training.cost.devices import Device
from unitok_training.cost.step import setup_of
from unitok_training.data.mixture import Curriculum
from unitok_training.evaluation.text_ability import TextAbility, text_ability
from unitok_training.first_weights import Start, first_decoder, open_start
from unitok_training.model_defaults import learned, wider_characters, wider_limits
from unitok_training.objectives.teacher import Teacher
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe, load_recipe
from unitok_training.shard_set import ShardSet, continued, open_shards, record
from unitok_training.trainer.decoder import train
from unitok_training.trainer.distributed import World, local_processes, world_from_environment
from unitok_training.trainer.fsdp import Initial
from unitok_training.trainer.parts import tune
from unitok_vocoder.vocoder import Vocoder

ORIGIN = "origin.json"
"""File of a run that says which tokenizers and which start it had."""
TEXTS = 200
"""Texts by which the ability of a language model is measured, or nearly twice as many."""


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
        allow_change: what may differ from the run that is continued: "shards", and settings as dotted keys.
        force: try also what is predicted to need far more memory than there is.
        on_row: called with each row of metrics, in every process.

    Raises:
        InputError: shards and tokenizers that do not belong together, a mixture without rows, a broken checkpoint, or
            other shards than those that the run was trained on.
    """
    map_large_blocks()
    check = int(os.environ.get("RANK", "0")) == 0  # read through once, by one process
    split = recipe.train.shard and int(os.environ.get("WORLD_SIZE", "1")) > 1 and not recipe.tuning.decoder.lora_rank
    given = materials(recipe, shards, tokenizers=tokenizers, start=start, streams=streams, check=check, split=split)
    recipe, base, run = given.recipe, given.base, Path(out)
    ensure_folder(run)
    data, teacher = continued(run, given.data, may_change="shards" in allow_change), teacher_of(recipe)
    with world_from_environment() as world:
        check_memory(recipe, given.vocabulary.size, world, teacher=teacher, force=force)
        decoder, initial = _begun(given, split=split)
        before = _text_ability(given) if world.is_main else None

        def begin() -> None:
            if world.is_main:  # once it is known that it can be continued so
                recipe.save(run / "recipe.json")
                record(run, data)
                write_json(run / ORIGIN, _origin(tokenizers, start, streams))

        last = train(
            recipe.train,
            decoder,
            data,
            given.vocabulary,
            run,
            mixture=recipe.mixture,
            curriculum=recipe.curriculum,
            plans=recipe.plans,
            pieces=given.bundle.text.pieces(),
            tuning=recipe.tuning,
            first_new=None if base is None else first_new_row(base, given.vocabulary),
            initial=initial,
            distill=recipe.distill,
            teacher=teacher,
            world=world,
            allow_change=[key for key in allow_change if key != "shards"],
            on_begin=begin,
            on_row=on_row,
        )
    if not world.is_main:
        return None
    # The other processes have left: none of them waits while the shards are looked through.
    taken = None if initial is None else _taken(recipe, last)
    return _written(decoder, taken, replace(given, data=data), run, before)


def _written(decoder: Decoder, taken: Path | None, given: Materials, run: Path, before: TextAbility | None) -> Path:
    """Write the model of a run that has ended, and what it still knows of text where that was measured before.

    The weights are the decoder's own, or those of the checkpoint `taken`: these go from file to file, and the whole is
    in no process after the run either.
    """
    stored = None
    if taken is not None:
        decoder, found = bare_decoder(given.decoder_config()), read_checkpoint(taken).model
        assert isinstance(found, StoredTensors)
        stored = found.stored
    trained = finished(decoder.eval() if taken is not None else decoder.cpu().float().eval(), given)
    write_model(trained, run / "model", stored)
    if before is not None:
        known = trained.decoder if taken is None else read_decoder(run / "model", torch.float32)
        _tell_text_ability(run, before, text_ability(known, _held_out_texts(given.data), trained.vocabulary))
    return run / "model"


def teacher_of(recipe: DecoderRecipe) -> Teacher | None:
    """The model that a recipe learns from. InputError where there is none, or the recipe's keys do not fit together."""
    recipe.distill.check()
    if not (path := recipe.distill.teacher):
        return None
    model = Model.load(path) if (Path(path) / "unitok.json").exists() else model_at(path)
    return Teacher(path=path, decoder=model.decoder, vocabulary=model.vocabulary)


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What a run starts from, opened and found to belong together."""

    recipe: DecoderRecipe
    """The recipe, with the shape and without the curriculum where there is a start."""
    data: ShardSet
    """Token shards."""
    start: Start | None
    """Where its weights come from; None where they are drawn."""
    bundle: TokenizerSet
    """The tokenizers."""
    vocabulary: Vocabulary
    """Of the model to be."""

    @property
    def base(self) -> Model | None:
        """The model that it starts from."""
        return None if self.start is None else self.start.model

    def decoder_config(self) -> DecoderConfig:
        """Shape of the decoder to be."""
        if self.base is not None:
            return replace(self.base.decoder.config, vocab_size=self.vocabulary.size)
        return self.recipe.decoder.config(self.vocabulary.size)


def materials(
    recipe: DecoderRecipe,
    shards: Path | str | Sequence[Path | str],
    *,
    tokenizers: Path | str | None,
    start: Path | str | None,
    streams: Mapping[str, str] | None,
    check: bool,
    split: bool,
) -> Materials:
    """Open what a run starts from; arguments and errors as of `train_model`, `check` as of `open_shards`, `split` as of
    `open_start`."""
    data = open_shards(shards, check=check)
    begun = open_start(start, split=split)
    base = None if begun is None else begun.model
    bundle = _tokenizers(tokenizers, base)
    vocabulary = _vocabulary(bundle, data, base, streams or {}, start=str(start), tokenizers=str(tokenizers or start))
    if start is not None:
        recipe = replace(recipe, curriculum=Curriculum())
    if base is not None:
        recipe = replace(recipe, decoder=_shape(base.decoder.config))
    return Materials(recipe=recipe, data=data, start=begun, bundle=bundle, vocabulary=vocabulary)


def _origin(
    tokenizers: Path | str | None, start: Path | str | None, streams: Mapping[str, str] | None
) -> dict[str, Any]:
    """What a run writes down of where it comes from, beside its shards."""

    def place(path: Path | str | None) -> str | None:
        return None if path is None else str(Path(path).absolute())

    return {"format": 1, "tokenizers": place(tokenizers), "start": place(start), "streams": dict(streams or {})}


def model_at(path: Path | str) -> Model:
    """The model that a run would have written at one of its checkpoints.

    Args:
        path: a checkpoint of `RUN/checkpoints`, or that folder for the newest; the run's shards, tokenizers and start
            must be where they were.

    Raises:
        InputError: no checkpoint of a run of `train_model`, or what it was made of is no longer there.
    """
    found = open_checkpoint(Path(path).absolute())
    assert found.path is not None
    run = found.path.parent.parent
    if not (run / ORIGIN).is_file() or not (run / "recipe.json").is_file():
        raise InputError(
            f"{path}: beside its checkpoints a run of `unitok train` has recipe.json and {ORIGIN}, and {run} has not; "
            "name a model directory, or a checkpoint where its run has written it"
        )
    with intact(run / ORIGIN, "copy the run again"):
        origin, folders = read_json(run / ORIGIN), read_json(run / "shards.json")["folders"]
        shards = [one["path"] for one in folders]
    given = materials(
        load_recipe(run / "recipe.json"), shards, tokenizers=origin["tokenizers"], start=origin["start"],
        streams=origin["streams"], check=False, split=False,
    )  # fmt: skip
    decoder, _ = _begun(given, split=False)
    tune(decoder, given.recipe.tuning.decoder)
    load_module(decoder, found.model)
    return finished(decoder.float().eval(), given)


def _begun(given: Materials, *, split: bool) -> tuple[Decoder, Initial | None]:
    """As `first_weights.first_decoder`."""
    size = given.vocabulary.size if given.base is None else given.base.vocabulary.size
    return first_decoder(given.decoder_config(), given.start, old_size=size, seed=given.recipe.train.seed, split=split)


def _taken(recipe: DecoderRecipe, last: Path) -> Path:
    """The checkpoint that becomes the model."""
    best = best_checkpoint(last.parent) if recipe.train.take_best else None
    return best or last


def _held_out_texts(data: ShardSet) -> list[np.ndarray]:
    """Text ids of a few hundred utterances, of `dev` where there are any, else of `test`, else of `train`."""
    shards = data.folders[0].shards
    split = next((name for name in ("dev", "test", "train") if (shards.split == name).any()), "train")
    rows = np.flatnonzero(shards.split == split)
    chosen = rows[:: max(1, len(rows) // TEXTS)].tolist()
    return [found for found in (shards.cell("text_ids", row) for row in chosen) if len(found)]


def _text_ability(given: Materials) -> TextAbility | None:
    """What an imported language model makes of texts before it is trained; None for other starts."""
    base = given.base
    if base is None or "imported_from" not in base.info:
        return None
    assert given.start is not None
    # Of a decoder that is to be split this is the one time that it is whole, in one process, and it is let go.
    decoder = base.decoder if given.start.stored is None else read_decoder(given.start.path, torch.float32)
    return text_ability(decoder, _held_out_texts(given.data), base.vocabulary)


def _tell_text_ability(run: Path, before: TextAbility, after: TextAbility) -> None:
    write_json(run / "text_ability.json", {"before": asdict(before), "after": asdict(after)})
    print(f"perplexity of held-out texts: {before.perplexity:.4g} before, {after.perplexity:.4g} after", flush=True)


def first_new_row(start: Model, vocabulary: Vocabulary) -> int | None:
    """First row of the tables that a start has not been trained with: where its own end, or where the text of an
    imported language model ends. None where it has been trained with all."""
    if vocabulary.size > start.vocabulary.size:
        return start.vocabulary.size
    if "imported_from" in start.info and "preset" not in start.info:
        return start.vocabulary.text.cardinalities[0]
    return None


def _tokenizers(folder: Path | str | None, base: Model | None) -> TokenizerSet:
    if folder is not None:
        return TokenizerSet.load(folder)
    if base is None:
        raise InputError("no tokenizers: give --tokenizers DIR, or --start with a model directory that holds them")
    return base.tokenizers


def _vocabulary(
    bundle: TokenizerSet, data: ShardSet, base: Model | None, chosen: Mapping[str, str], *, start: str, tokenizers: str
) -> Vocabulary:
    """The start's vocabulary with what the shards add to it, else one of its own.

    Streams are those of the tokenizers, and units and codes of the shards that no tokenizer here makes; of several of a
    kind the one that the kind stands for. Languages of the shards take ids that are reserved; streams that the start
    does not have take new ones behind all others.
    """
    mains = [] if base is None else [base.vocabulary.main(kind) for kind in ELSEWHERE]
    kept = {main.kind: main.name for main in mains if main is not None and main.name in data.streams}
    made = bundle.vocabulary(data.languages, list(data.streams.values()), {**kept, **chosen})
    data.check(made, tokenizers)
    if base is None:
        return made
    vocabulary, own = base.vocabulary, {stream.name for stream in base.tokenizers.infos()}
    if lost := own - {stream.name for stream in bundle.infos()}:
        raise InputError(
            f"{tokenizers} has no tokenizer for {', '.join(sorted(lost))}, which {start} has; leave it out"
        )
    for stream in sorted(made.streams.values(), key=lambda stream: stream.views is not None):
        if stream.name not in vocabulary.streams:
            vocabulary = vocabulary.append_stream(stream)
        vocabulary.check(stream, data.holder(stream.name) if stream.name in data.streams else tokenizers, start)
    vocabulary = vocabulary.choose(chosen)
    data.check(vocabulary, start)
    for code in data.languages:
        if code not in vocabulary.languages:
            vocabulary = vocabulary.append_language(code)
    return vocabulary


def _shape(config: DecoderConfig) -> Shape:
    """What a recipe says of a decoder's shape."""
    return Shape(**{item.name: getattr(config, item.name) for item in fields(Shape)})


def finished(decoder: Decoder, given: Materials) -> Model:
    """A trained decoder with a model's other parts: those of the start, and what the shards add."""
    vocabulary, bundle, recipe, base = given.vocabulary, given.bundle, given.recipe, given.base
    known, tasks = learned(given.data, vocabulary), list(recipe.mixture.tasks)
    prompts, limits, characters = known.prompts, known.limits, known.characters
    # Codes can be spoken without a trained vocoder: the codec's own decoder, or Griffin-Lim from its log-mels.
    vocoder = Vocoder(None) if bundle.codec is not None else None
    if base is not None:
        prompts, limits = {**base.prompts, **prompts}, wider_limits(base.limits, limits)
        characters = wider_characters(base.characters, characters)
        tasks = list(dict.fromkeys([*base.info.get("tasks", []), *tasks]))
        vocoder = base.vocoder or vocoder
    return Model(
        decoder=decoder,
        vocabulary=vocabulary,
        tokenizers=bundle,
        vocoder=vocoder,
        prompts=prompts,
        limits=limits,
        characters=characters,
        info={**(base.info if base else {}), "tasks": tasks, "preset": recipe.name},
    )
