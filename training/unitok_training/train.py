"""A training run from folders to a model directory: what `unitok train` calls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from unitok.decoder.lora import lora_config
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.weights import expand_vocabulary
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_tokenizers.grammar.streams import ELSEWHERE
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.state import load_module, open_checkpoint
from unitok_training.cost import memory as planning
from unitok_training.cost.devices import Device
from unitok_training.data.mixture import Curriculum
from unitok_training.model_defaults import learned, wider_characters, wider_limits
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.shard_set import ShardSet, continued, open_shards, record
from unitok_training.trainer.decoder import train
from unitok_training.trainer.distributed import World, local_processes, world_from_environment
from unitok_vocoder.vocoder import Vocoder


def check_memory(recipe: DecoderRecipe, vocab_size: int, world: World) -> None:
    """InputError, with the nearest that fits, where a recipe needs more memory than this process's device has."""
    on_gpu = world.device.type == "cuda"
    if on_gpu:
        memory, sharers = torch.cuda.get_device_properties(world.device).total_memory, 1
    else:  # the processes of one machine share its memory
        memory, sharers = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), local_processes()
    place = Device(
        name="this GPU" if on_gpu else "this machine" if sharers == 1 else f"a process of {sharers} here",
        memory_bytes=memory // sharers, flops=1e12, bandwidth=1e12, link=0.0,
    )  # fmt: skip
    setup = planning.setup_of(recipe, vocab_size, flash=on_gpu, processes=world.size)
    planning.check_fits(setup, place)


def train_model(
    recipe: DecoderRecipe,
    *,
    shards: Path | str | Sequence[Path | str],
    tokenizers: Path | str | None = None,
    out: Path | str,
    start: Path | str | None = None,
    streams: Mapping[str, str] | None = None,
    allow_change: Sequence[str] = (),
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

    Raises:
        InputError: shards and tokenizers that do not belong together, a mixture without rows, a broken checkpoint, or
            other shards than those that the run was trained on.
    """
    data = open_shards(shards, check=int(os.environ.get("RANK", "0")) == 0)  # read through once, by one process
    base = Model.load(start) if start is not None and (Path(start) / "unitok.json").exists() else None
    bundle = _tokenizers(tokenizers, base)
    vocabulary = _vocabulary(bundle, data, base, streams or {}, start=str(start), tokenizers=str(tokenizers or start))
    if start is not None:
        recipe = replace(recipe, curriculum=Curriculum())
    if base is not None:
        recipe = replace(recipe, decoder=_shape(base.decoder.config))
    run = Path(out)
    ensure_folder(run)
    data = continued(run, data, may_change="shards" in allow_change)
    with world_from_environment() as world:
        check_memory(recipe, vocabulary.size, world)
        if base is not None:
            decoder = _grown(base, vocabulary, recipe.train.seed)
        else:
            decoder = _new_decoder(recipe.decoder.config(vocabulary.size), recipe.train.seed, start)

        def begin() -> None:
            if world.is_main:
                recipe.save(run / "recipe.json")
                record(run, data)

        train(
            recipe.train,
            decoder,
            data,
            vocabulary,
            run,
            mixture=recipe.mixture,
            curriculum=recipe.curriculum,
            plans=recipe.plans,
            pieces=bundle.text.pieces(),
            tuning=recipe.tuning,
            first_new=None if base is None else first_new_row(base, vocabulary),
            world=world,
            allow_change=[key for key in allow_change if key != "shards"],
            on_begin=begin,
        )
    if not world.is_main:
        return None
    # The other processes have left: none of them waits while the shards are looked through.
    trained = _finished(decoder.cpu().float().eval(), vocabulary, bundle, recipe, data, base)
    trained.save(run / "model")
    return run / "model"


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


def _grown(base: Model, vocabulary: Vocabulary, seed: int) -> Decoder:
    """The start's decoder, with new rows for streams that its vocabulary did not have."""
    old = base.vocabulary.size
    if vocabulary.size == old:
        return base.decoder
    if lora_config(base.decoder) is not None:
        raise InputError("the start has low-rank updates and cannot take on another stream; merge them by an export")
    return expand_vocabulary(base.decoder, vocabulary.size, old, generator=torch.Generator().manual_seed(seed))


def _shape(config: DecoderConfig) -> Shape:
    """What a recipe says of a decoder's shape."""
    return Shape(**{item.name: getattr(config, item.name) for item in fields(Shape)})


def _new_decoder(config: DecoderConfig, seed: int, start: Path | str | None) -> Decoder:
    """Random weights, or those of a checkpoint."""
    decoder = Decoder(config, generator=torch.Generator().manual_seed(seed))
    if start is not None:
        load_module(decoder, open_checkpoint(Path(start)).model)
    return decoder


def _finished(
    decoder: Decoder,
    vocabulary: Vocabulary,
    bundle: TokenizerSet,
    recipe: DecoderRecipe,
    data: ShardSet,
    base: Model | None,
) -> Model:
    """The model directory's other parts: those of the start, and what these shards add."""
    known, tasks = learned(data, vocabulary), list(recipe.mixture.tasks)
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
