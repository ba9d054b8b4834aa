"""MaLa-ASR: keywords in the prompt."""

from __future__ import annotations

from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.rare_names import NAME_NOISE, NAMES, by_context, with_names_alone
from unitok_training.systems.base.small_recipes import in_context, spelling_listener
from unitok_training.systems.base.system import Measured, System, Target


def mala_asr() -> LatentRecipe:
    """MaLa-ASR: keywords in the prompt, before speech from a convolution of stride 2 (12.5 vectors a second)."""
    return in_context("mala_asr", {"asr.keywords": 1.0}, steps=2400)


def check_mala_asr(bench: Bench) -> Figures:
    """MaLa-ASR: errors on rare names and on other words, by what stands in the keyword list."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE)
    return by_context(bench, bench.taught(mala_asr, with_names_alone(rows), after=spelling_listener), rows)


SYSTEM = System(
    name="mala_asr",
    title="MaLa-ASR",
    row="B47",
    recipes=(spelling_listener, mala_asr),
    differs="from scratch; the decoder is trained too, and sees its prompt both ways",
    check=check_mala_asr,
    measures="errors on names and on other words, for lists of 0, 1, 11, 51 and of wrong names",
    targets=(
        Target(
            "30 % fewer errors on names with the right one in the list",
            lambda f: f["own.b_wer"] <= 0.7 * f["none.b_wer"],
        ),
        Target("no more errors on other words then", lambda f: f["own.u_wer"] <= f["none.u_wer"]),
        Target("30 % fewer with ten others beside it", lambda f: f["own10.b_wer"] <= 0.7 * f["none.b_wer"]),
        Target("30 % fewer with fifty others beside it", lambda f: f["own50.b_wer"] <= 0.7 * f["none.b_wer"]),
    ),
    measured=(
        Measured(
            "unitok systems run mala_asr",
            {
                "none.b_wer": 0.754,
                "own.b_wer": 0.203,
                "own10.b_wer": 0.652,
                "own50.b_wer": 0.768,
            },
        ),
    ),
)
