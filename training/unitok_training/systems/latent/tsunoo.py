"""Tsunoo et al. 2024."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.fathullah import fathullah


def tsunoo() -> LatentRecipe:
    """Tsunoo et al. 2024: the tokens of the CTC head as a prompt."""
    return replace(fathullah(), name="tsunoo", adapter=AdapterChoice(kind="token_mapping"))


SYSTEM = System(
    name="tsunoo",
    title="Tsunoo et al. 2024",
    row="B22",
    recipes=(tsunoo,),
    differs="no context embedding per block, no random-length prefix prompts",
)
