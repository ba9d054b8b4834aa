"""Pengi."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.slam_asr import slam_asr


def pengi() -> LatentRecipe:
    """Pengi: frozen encoder, a fixed number of prefix vectors from cross-attention, frozen decoder."""
    return replace(slam_asr(), name="pengi", adapter=AdapterChoice(kind="cross_attention", queries=40))


SYSTEM = System(
    name="pengi",
    title="Pengi",
    row="B32",
    recipes=(pengi,),
    differs="cross-attention instead of a Transformer mapper; asr only, no captions",
)
