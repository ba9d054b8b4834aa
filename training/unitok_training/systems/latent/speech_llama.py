"""Wu et al. 2023."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.system import System
from unitok_training.systems.latent.fathullah import fathullah


def speech_llama() -> LatentRecipe:
    """Wu et al. 2023: CTC frame averaging, LoRA that starts later, a mask that sees the speech both ways."""
    base = fathullah()
    return replace(
        base,
        name="speech_llama",
        adapter=AdapterChoice(kind="frame_averaging"),
        tuning=replace(base.tuning, decoder=replace(base.tuning.decoder, start_step=500)),
        decoder=replace(base.decoder, prefix_lm=True),
        mixture=Mixture(tasks={"s2tt": 1.0, "asr": 0.5}),
    )


SYSTEM = System(
    name="speech_llama",
    title="Wu et al. 2023",
    row="B38",
    recipes=(speech_llama,),
    differs="frame averaging; LoRA starts at step 500; the decoder sees what is given both ways",
)
