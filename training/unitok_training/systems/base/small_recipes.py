"""Parts of recipes for corpora of one voice synthesizer: minutes on a core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.base import Shape
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.trainer.config import FROZEN, LatentTrainConfig, PartTuning, Tuning
from unitok_training.trainer.optimizer import OptimConfig

QUICK = OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=30, schedule="wsd", decay_share=0.4)
"""Muon: a decoder learns in fewer steps than with AdamW where in the speech it has come to."""


def small(name: str, tasks: Mapping[str, float], *, steps: int) -> LatentRecipe:
    """A Conformer and a decoder of under a million weights, for corpora of one voice synthesizer: minutes on a core."""
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
            optim=QUICK,
        ),
    )


def often(recipe: LatentRecipe) -> LatentRecipe:
    """Half as much to an update: more is learned of as many tokens."""
    return replace(recipe, train=replace(recipe.train, pack_size=512))


def listener() -> LatentRecipe:
    """Transcripts alone: what recipes of this module start from, as the papers start from trained models.

    Its encoder forgets who speaks in what manner, as it is to; filterbanks beside it do not.
    """
    recipe = often(small("listener", {"asr": 1.0}, steps=700))
    return replace(recipe, encoder=replace(recipe.encoder, beside="voice"))


def in_context(name: str, tasks: Mapping[str, float], *, steps: int) -> LatentRecipe:
    """A model that is to use what stands before the speech: it sees its prompt both ways, and spells.

    Text pieces are letters, so that a word is made of the same ones wherever it stands. Updates are many and small.
    """
    recipe = often(small(name, tasks, steps=steps))
    return replace(
        recipe,
        text_pieces=279,
        decoder=replace(recipe.decoder, layers=3, prefix_lm=True),
        encoder=replace(recipe.encoder, phones=True),
        adapter=AdapterChoice(kind="convolution", stride=2),
    )


def spelling_listener() -> LatentRecipe:
    """Transcripts alone, for `mala_asr`, `seed_asr` and `cosmic`: what to look up comes after how to transcribe."""
    return in_context("spelling_listener", {"asr": 1.0}, steps=600)


def text_alone(recipe: LatentRecipe) -> LatentRecipe:
    """A stage of text: the front end is not moved, and not kept."""
    return replace(recipe, tuning=replace(recipe.tuning, encoder=FROZEN, adapter=FROZEN))
