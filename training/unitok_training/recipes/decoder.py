"""Recipes of decoders that learn from token shards.

unitok train demo --set train.steps=500 --set mixture.mt=0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Curriculum, Mixture
from unitok_training.recipes.base import Presets, Recipe, Shape
from unitok_training.recipes.layout import ModelChoice
from unitok_training.trainer.config import (
    DecoderTuning,
    DistillConfig,
    PartTuning,
    SpellingConfig,
    TableTuning,
    TrainConfig,
)
from unitok_training.trainer.optimizer import OptimConfig


@dataclass(frozen=True, kw_only=True)
class DecoderRecipe(Recipe):
    """Everything that decides a training run on token shards."""

    LATER: ClassVar[tuple[str, ...]] = ("tuning", "distill", "model", "spelling")

    plans: ExampleOptions = field(default_factory=ExampleOptions)
    """What is drawn around a row."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Steps, packs, precision, optimizer."""
    tuning: DecoderTuning = field(default_factory=DecoderTuning)
    """What moves, and how fast."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Another model to learn from."""
    spelling: SpellingConfig = field(default_factory=SpellingConfig)
    """What speech says, learned before everything else."""
    model: ModelChoice = field(default_factory=ModelChoice)
    """How codes meet the decoder, where the start does not say it."""


def demo() -> DecoderRecipe:
    """The demo: every task of the phrase corpus on two CPU cores within minutes."""
    weights = {  # of examples: one with codes is five times as long as one without
        "asr": 5.0,
        "asr.codes": 1.2,
        "tts.units": 8.0,
        "tts.codes": 5.5,
        "s2tt": 5.5,
        "s2st": 1.0,
        "s2st.chain": 2.5,
        "mt": 8.0,
        "lm": 1.5,
        "slm": 1.0,
        "ilm": 2.0,
    }
    late = {key: 0.34 for key in ("asr.codes", "tts.codes", "s2st", "slm", "ilm")}
    return DecoderRecipe(
        name="demo",
        decoder=Shape(width=256, layers=4, heads=4, kv_heads=2),
        mixture=Mixture(tasks=weights),
        # First how texts translate, then how units and texts belong together: in half of the steps this gives what all
        # tasks at once give.
        curriculum=Curriculum(tasks={key: late.get(key, 0.14) for key in weights if key != "mt"}),
        plans=ExampleOptions(voice_min_seconds=0.6, voice_max_seconds=1.0, text_weight=2.0),
        train=TrainConfig(
            steps=760,
            pack_size=4096,
            packs_per_step=1,
            window=8192,
            compile=True,
            optim=OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=30, schedule="wsd", decay_share=0.4),
        ),
    )


def tiny() -> DecoderRecipe:
    """A model of a few ten thousand parameters, for tests and for trying out a corpus in seconds."""
    return DecoderRecipe(
        name="tiny",
        decoder=Shape(width=64, layers=2, heads=2, kv_heads=1),
        mixture=Mixture(tasks={"asr": 1.0, "tts.units": 1.0}),
        train=TrainConfig(
            steps=100,
            pack_size=1024,
            packs_per_step=1,
            window=256,
            precision="fp32",
            log_every=10,
            checkpoint_every=100,
            optim=OptimConfig(learning_rate=3e-3, warmup_steps=10),
        ),
    )


def finetune() -> DecoderRecipe:
    """A language model from elsewhere learns speech: the new rows first, alone; then all of it, slowly.

    Random rows among trained ones give gradients that would spoil what the model knows; a rate fifty times its own, for
    as long as they are new, costs it nothing. Plain text stays in the mixture.
    """
    slow, late = 2e-5, 200
    return DecoderRecipe(
        name="finetune",
        mixture=Mixture(tasks={"asr": 2.0, "tts.units": 2.0, "lm": 1.0}),
        train=TrainConfig(
            steps=2000,
            packs_per_step=4,
            checkpoint_every=200,
            optim=OptimConfig(
                learning_rate=1e-3, warmup_steps=100, schedule="cosine", betas=(0.9, 0.95), weight_decay=0.01
            ),
        ),
        tuning=DecoderTuning(
            decoder=PartTuning(learning_rate=slow, start_step=late),
            embeddings=TableTuning(learning_rate=slow, start_step=late),
            new_embeddings=TableTuning(learning_rate=1e-3),
        ),
    )


def adapt() -> DecoderRecipe:
    """A trained model meets a language, a voice or other recordings: all of it moves from the first step, at a quarter
    of the rates that it was trained with, and what it knew stays in the mixture by shards of before."""
    return DecoderRecipe(
        name="adapt",
        mixture=Mixture(tasks={"asr": 4.0, "asr.codes": 1.0, "tts.units": 3.0, "tts.codes": 3.0, "lm": 1.0}),
        plans=ExampleOptions(voice_min_seconds=0.6, voice_max_seconds=1.0, text_weight=2.0),
        train=TrainConfig(
            steps=600,
            packs_per_step=1,
            window=2048,
            compile=True,
            optim=OptimConfig(
                name="muon",
                learning_rate=5e-4,
                matrix_learning_rate=5e-3,
                warmup_steps=20,
                schedule="wsd",
                decay_share=0.4,
            ),
        ),
    )


PRESETS = Presets(
    what="preset",
    kind=DecoderRecipe,
    table={"demo": demo, "tiny": tiny, "finetune": finetune, "adapt": adapt},
)
"""Presets of `unitok train`."""


def load_recipe(name_or_file: str | Path, overrides: Sequence[str] = ()) -> DecoderRecipe:
    """See `Presets.load`."""
    return PRESETS.load(name_or_file, overrides)
