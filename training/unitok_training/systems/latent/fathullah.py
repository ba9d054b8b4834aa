"""Fathullah et al. 2023."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import GENTLE, AdapterChoice, LatentRecipe, latent
from unitok_training.systems.base.system import System
from unitok_training.trainer.config import PartTuning, Tuning


def fathullah() -> LatentRecipe:
    """Fathullah et al. 2023: a Conformer with CTC, stacked frames, LoRA in the decoder."""
    return replace(
        latent(),
        name="fathullah",
        train=GENTLE,
        adapter=AdapterChoice(kind="stacking", stride=3),
        tuning=Tuning(
            encoder=PartTuning(learning_rate=1e-3),
            adapter=PartTuning(learning_rate=1e-3),
            decoder=PartTuning(full=False, lora_rank=8, lora_alpha=16.0, learning_rate=5e-4),
        ),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


SYSTEM = System(
    name="fathullah",
    title="Fathullah et al. 2023",
    row="B37",
    recipes=(fathullah,),
    differs="joint training with the CTC loss instead of a CTC pre-training",
)
