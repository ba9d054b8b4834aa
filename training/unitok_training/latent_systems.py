"""Recipes of systems that hear more than words, or are told more than the speech; `latent_recipes` has the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from unitok_training.latent_recipes import (
    FROZEN,
    AdapterChoice,
    EncoderChoice,
    LatentRecipe,
    LatentTrainConfig,
    PartTuning,
    Tuning,
)
from unitok_training.mixture import Mixture
from unitok_training.optim import OptimConfig
from unitok_training.recipes import Shape


def small(name: str, tasks: Mapping[str, float], *, steps: int) -> LatentRecipe:
    """A Conformer and a decoder of under a million weights, for corpora of one voice synthesiser: minutes on a core."""
    part = PartTuning(learning_rate=2e-3)
    return LatentRecipe(
        name=name,
        text_pieces=300,
        decoder=Shape(width=128, layers=2, heads=4, kv_heads=2),
        encoder=EncoderChoice(width=96, layers=3, heads=4, inner=256),
        adapter=AdapterChoice(kind="stacking", stride=2),
        tuning=Tuning(encoder=part, adapter=part, decoder=part),
        mixture=Mixture(tasks=tasks),
        train=LatentTrainConfig(
            steps=steps,
            pack_size=1024,
            window=512,
            optim=OptimConfig(warmup_steps=30, schedule="wsd", decay_share=0.4),
        ),
    )


def prosody() -> LatentRecipe:
    """A prosody class from speech: no words are learned."""
    return replace(
        small("prosody", {"prosody": 1.0}, steps=200),
        encoder=EncoderChoice(width=96, layers=2, heads=4, inner=256, ctc=False),
        adapter=AdapterChoice(kind="stacking", stride=5),
    )


def prosody_units() -> LatentRecipe:
    """A prosody class from units."""
    return replace(
        prosody(),
        name="prosody_units",
        tuning=replace(prosody().tuning, encoder=FROZEN, adapter=FROZEN),
        mixture=Mixture(tasks={"prosody.units": 1.0}),
    )


def prosody_text() -> LatentRecipe:
    """A prosody class from what was said."""
    return replace(prosody_units(), name="prosody_text", mixture=Mixture(tasks={"prosody.text": 1.0}))


SYSTEMS: Mapping[str, Callable[[], LatentRecipe]] = {
    recipe.__name__: recipe for recipe in (prosody, prosody_units, prosody_text)
}
"""Presets of this module by name."""
