"""The three sizes of the demo: S where bfloat16 has no units of its own, M as the figures in README, L for patience.

A size is fixed: sentences and steps, never seconds, so that the same size, seed, precision and number of threads give
the same numbers on one kind of machine. All of them have every stage and every task; what differs is how well they are
learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from unitok_training.experiments.demo.run import DemoConfig
from unitok_training.recipes.decoder import load_recipe


def small(config: DemoConfig) -> DemoConfig:
    """S: two thirds of the sentences and about as many steps, for a processor that multiplies float32 alone."""
    return replace(
        config,
        pairs=2200,
        encoder_steps=290,
        judge_steps=290,
        codec_steps=300,
        mel_vocoder_steps=180,
        unit_mel_steps=280,
        overrides=("train.steps=440", *config.overrides),
    )


def medium(config: DemoConfig) -> DemoConfig:
    """M: the settings that `DemoConfig` and the preset have by themselves."""
    return config


def large(config: DemoConfig) -> DemoConfig:
    """L: twice the sentences and three times the steps."""
    return replace(
        config,
        pairs=6000,
        encoder_steps=1200,
        judge_steps=1200,
        codec_steps=2100,
        mel_vocoder_steps=1200,
        unit_mel_steps=2400,
        overrides=("train.steps=2300", *config.overrides),
    )


SIZES: Mapping[str, Callable[[DemoConfig], DemoConfig]] = {"S": small, "M": medium, "L": large}
"""Name → what it makes of a configuration whose sentences and steps are as they come; given overrides stay last."""


def described(size: str, config: DemoConfig) -> str:
    """What a run of a size will do, in a line."""
    recipe = load_recipe(config.preset, config.overrides)
    corpus = (
        f"{config.pairs:,} sentences in {', '.join(config.languages)}" if config.manifest is None else "your recordings"
    )
    return (
        f"size {size}: {corpus}; steps: speech encoder {config.encoder_steps:,}, judge {config.judge_steps:,}, codec "
        f"{config.codec_steps:,}, vocoder {config.mel_vocoder_steps:,}, unit synthesizer {config.unit_mel_steps:,}, "
        f"decoder {recipe.train.steps:,}"
    )
