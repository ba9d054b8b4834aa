"""Rich transcription: one model that writes words in two forms, with times, speaker, prosody, and answers questions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from unitok_training.data.latent_tasks import (
    LATENT_TASKS,
    RowTexts,
    asked_items,
)
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.latent import (
    answers,
    question,
    score,
    score_lines,
)
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.small_recipes import listener, often, small
from unitok_training.systems.base.system import Measured, System, Target


def rich() -> LatentRecipe:
    """Rich transcription: words as spoken or as written, with times, speaker, prosody, and questions across them.

    Answers of one word come more often than transcripts: the loss is a mean over tokens.
    """
    tasks = {"asr.plain": 2.0, "asr.formatted": 2.0, "asr.times": 2.0, "sid": 5.0, "prosody": 5.0, "ask": 6.0}
    return often(small("rich", tasks, steps=1200))


def untagged() -> LatentRecipe:
    """Two written forms with nothing in the prompt that says which: what `rich`'s tags are compared with."""
    recipe = small("untagged", {"asr.mixed": 1.0}, steps=150)
    return replace(recipe, train=replace(recipe.train, pack_size=512))


def tagged() -> LatentRecipe:
    """The same examples as `untagged`, each under the tag of its form."""
    tasks = Mixture(tasks={"asr.plain": 1.0, "asr.formatted": 1.0})
    return replace(untagged(), name="tagged", mixture=tasks)


def check_rich(bench: Bench) -> Figures:
    """Rich transcription: every line by one model, and whether tags keep two written forms apart."""
    rows = bench.rows()
    model = bench.taught(rich, rows, after=listener)
    figures: Figures = {}
    for split, keys in {
        "test": ("asr.plain", "asr.formatted", "asr.times", "prosody"),  # held-out voices
        "test_seen": ("sid", "ask"),  # names of speakers can be known of known voices alone
    }.items():
        for key, scores in score_lines(model, bench.held_out(rows, split), keys, bench.config.limit).items():
            figures |= {
                f"{key}.{name}": value
                for name, value in scores.items()
                if name != "rows" and not isinstance(value, str)
            }
    held = bench.held_out(rows)
    for make in (tagged, untagged):
        preset, arm = make.__name__, bench.taught(make, rows, after=listener)
        for form in ("plain", "formatted"):
            line = LATENT_TASKS[f"asr.{form}"]
            line = line if preset == "tagged" else replace(line, flags=())
            table, random = RowTexts(held, arm.tokenizers.text), np.random.default_rng(0)
            asked = [question(line, table, item, random) for item in asked_items(line, held)]
            scores = score(f"asr.{form}", [one.answer for one in asked], answers(arm, asked))
            figures |= {f"{preset}.{form}.accuracy": scores["accuracy"], f"{preset}.{form}.wer": scores["wer"]}
    return figures


SYSTEM = System(
    name="rich",
    title="rich transcription",
    row="B35, B49",
    recipes=(listener, rich, tagged, untagged),
    differs="one decoder trained with the rest, not frozen",
    check=check_rich,
    measures="every task by one model; two written forms with a tag and without",
    targets=(
        Target(
            "tags keep two written forms apart",
            lambda f: all(f[f"tagged.{form}.wer"] < f[f"untagged.{form}.wer"] for form in ("plain", "formatted")),
        ),
        Target("the speaker is named right nine times of ten", lambda f: f["sid.accuracy"] >= 0.9),
        Target("nine spoken transcripts of ten are right", lambda f: f["asr.plain.accuracy"] >= 0.9),
        Target("nine words of ten start where they are said to", lambda f: f["asr.times.near"] >= 0.9),
        Target("nine written transcripts of ten are right", lambda f: f["asr.formatted.accuracy"] >= 0.9),
        Target("the prosody class is right nine times of ten", lambda f: f["prosody.accuracy"] >= 0.9),
        Target("nine answers of ten are right", lambda f: f["ask.accuracy"] >= 0.9),
    ),
    measured=(
        Measured(
            "unitok systems run rich",
            {
                "tagged.plain.accuracy": 0.75,
                "tagged.formatted.accuracy": 0.27,
                "tagged.plain.wer": 0.096,
                "tagged.formatted.wer": 0.113,
                "untagged.plain.accuracy": 0.28,
                "untagged.formatted.accuracy": 0.08,
                "untagged.plain.wer": 0.188,
                "untagged.formatted.wer": 0.129,
                "sid.accuracy": 0.99,
                "prosody.accuracy": 0.61,
                "ask.accuracy": 0.6,
                "asr.plain.accuracy": 0.93,
                "asr.plain.wer": 0.021,
                "asr.formatted.accuracy": 0.55,
                "asr.times.near": 0.93,
                "asr.times.accuracy": 0.11,
            },
        ),
    ),
)
