"""How the models of the real run are trained: the latent one, and the ones that read and speak units."""

from __future__ import annotations

from unitok.decoder.lora import TARGETS
from unitok_tokenizers.compute import AUTO
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Mixture
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.real.settings import Settings
from unitok_training.trainer.config import (
    FROZEN,
    DecoderTuning,
    FrameCacheConfig,
    LatentTrainConfig,
    PartTuning,
    SpellingConfig,
    TableTuning,
    TrainConfig,
    Tuning,
)
from unitok_training.trainer.optimizer import OptimConfig

RANK = 16
"""Of the low-rank updates."""
ROOM = 3
"""Packs of the latent model are larger by this: room is kept for the most vectors that a recording may give, of which
it usually gives a quarter."""
OPTIM = OptimConfig(warmup_steps=30, schedule="wsd", decay_share=0.4, betas=(0.9, 0.95), weight_decay=0.01)


def latent_recipe(settings: Settings, *, encoder: str, frames: str, steps: int) -> LatentRecipe:
    """Frozen Whisper, an adapter that hears subwords, a vector each, and low-rank updates of a language model."""
    updates = PartTuning(full=False, lora_rank=RANK, lora_targets=TARGETS, learning_rate=settings["latent_rate"])
    return LatentRecipe(
        name="real_latent",
        encoder=EncoderChoice(kind="pretrained", folder=encoder),
        adapter=AdapterChoice(kind="subwords", count=settings["subwords"], match_scale=True),
        tuning=Tuning(encoder=FROZEN, adapter=PartTuning(learning_rate=1e-3), decoder=updates),
        mixture=Mixture(tasks={"asr": 1.0}),
        train=LatentTrainConfig(
            steps=steps, pack_size=ROOM * settings["pack_size"], window=256, ctc_weight=0.3, augment=False,
            spelling_steps=settings["spelling_steps"],
            precision=settings["precision"], seed=settings["seed"], log_every=10, checkpoint_every=100,
            optim=OPTIM,
        ),
        frames=FrameCacheConfig(folder=frames),
    )  # fmt: skip


def tokens_recipe(settings: Settings) -> DecoderRecipe:
    """Units read and spoken beside plain text. The first blocks learn to spell them, or nothing would listen; new rows
    move fast from the first step, what was learned elsewhere slowly."""
    rate = settings["tokens_rate"]
    return DecoderRecipe(
        name="real_tokens",
        mixture=Mixture(tasks={"asr": 6.0, "tts.units": 1.0, "lm": 0.5}),
        spelling=SpellingConfig(steps=settings["unit_spelling_steps"], blocks=settings["unit_spelling_blocks"]),
        plans=ExampleOptions(condition_noise=0.05, text_weight=2.0),
        train=TrainConfig(
            steps=settings["tokens_steps"], pack_size=settings["pack_size"], packs_per_step=1, window=2048,
            precision=settings["precision"] or AUTO, seed=settings["seed"], log_every=10, checkpoint_every=100,
            optim=OPTIM,
        ),
        tuning=DecoderTuning(
            decoder=PartTuning(learning_rate=rate),
            embeddings=TableTuning(learning_rate=0.2 * rate),
            new_embeddings=TableTuning(learning_rate=2e-3),
            new_rows="letters",
        ),
    )  # fmt: skip
