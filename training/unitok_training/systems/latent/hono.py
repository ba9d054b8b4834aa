"""Hono et al. 2023."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.salmonn import salmonn


def hono() -> LatentRecipe:
    """Hono et al. 2023, Nue-ASR: a frozen speech model, a convolution of stride 4 with Transformer layers, LoRA."""
    return replace(
        salmonn(),
        name="hono",
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="transformer", stride=4),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


SYSTEM = System(
    name="hono",
    title="Hono et al. 2023",
    row="B39",
    recipes=(hono,),
    differs="LoRA from the start",
)
