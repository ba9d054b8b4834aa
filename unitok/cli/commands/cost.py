"""The command `cost`: what a recipe needs before it is run."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_commands(commands: Any) -> None:
    cost = commands.add_parser("cost", help="memory and time of a recipe, and what to change where it does not fit")
    cost.add_argument("recipe", help="a preset, a YAML file, or a resolved JSON")
    cost.add_argument(
        "--device", default="here", help="here (default) or a GPU such as h200, h100, a100, l40s, rtx4090"
    )
    cost.add_argument("--vocabulary", type=int, default=8192, help="ids of the vocabulary (default: 8192)")
    cost.add_argument("--document", type=int, default=256, help="mean length of a document in tokens (default: 256)")
    cost.add_argument("--processes", type=int, default=1, help="processes that share the packs of a step")
    cost.add_argument(
        "--lora", type=int, default=0, metavar="RANK", help="low-rank updates of attention (default: the recipe's)"
    )
    cost.add_argument(
        "--freeze", nargs="+", default=[], choices=("decoder", "embeddings"), help="what else does not move"
    )
    cost.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    cost.set_defaults(run=run_cost, continues=False)


def run_cost(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from unitok_tokenizers.errors import InputError
    from unitok_training.cost.advice import check_fits
    from unitok_training.cost.advice import options as options_for
    from unitok_training.cost.devices import named_device
    from unitok_training.cost.step import parameters, setup_of, tuned_otherwise
    from unitok_training.objectives.teacher import config_at
    from unitok_training.recipes.decoder import load_recipe
    from unitok_training.recipes.layout import FLAT

    for name in ("vocabulary", "document", "processes"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} is {getattr(options, name)}: give 1 or more")
    if options.lora < 0:
        raise InputError(f"--lora is {options.lora}: give a rank, or 0 for none")
    recipe = load_recipe(options.recipe, options.set)
    tuning = tuned_otherwise(recipe.tuning, lora_rank=options.lora, frozen=options.freeze)
    recipe = replace(recipe, tuning=tuning)
    device = named_device(options.device)
    on_gpu = options.device.lower() != "here" or _has_gpu()
    recipe.distill.check()
    recipe.model.check()
    if recipe.model.layout != FLAT:
        print(f"note: networks of the layout {recipe.model.layout} beside the decoder are not counted", file=sys.stderr)
    teacher = config_at(recipe.distill.teacher) if recipe.distill.teacher else None
    setup = setup_of(recipe, options.vocabulary, flash=on_gpu, processes=options.processes, teacher=teacher)
    setup = replace(setup, document=min(options.document, setup.pack_size))
    first, *others = options_for(setup, device)
    print(f"decoder: {parameters(setup.config) / 1e6:.1f}M weights, {options.vocabulary} ids")
    if teacher is not None:
        print(f"teacher: {parameters(teacher) / 1e6:.1f}M weights, {teacher.vocab_size} ids, whole in every process")
    kind, rate = ("fp32", device.float32_flops) if setup.precision == "fp32" else ("bf16", device.flops)
    print(f"device: {device.name}, {device.memory_bytes / 1e9:.1f} GB, {rate / 1e12:.2f} {kind} TFLOP/s")
    print(_line(recipe.name, first, recipe.train.steps))
    if not first.fits:
        for option in others:
            print(_line(option.change, option, recipe.train.steps))
        print(f"warning: {check_fits(setup, device)}", file=sys.stderr)


def _line(name: str, option: Any, steps: int) -> str:
    need = option.memory
    parts = (
        f"weights {need.weights / 1e9:.2f}, gradients {need.gradients / 1e9:.2f}, "
        f"optimizer {need.optimizer / 1e9:.2f}, activations {need.activations / 1e9:.2f}, loss {need.loss / 1e9:.2f}"
    )
    verdict = "fits" if option.fits else "does not fit"
    hours = option.seconds * steps / 3600
    return (
        f"{name}: {verdict}, peak {need.peak / 1e9:.2f} GB ({parts}); {option.seconds:.3g} s a step, "
        f"{option.tokens_per_second:,.0f} tokens/s, {hours:.3g} h for {steps} steps"
    )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
