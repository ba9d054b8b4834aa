"""COSMIC: pairs of speech and text in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, Speaker, synthesize
from unitok_tokenizers.corpora.toy_rich import names_of
from unitok_tokenizers.data.manifest import Row
from unitok_training.data.latent_tasks import (
    RowTexts,
    from_audio,
    with_anothers,
    with_example,
)
from unitok_training.evaluation.latent import (
    answers,
    score_lines,
)
from unitok_training.recipes.latent import LatentRecipe
from unitok_training.systems.base.bench import Bench, Figures, told
from unitok_training.systems.base.rare_names import NAME_NOISE, NAMES, biased, with_names_alone
from unitok_training.systems.base.small_recipes import in_context, spelling_listener
from unitok_training.systems.base.system import Measured, System, Target

SESSION = 4
"""Of the corpus about examples: sentences of a speaker that share their name."""


FAR = (Speaker("ivy", 250.0, 1.6, 0.2, 0.001), Speaker("jon", 76.0, 0.68, 0.5, 0.001))
"""Voices far outside of those that are trained on, and of what augmentation makes of them."""


def cosmic() -> LatentRecipe:
    """COSMIC: pairs of speech and text in the prompt, templated questions about what is said."""
    return in_context("cosmic", {"asr.example": 6.0, "ask.words": 1.0}, steps=2000)


def check_cosmic(bench: Bench) -> Figures:
    """COSMIC: sentences by held-out voices and by far ones, without an example, with one of the same speaker, who
    speaks of the same name, and with one of another; questions."""
    rows = bench.rows(names=NAMES, name_noise=NAME_NOISE, session=SESSION)
    model = bench.taught(cosmic, with_names_alone(rows), after=spelling_listener)
    held = [row for row in bench.held_out(rows) if row.audio is not None]
    figures: Figures = {}
    for domain, given in (("held_out", held), ("far", by_far_voices(bench, held))):
        table = RowTexts(given, model.tokenizers.text)
        for name, tell in (("shots0", from_audio), ("shots1", with_example), ("other", with_anothers)):
            random = np.random.default_rng(bench.config.seed)
            asked = [told(table, index, tell(table, index, random)) for index in range(len(given))]
            found = biased(given, answers(model, asked), set(names_of(NAMES)))
            figures |= {f"{domain}.{name}.{key}": value for key, value in found.items()}
    seen = score_lines(model, bench.held_out(rows, "test_seen"), ["ask.words"], bench.config.limit)
    return {**figures, "ask.words.accuracy": seen["ask.words"]["accuracy"]}


def by_far_voices(bench: Bench, rows: Sequence[Row]) -> list[Row]:
    """The same sentences, said by `FAR`, who speak of the same names."""
    found, speakers = [], sorted({row.speaker for row in rows})
    for index, row in enumerate(rows):
        voice, path = FAR[speakers.index(row.speaker) % len(FAR)], bench.run / "far" / f"{row.id}.flac"
        seeds = [bench.config.seed, index]
        spoken = synthesize(row.text or "", voice, prosody=str(row.extras["prosody"]), seed=seeds)
        write_audio(path, spoken.samples, SAMPLE_RATE)
        found.append(replace(row, audio=path, words=()))
    return found


SYSTEM = System(
    name="cosmic",
    title="COSMIC",
    row="B44",
    recipes=(spelling_listener, cosmic),
    differs=(
        "a convolution instead of a window-level Q-Former; templates ask, not a language model; trained "
        "with the decoder"
    ),
    check=check_cosmic,
    measures=(
        "sentences by held-out and by far voices, with no example, one by the same speaker, one by another; questions"
    ),
    targets=(
        Target(
            "one example lowers errors for new voices on new names",
            lambda f: f["held_out.shots1.b_wer"] < f["held_out.shots0.b_wer"],
        ),
        Target("one example lowers errors for far voices", lambda f: f["far.shots1.wer"] < f["far.shots0.wer"]),
    ),
    measured=(
        Measured(
            "unitok systems run cosmic",
            {
                "held_out.shots0.wer": 0.094,
                "held_out.shots1.wer": 0.042,
                "held_out.other.wer": 0.125,
                "held_out.shots0.b_wer": 0.623,
                "held_out.shots1.b_wer": 0.261,
                "held_out.other.b_wer": 0.841,
                "far.shots0.wer": 0.53,
                "far.shots1.wer": 0.53,
                "far.other.wer": 0.541,
                "ask.words.accuracy": 0.7,
            },
        ),
    ),
)
