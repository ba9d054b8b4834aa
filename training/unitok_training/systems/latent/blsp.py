"""BLSP: a frozen decoder continues speech as it continues the text of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from unitok.model import Model
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.latent_tasks import (
    LATENT_TASKS,
    RowTexts,
    asked_items,
)
from unitok_training.evaluation.latent import (
    answers,
    question,
)
from unitok_training.evaluation.metrics import bleu
from unitok_training.evaluation.prompt_probe import read_along
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.run_models.latent import make_front_end
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.small_recipes import small, text_alone
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.trainer.config import FROZEN


def blsp_text() -> LatentRecipe:
    """BLSP's first stage: a decoder that continues and translates texts."""
    return text_alone(small("blsp_text", {"lm.text": 1.0, "mt": 1.0}, steps=800))


def blsp() -> LatentRecipe:
    """BLSP's second stage: the frozen decoder is to continue speech as it continues the text of it."""
    recipe = small("blsp", {"lm.speech": 1.0}, steps=600)
    return replace(
        recipe,
        adapter=AdapterChoice(kind="stacking", stride=2, match_scale=True),
        tuning=replace(recipe.tuning, decoder=FROZEN),
    )


def check_blsp(bench: Bench) -> Figures:
    """BLSP: divergence between what speech and its text make the frozen decoder say, and translation never taught."""
    rows = bench.rows()
    text = bench.train(blsp_text, rows)
    taught = own_continuations(text, rows)
    held = bench.held_out(taught)
    pieces = text.vocabulary.streams["text"].cardinalities[0]
    fresh = replace(text, latent=make_front_end(bench.recipe(blsp), text.decoder, pieces).eval())
    model = bench.train(blsp, taught, start="blsp_text")
    figures = {"kl.before": divergence(fresh, held), "kl.after": divergence(model, held)}
    table, random = RowTexts(held, model.tokenizers.text), np.random.default_rng(0)
    for key in ("lm.speech", "mt.speech"):
        asked = [question(LATENT_TASKS[key], table, item, random) for item in asked_items(LATENT_TASKS[key], held)]
        other = [replace(one, heard=next_.heard) for one, next_ in zip(asked, [*asked[1:], asked[0]])]
        wanted = [one.answer for one in asked]
        figures[f"{key}.bleu"] = bleu(wanted, answers(model, asked))
        figures[f"{key}.other_recording.bleu"] = bleu(wanted, answers(model, other))
    return figures


def own_continuations(model: Model, rows: Sequence[Row]) -> list[Row]:
    """Rows whose `extras.continuation` is what the model itself writes after their text."""
    table, line = RowTexts(rows, model.tokenizers.text), LATENT_TASKS["lm.text"]
    items = asked_items(line, rows)
    asked = [question(line, table, item, np.random.default_rng(0)) for item in items]
    written = {rows[item.given].id: text for item, text in zip(items, answers(model, asked))}
    return [
        replace(row, extras={**row.extras, "continuation": written[row.id]}) if row.id in written else row
        for row in rows
    ]


@torch.inference_mode()
def divergence(model: Model, rows: Sequence[Row]) -> float:
    """Mean KL in nats from the next-token distributions after a text to those after its recording, along the
    continuation of the row."""
    assert model.latent is not None
    table, rate = RowTexts(rows, model.tokenizers.text), model.latent.sample_rate
    found = []
    for item in asked_items(LATENT_TASKS["lm.speech"], rows):
        row = rows[item.given]
        (span, vectors), *_ = model.heard([(row.load(rate), rate)], "latent")
        assert vectors is not None
        given = {"text": (Span("text", table.pieces(row.text or "")), vectors[:0]), "speech": (span, vectors)}
        answer = model.vocabulary.to_ids("text", table.pieces(item.answer))
        logs = {
            name: read_along(model, SequenceSpec("lm", row.lang, conditions=(one,)), stands, answer)[0]
            for name, (one, stands) in given.items()
        }
        found.append(float((logs["text"].exp() * (logs["text"] - logs["speech"])).sum(-1).mean()))
    return float(np.mean(found))


SYSTEM = System(
    name="blsp",
    title="BLSP",
    row="B45",
    recipes=(blsp_text, blsp),
    differs="the encoder is from scratch and has a CTC loss",
    check=check_blsp,
    measures=(
        "divergence of what speech and its text make the decoder say, before and after; translation of "
        "speech, never taught"
    ),
    targets=(
        Target("the divergence falls", lambda f: f["kl.after"] < f["kl.before"]),
        Target(
            "translation, never taught, is above chance",
            lambda f: f["mt.speech.bleu"] > f["mt.speech.other_recording.bleu"],
        ),
    ),
    measured=(
        Measured(
            (
                "unitok systems run blsp --sentences 600 --test-sentences 60 --set train.steps=250 --set "
                "train.pack_size=512"
            ),
            {
                "kl.before": 1.69,
                "kl.after": 0.42,
                "lm.speech.bleu": 11.1,
                "lm.speech.other_recording.bleu": 3.2,
                "mt.speech.bleu": 0.4,
                "mt.speech.other_recording.bleu": 0.4,
            },
        ),
    ),
)
