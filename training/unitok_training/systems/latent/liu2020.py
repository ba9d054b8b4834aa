"""Liu et al. 2020: a CTC head on phones and a phone-to-word decoder, which learns from text alone too."""

from __future__ import annotations

from dataclasses import replace

from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.latent import (
    score_lines,
)
from unitok_training.fitting.tokenizers import training_rows
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.small_recipes import small, text_alone
from unitok_training.systems.base.system import Measured, System, Target


def liu_text() -> LatentRecipe:
    """Liu et al. 2020, the phone-to-word part from text alone."""
    return text_alone(replace(liu2020(), name="liu_text", mixture=Mixture(tasks={"asr.phones": 1.0})))


def liu2020() -> LatentRecipe:
    """Liu et al. 2020: a CTC head on phones, its frames synchronous with phones, and a phone-to-word decoder."""
    recipe = small("liu2020", {"asr": 2.0, "asr.phones": 1.0}, steps=500)
    return replace(
        recipe,
        encoder=replace(recipe.encoder, phones=True),
        adapter=AdapterChoice(kind="token_mapping", expected=True),
        train=replace(recipe.train, ctc_weight=1.0),
    )


def check_liu2020(bench: Bench) -> Figures:
    """Liu et al. 2020: a tenth of the recordings, with and without the text of the others."""
    rows = bench.rows()
    spoken = [row for row in training_rows(rows) if row.audio is not None]
    paired = spoken[::10]
    texts = [replace(row, audio=None) for row in spoken if row not in paired]
    held = bench.held_out(rows)
    arms = {"paired": paired, "with_text": [*paired, *texts]}
    figures: Figures = {}
    for name, given in arms.items():  # either learns from the text it has first, in as many updates
        bench.train(liu_text, given, name=f"{name}_text")
        model = bench.train(liu2020, given, name=name, start=f"{name}_text")
        figures[f"{name}.wer"] = score_lines(model, held, ["asr"])["asr"]["wer"]
    return figures


SYSTEM = System(
    name="liu2020",
    title="Liu et al. 2020",
    row="B31",
    recipes=(liu_text, liu2020),
    differs=(
        "a Conformer and a decoder instead of LSTMs; phones are the letters of the text where a row has no `segments`"
    ),
    check=check_liu2020,
    measures="a tenth of the recordings, with and without the text of the others",
    targets=(Target("the text of the other sentences lowers errors", lambda f: f["with_text.wer"] < f["paired.wer"]),),
    measured=(
        Measured(
            "unitok systems run liu2020 --set train.steps=250 --set train.pack_size=512",
            {"paired.wer": 0.722, "with_text.wer": 0.161},
        ),
    ),
)
