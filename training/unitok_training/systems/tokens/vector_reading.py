"""A decoder that reads vectors in the place of units: the frames that the units of a bench were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from unitok.model import Model
from unitok_training.data.latent_tasks import LATENT_TASKS, RowTexts, asked_items
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.latent import answers, question
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.latent import AdapterChoice, EncoderChoice, LatentRecipe
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_bench import TokenBench
from unitok_training.systems.base.token_parts import word_errors
from unitok_training.systems.base.token_scores import sentences_of
from unitok_training.train_latent import train_latent
from unitok_training.trainer.config import FROZEN, LatentTrainConfig, PartTuning, TrainConfig, Tuning

READING: Mapping[str, float] = {"asr": 1.0}
"""What readers learn."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Training of a reader."""

    steps: int
    """Updates."""
    pack_size: int
    """Most positions of a pack, ids and vectors."""


def vector_recipe(bench: TokenBench, name: str, seed: int, reading: Reading) -> LatentRecipe:
    """A reader of the frames that the units were made of, each of them a vector: the encoder does not move."""
    config, moving = bench.config, PartTuning(learning_rate=None)
    return LatentRecipe(
        name=name,
        encoder=EncoderChoice(kind="pretrained", folder=f"unitok:{bench.parts.folder / 'tokenizers' / 'units'}"),
        adapter=AdapterChoice(kind="stacking", stride=1, match_scale=True),
        tuning=Tuning(encoder=FROZEN, adapter=moving, decoder=moving),
        mixture=Mixture(tasks=READING),
        train=as_latent(replace(config.train, steps=reading.steps, pack_size=reading.pack_size, seed=seed)),
    )


def as_latent(train: TrainConfig) -> LatentTrainConfig:
    """The training of readers of tokens, of vectors: nothing is added to it."""
    shared = {one.name: getattr(train, one.name) for one in fields(TrainConfig)}
    return LatentTrainConfig(**shared, ctc_weight=0.0, augment=False)


def vector_reader(bench: TokenBench, seed: int, start: Path, reading: Reading) -> Model:
    """A model of text after it learned to read frames."""
    name, rows = f"vectors-{seed}", [row for row in bench.spoken_rows if row.split == "train" and row.text]
    recipe = vector_recipe(bench, name.replace("-", "_"), seed, reading)
    bench.report(f"{name}: {recipe.train.steps} steps")
    return train_latent(recipe, rows, bench.run / name, start=start, split="").model


def read_from_vectors(bench: TokenBench, run: Evaluation, rows: Sequence[int]) -> Counted:
    """Word errors of the text that a model reads in the recordings of rows."""
    by_id = {row.id: row for row in bench.parts.rows}
    heard = [by_id[str(run.shards.row(row)["id"])] for row in rows]
    line, table, random = LATENT_TASKS["asr"], RowTexts(heard, run.model.tokenizers.text), np.random.default_rng(0)
    asked = [question(line, table, item, random) for item in asked_items(line, heard)]
    assert len(asked) == len(rows), "each has a recording and a text"
    return word_errors([one.answer for one in asked], answers(run.model, asked)).of(sentences_of(run, rows))
