"""Train adapters one after another between an encoder and a decoder that do not move, until the loss has halved.

Hono et al. 2023 and Yu et al. 2024 compare adapters in this way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unitok.frontends.adapters.registry import ADAPTERS
from unitok.model import Model
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_training.data.latent_examples import LatentSource
from unitok_training.fitting.tokenizers import training_rows
from unitok_training.recipes.latent import AdapterChoice, LatentRecipe
from unitok_training.run_models.latent import make_front_end, spelled
from unitok_training.trainer.config import FROZEN, PartTuning, Tuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.latent import latent_setup
from unitok_training.trainer.loop import Trainer


@dataclass(frozen=True, kw_only=True)
class AdapterFigures:
    """How an adapter learned."""

    kind: str
    """Name in `unitok.frontends.adapters.registry.ADAPTERS`."""
    parameters: int
    """Weights that moved."""
    first: float
    """Loss of the first steps, nats per token."""
    last: float
    """Loss of the last steps."""
    halved: int | None
    """Steps until the loss was half of the first; None where it was not within those that were allowed."""


GRID = (
    "tuning={encoder: {full: false}, decoder: {full: false}}",
    "mixture={only: {asr: 1}}",
    "train={steps: 1000, pack_size: 512, window: 512, log_every: 10}",
    "train.optim={name: adamw, warmup_steps: 10, schedule: constant}",
)
"""What `unitok adapters` changes in the recipe `latent`: small packs and AdamW, since an adapter alone moves."""


def train_adapter(
    model: Model,
    rows: Sequence[Row],
    choice: AdapterChoice,
    recipe: LatentRecipe,
    out: Path,
) -> AdapterFigures:
    """Train a new adapter for a model's own encoder and decoder, both frozen, until the loss has halved.

    The loss is that of `train.log_every` steps; `train.steps` are the most. InputError for a model without a latent
    front end.
    """
    if model.latent is None:
        raise InputError("this model has no latent front end whose encoder hears; train one with `unitok train-latent`")
    moving = PartTuning(learning_rate=recipe.tuning.adapter.learning_rate)
    rows = training_rows(list(rows))
    choice = spelled(choice, [row.text or "" for row in rows], model.tokenizers.text)
    recipe = replace(recipe, adapter=choice, tuning=Tuning(encoder=FROZEN, adapter=moving, decoder=FROZEN))
    pieces = model.vocabulary.streams["text"].cardinalities[0]
    front = make_front_end(recipe, model.decoder, pieces, model.latent.encoder, text=model.tokenizers.text)
    source = LatentSource(
        rows, recipe.mixture, model.tokenizers.text, model.vocabulary, front,
        seed=recipe.train.seed, augmented=recipe.train.augment,
    )  # fmt: skip
    world = World(device=model.device)
    setup = latent_setup(recipe.train, recipe.tuning, front, model.decoder, source, world)
    trainer = Trainer(recipe.train, setup, out, world=world)
    losses: list[float] = []
    while trainer.step < recipe.train.steps and (len(losses) < 2 or losses[-1] > losses[0] / 2):
        trainer.run(stop_after=trainer.step + recipe.train.log_every, on_row=lambda row: losses.append(row["loss"]))
    return AdapterFigures(
        kind=choice.kind,
        parameters=sum(value.numel() for value in setup.parts[1].moving.values()),
        first=losses[0],
        last=losses[-1],
        halved=trainer.step if losses[-1] <= losses[0] / 2 else None,
    )


def train_adapters(
    model: Model,
    rows: Sequence[Row],
    recipe: LatentRecipe,
    out: Path,
    *,
    kinds: Sequence[str] = tuple(ADAPTERS),
    progress: Callable[[AdapterFigures], None] | None = None,
) -> list[AdapterFigures]:
    """`train_adapter` for several adapters with their default options; `out` gets a folder for each."""
    found = []
    for kind in kinds:
        found.append(train_adapter(model, rows, AdapterChoice(kind=kind), recipe, out / kind))
        if progress is not None:
            progress(found[-1])
    return found
