"""DeSTA: descriptions that mix transcript and manner of speaking, and questions."""

from __future__ import annotations

import numpy as np

from unitok_training.data.latent_tasks import (
    LATENT_TASKS,
    RowTexts,
    asked_items,
)
from unitok_training.evaluation.latent import (
    answers,
    question,
    score,
    score_lines,
    without_recordings,
)
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.small_recipes import listener, often, small
from unitok_training.systems.base.system import Measured, System, Target


def desta() -> LatentRecipe:
    """DeSTA: descriptions that mix transcript and manner of speaking, and questions."""
    return often(small("desta", {"cap": 1.0, "ask": 1.0}, steps=900))


def check_desta(bench: Bench) -> Figures:
    """DeSTA: descriptions, and questions about speaker and tone with and without the recording."""
    rows = bench.rows()
    model = bench.taught(desta, rows, after=listener)
    held = bench.held_out(rows, "test_seen")
    caption = score_lines(model, held, ["cap"], bench.config.limit)["cap"]
    figures: Figures = {"cap.accuracy": caption["accuracy"], "cap.wer": caption["wer"]}
    table, random = RowTexts(held, model.tokenizers.text), np.random.default_rng(0)
    for name, wanted in (("speaker", "who speaks"), ("tone", "with which tone")):
        items = [item for item in asked_items(LATENT_TASKS["ask"], held) if item.question == wanted]
        asked = [question(LATENT_TASKS["ask"], table, item, random) for item in items]
        deaf = [without_recordings(one) for one in asked]
        for key, given in ((name, asked), (f"{name}.deaf", deaf)):
            figures[f"{key}.accuracy"] = score("ask", [one.answer for one in given], answers(model, given))["accuracy"]
    return figures


SYSTEM = System(
    name="desta",
    title="DeSTA",
    row="B46",
    recipes=(listener, desta),
    differs="descriptions and questions together, not one after the other",
    check=check_desta,
    measures="descriptions; questions with the recording and without",
    targets=(
        Target(
            "nine answers of ten about the speaker are right, and need the recording",
            lambda f: f["speaker.accuracy"] >= 0.9 > 2 * f["speaker.deaf.accuracy"],
        ),
        Target("nine answers of ten about the tone are right", lambda f: f["tone.accuracy"] >= 0.9),
    ),
    measured=(
        Measured(
            "unitok systems run desta",
            {
                "speaker.accuracy": 0.99,
                "speaker.deaf.accuracy": 0.25,
                "tone.accuracy": 0.37,
                "tone.deaf.accuracy": 0.33,
                "cap.wer": 0.06,
                "cap.accuracy": 0.46,
            },
        ),
    ),
)
