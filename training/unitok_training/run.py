"""A training run from folders to a model directory: what `unitok train` calls."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from unitok.decoder import Decoder, DecoderConfig
from unitok.model import Model
from unitok_tokenizers.bundle import TokenizerSet
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_tokenizers.shards import Shards
from unitok_training.checkpoint import load_module, open_checkpoint
from unitok_training.distributed import world_from_environment
from unitok_training.loop import train
from unitok_training.recipes import Recipe


def check_memory(config: DecoderConfig, device: torch.device) -> None:
    """InputError where weights, gradients and moments alone exceed the memory of this machine (or of the GPU)."""
    projections = config.head_dim * (2 * config.heads + 2 * config.kv_heads)
    weights = config.layers * config.width * (projections + 3 * config.ffn_dim)
    weights += config.vocab_size * config.width * (1 if config.tied else 2)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 16 * weights > memory:
        raise InputError(
            f"the decoder has {weights / 1e6:.0f} M parameters, which take {16 * weights / 1e9:.0f} GB to train, and "
            f"there are {memory / 1e9:.0f} GB: lower decoder.width, decoder.ffn or decoder.layers"
        )


def train_model(
    recipe: Recipe,
    *,
    shards: Path | str,
    tokenizers: Path | str,
    out: Path | str,
    start: Path | str | None = None,
) -> Path | None:
    """Train a recipe and write `out`/model; returns its path, or None on processes other than the first.

    Args:
        recipe: what to train.
        shards: token shards.
        tokenizers: the tokenizers that made them.
        out: run folder; a repeat continues from its newest checkpoint.
        start: a model directory or a run's checkpoints to take the weights from.

    Raises:
        InputError: shards and tokenizers that do not belong together, a mixture without rows, a broken checkpoint.
    """
    data, bundle = Shards.open(shards, check=True), TokenizerSet.load(tokenizers)
    vocabulary = bundle.vocabulary(data.languages)
    run = Path(out)
    ensure_folder(run)
    with world_from_environment() as world:
        check_memory(recipe.decoder.config(vocabulary.size), world.device)
        generator = torch.Generator().manual_seed(recipe.train.seed)
        decoder = Decoder(recipe.decoder.config(vocabulary.size), generator=generator)
        base: Model | None = None
        if start is not None:
            if (Path(start) / "unitok.json").exists():
                base = Model.load(start)
                if base.vocabulary.fingerprint != vocabulary.fingerprint:
                    raise InputError(
                        f"{start}: its vocabulary is not that of {tokenizers}; prepare with its tokenizers"
                    )
                decoder = base.decoder
            else:
                load_module(decoder, open_checkpoint(Path(start)).model)
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
            plans=recipe.plans,
            pieces=bundle.text.pieces(),
            world=world,
        )
        if not world.is_main:
            return None
        model = Model(
            decoder=decoder.cpu().float().eval(),
            vocabulary=vocabulary,
            tokenizers=bundle,
            vocoder=base.vocoder if base else None,
            prompts=base.prompts if base else {},
            info={"tasks": list(recipe.mixture.tasks), "preset": recipe.name},
        )
        model.save(run / "model")
        return run / "model"
