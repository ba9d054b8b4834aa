"""SLAM-ASR."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import GENTLE, AdapterChoice, EncoderChoice, LatentRecipe, latent
from unitok_training.systems.base.system import System
from unitok_training.trainer.config import FROZEN, PartTuning, Tuning


def slam_asr() -> LatentRecipe:
    """SLAM-ASR: frozen encoder, five frames into linear-ReLU-linear, frozen decoder."""
    return replace(
        latent(),
        name="slam_asr",
        train=GENTLE,
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="linear", stride=5, hidden=2048),
        tuning=Tuning(encoder=FROZEN, adapter=PartTuning(learning_rate=1e-4), decoder=FROZEN),
        mixture=Mixture(tasks={"asr": 1.0}),
    )


SYSTEM = System(
    name="slam_asr",
    title="SLAM-ASR",
    row="B33",
    recipes=(slam_asr,),
    differs="the grammar's header instead of a prompt in words",
)
