"""Qwen-Audio."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.salmonn import salmonn
from unitok_training.trainer.config import FROZEN, PartTuning, Tuning


def qwen_audio() -> LatentRecipe:
    """Qwen-Audio's first stage: the encoder is trained, pairs of frames are pooled, the decoder is frozen."""
    return replace(
        salmonn(),
        name="qwen_audio",
        encoder=EncoderChoice(kind="pretrained"),
        adapter=AdapterChoice(kind="pooling", stride=2),
        tuning=Tuning(encoder=PartTuning(learning_rate=1e-4), adapter=PartTuning(learning_rate=1e-3), decoder=FROZEN),
    )


SYSTEM = System(
    name="qwen_audio",
    title="Qwen-Audio",
    row="B35",
    recipes=(qwen_audio,),
    differs="first stage; tags are the header with `<ts>`, `<itn>`",
)
