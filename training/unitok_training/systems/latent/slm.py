"""SLM."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.slam_asr import slam_asr


def slm() -> LatentRecipe:
    """SLM: everything frozen but an adapter that reads a random quarter of the frames."""
    return replace(slam_asr(), name="slm", adapter=AdapterChoice(kind="random_downsampling", rate=4),
                   mixture=Mixture(tasks={"asr": 1.0, "s2tt": 1.0}))  # fmt: skip


SYSTEM = System(
    name="slm",
    title="SLM",
    row="B43",
    recipes=(slm,),
    differs="a feed-forward behind the sampled frames instead of an encoder",
)
