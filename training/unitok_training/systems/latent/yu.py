"""Yu et al. 2024."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.slam_asr import slam_asr


def yu() -> LatentRecipe:
    """Yu et al. 2024: a frozen speech model, Q-Former, frozen decoder."""
    return replace(slam_asr(), name="yu", adapter=AdapterChoice(kind="qformer", queries=80))


SYSTEM = System(
    name="yu",
    title="Yu et al. 2024",
    row="B40",
    recipes=(yu,),
    differs="one Q-Former of 80 queries; the other cells of the grid by `adapter.kind`",
)
