"""The blocks that spell, where a run on shards begins: which examples they learn from, and what does not go with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from unitok.decoder.lora import lora_config
from unitok.decoder.model import Decoder
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.files import list_checkpoints
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture, parse_key
from unitok_training.fitting.block_spelling import fit_block_spelling
from unitok_training.run_models.tokens import Materials
from unitok_training.trainer.distributed import World

TASK = "asr"
"""Whose examples say what is said, as text."""


def can_spell(given: Materials) -> Materials:
    """The same. InputError where its recipe lets blocks spell that cannot."""
    recipe, vocabulary = given.recipe, given.vocabulary
    if not recipe.spelling.steps:
        return given
    if not _tasks(given):
        raise InputError(
            "spelling.steps is set, and no task of the mixture hears what it writes; add one, as "
            "`--set mixture.asr=1`, or leave it out"
        )
    if recipe.train.shard:
        raise InputError(
            "spelling.steps needs the whole decoder in every process, which train.shard is there to avoid; "
            "leave one of them out"
        )
    tables = (recipe.tuning.embeddings, recipe.tuning.new_embeddings)
    moves = recipe.tuning.decoder
    adapted = given.base is not None and lora_config(given.base.decoder) is not None
    if not moves.full or moves.start_step or adapted or any(one is not None and one.frozen for one in tables):
        raise InputError(
            "spelling.steps moves blocks and rows of a decoder, which tuning leaves as they are: let all of them move "
            "(tuning.decoder.full=true, from the first step, without low-rank updates), or leave it out"
        )
    if vocabulary.framed is not None or given.decoder_config().prefix_lm:
        what = "model.layout has codes beside its ids" if vocabulary.framed else "decoder.prefix_lm is set"
        raise InputError(f"spelling.steps is for ids that see what stands before them, and {what}; leave it out")
    return given


def spell(given: Materials, decoder: Decoder, run: Path, world: World) -> None:
    """Let the first blocks of a decoder learn what speech says, where the recipe says so and the run has not begun."""
    recipe = given.recipe
    if not recipe.spelling.steps or list_checkpoints(run / "checkpoints"):
        return
    source = ExampleSource(
        given.data.for_keys(_tasks(given)), given.vocabulary, Mixture(tasks=_tasks(given)), seed=recipe.train.seed,
        options=replace(recipe.plans, condition_dropout=0.0),
    )  # fmt: skip
    compute = resolve(world.device, recipe.train.precision)
    if compute.precision == "bf16-pure":  # its masters are made later, and only then are weights rounded
        compute = resolve(world.device, "bf16")
    fit_block_spelling(
        decoder, source, given.bundle.text, recipe.spelling,
        pack_size=recipe.train.pack_size, seed=recipe.train.seed, compute=compute,
    )  # fmt: skip


def _tasks(given: Materials) -> dict[str, float]:
    """Lines of the mixture that hear what they write."""
    found = given.recipe.mixture.tasks
    return {key: weight for key, weight in found.items() if weight and parse_key(key).of.task.name == TASK}
