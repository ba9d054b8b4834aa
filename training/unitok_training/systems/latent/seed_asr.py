"""Seed-ASR's contextual part: keywords in the prompt, then a stage that lowers expected word errors."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.finetune.mwer import MwerConfig, train_mwer
from unitok_training.fitting.tokenizers import training_rows
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.rare_names import NAME_NOISE, NAMES, by_context, with_names_alone
from unitok_training.systems.base.small_recipes import spelling_listener
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.latent.mala_asr import mala_asr


def seed_asr() -> LatentRecipe:
    """Seed-ASR's contextual part: keywords in most of the prompts; `finetune.mwer` is the stage after it."""
    return replace(mala_asr(), name="seed_asr")


def check_seed_asr(bench: Bench) -> Figures:
    """Seed-ASR: right and wrong context, before and after a stage that lowers expected word errors."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE)
    model = bench.taught(seed_asr, with_names_alone(rows), after=spelling_listener)
    figures = {f"before.{name}": value for name, value in by_context(bench, model, rows).items()}
    steps = max(1, bench.recipe(seed_asr).train.steps // 24)
    bench.report(f"mwer: {steps} steps")
    spoken = [row for row in training_rows(rows) if row.audio is not None]
    config = bench.config.precisely(MwerConfig(steps=steps, seed=bench.config.seed))
    train_mwer(model, spoken, config, key="asr.keywords")
    model.save(bench.run / "mwer")
    return {**figures, **{f"after.{name}": value for name, value in by_context(bench, model, rows).items()}}


SYSTEM = System(
    name="seed_asr",
    title="Seed-ASR's context and last stage",
    row="B36",
    recipes=(spelling_listener, seed_asr),
    differs="the model of B47; no pre-training; plain beam search",
    check=check_seed_asr,
    measures="right and wrong context, before and after the last stage",
    targets=(
        Target("right context lowers errors on names", lambda f: f["before.own.b_wer"] < f["before.none.b_wer"]),
        Target(
            "wrong context costs at most a hundredth",
            lambda f: f["before.wrong.b_wer"] <= f["before.none.b_wer"] + 0.01,
        ),
        Target("nor after the last stage", lambda f: f["after.wrong.b_wer"] <= f["after.none.b_wer"] + 0.01),
        Target(
            "the last stage lowers errors with the right context", lambda f: f["after.own.wer"] < f["before.own.wer"]
        ),
    ),
    measured=(
        Measured(
            "unitok systems run seed_asr",
            {
                "before.none.b_wer": 0.754,
                "before.own.b_wer": 0.203,
                "before.wrong.b_wer": 0.768,
                "before.none.wer": 0.165,
                "before.own.wer": 0.052,
                "before.wrong.wer": 0.168,
                "after.none.b_wer": 0.754,
                "after.own.b_wer": 0.203,
                "after.wrong.b_wer": 0.812,
                "after.none.wer": 0.159,
                "after.own.wer": 0.052,
                "after.wrong.wer": 0.171,
            },
        ),
    ),
)
