"""SALMONN."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.slam_asr import slam_asr
from unitok_training.trainer.config import FROZEN, PartTuning, Tuning


def salmonn() -> LatentRecipe:
    """SALMONN: a speech encoder and filterbanks side by side, window-level Q-Former, LoRA of rank 8 on q and v."""
    return replace(
        slam_asr(),
        name="salmonn",
        encoder=EncoderChoice(kind="pretrained", beside="filterbank"),
        adapter=AdapterChoice(kind="window_qformer", window=17, queries=1),
        tuning=Tuning(
            encoder=FROZEN,
            adapter=PartTuning(learning_rate=3e-4),
            decoder=PartTuning(full=False, lora_rank=8, lora_alpha=32.0, learning_rate=3e-4),
        ),
        mixture=Mixture(tasks={"asr": 1.0, "s2tt": 1.0}),
    )


SYSTEM = System(
    name="salmonn",
    title="SALMONN",
    row="B34",
    recipes=(salmonn,),
    differs="filterbanks instead of BEATs; no activation tuning",
)
