"""Ling et al. 2024."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.fathullah import fathullah


def ling() -> LatentRecipe:
    """Ling et al. 2024: frames whose blank is probable are dropped."""
    return replace(fathullah(), name="ling", adapter=AdapterChoice(kind="blank_probability", threshold=0.95))


SYSTEM = System(
    name="ling",
    title="Ling et al. 2024",
    row="B41",
    recipes=(ling,),
    differs="whatever formatting the texts have",
)
