"""A training run from folders to a model directory: what `unitok train` calls."""

from __future__ import annotations

import os
import warnings
from dataclasses import fields, replace
from pathlib import Path

import torch

from unitok.decoder.lora import lora_config
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.weights import expand_vocabulary
from unitok.model import Model
from unitok_tokenizers.compute import map_large_blocks
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.checkpoint.state import load_module, open_checkpoint
from unitok_training.cost.advice import check_fits
from unitok_training.cost.devices import Device
from unitok_training.cost.step import setup_of
from unitok_training.data.mixture import Curriculum
from unitok_training.model_defaults import learned_limits, learned_texts, voice_prompts, wider_characters, wider_limits
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.trainer.distributed import World, local_processes, world_from_environment
from unitok_training.trainer.loop import train
from unitok_vocoder.vocoder import Vocoder


def check_memory(recipe: DecoderRecipe, vocab_size: int, world: World, *, force: bool = False) -> None:
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
    setup = setup_of(recipe, vocab_size, flash=on_gpu, processes=world.size)
    said = check_fits(setup, place, force=force)
    if said and world.is_main:
        warnings.warn(said, stacklevel=3)


def train_model(
    recipe: DecoderRecipe,
    *,
    shards: Path | str,
    tokenizers: Path | str | None = None,
    out: Path | str,
    start: Path | str | None = None,
    force: bool = False,
) -> Path | None:
    """Train a recipe and write `out`/model; returns its path, or None on processes other than the first.

    Args:
        recipe: what to train.
        shards: token shards.
        tokenizers: the tokenizers that made them; those of the model `start` where None. Units and codes that no
            tokenizer here makes are described by the shards, and the model keeps that description.
        out: run folder; a repeat continues from its newest checkpoint.
        start: a model directory or a run's checkpoints to take the weights from. A model also gives its shape (the
            recipe's `decoder` is not used), vocabulary (languages and streams of the shards join it), vocoder, voices
            and limits.
        force: try also what is predicted to need far more memory than there is.

    Raises:
        InputError: shards and tokenizers that do not belong together, a mixture without rows, a broken checkpoint.
    """
    map_large_blocks()
    data = Shards.open(shards, check=True)
    base = Model.load(start) if start is not None and (Path(start) / "unitok.json").exists() else None
    bundle = _tokenizers(tokenizers, base)
    vocabulary = _vocabulary(bundle, data, base, start=str(start), tokenizers=str(tokenizers or start))
    if start is not None:
        recipe = replace(recipe, curriculum=Curriculum())
    if base is not None:
        recipe = replace(recipe, decoder=_shape(base.decoder.config))
    run = Path(out)
    ensure_folder(run)
    with world_from_environment() as world:
        check_memory(recipe, vocabulary.size, world, force=force)
        if base is not None:
            decoder = _grown(base, vocabulary, recipe.train.seed)
        else:
            decoder = _new_decoder(recipe.decoder.config(vocabulary.size), recipe.train.seed, start)
        if world.is_main:
            run.mkdir(parents=True, exist_ok=True)
            recipe.save(run / "recipe.json")
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
            world=world,
        )
        if not world.is_main:
            return None
        trained = _finished(decoder.cpu().float().eval(), vocabulary, bundle, recipe, data, base)
        trained.save(run / "model")
        return run / "model"


def _tokenizers(folder: Path | str | None, base: Model | None) -> TokenizerSet:
    if folder is not None:
        return TokenizerSet.load(folder)
    if base is None:
        raise InputError("no tokenizers: give --tokenizers DIR, or --start with a model directory that holds them")
    return base.tokenizers


def _vocabulary(bundle: TokenizerSet, data: Shards, base: Model | None, *, start: str, tokenizers: str) -> Vocabulary:
    """The start's vocabulary with what the shards add to it, else one of its own.

    Streams are those of the tokenizers, and units and codes of the shards that no tokenizer here makes. Languages of
    the shards take ids that are reserved; streams that the start does not have take new ones behind all others.
    """
    made = bundle.vocabulary(data.languages, list(data.streams.values()))
    for stream in data.streams.values():
        made.check(stream, str(data.folder), tokenizers)
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
        vocabulary.check(stream, str(data.folder) if stream.name in data.streams else tokenizers, start)
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
    data: Shards,
    base: Model | None,
) -> Model:
    """The model directory's other parts: those of the start, and what these shards add."""
    prompts, limits, tasks = voice_prompts(data), learned_limits(data), list(recipe.mixture.tasks)
    characters = learned_texts(data)
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
