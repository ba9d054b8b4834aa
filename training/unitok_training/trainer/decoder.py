"""Train a decoder on token shards: from rows to a trainer, and the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from unitok.decoder.model import Decoder
from unitok.layouts.base import CodebookLayout
from unitok.model_parts import LAYOUT, SECOND_PASS
from unitok.second_passes.base import SecondPass
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Curriculum, Mixture
from unitok_training.data.packing import check_shared
from unitok_training.objectives.distillation import DistillationObjective
from unitok_training.objectives.second_pass import TrainedPass
from unitok_training.objectives.teacher import Teacher
from unitok_training.objectives.tokens import TokenObjective
from unitok_training.shard_set import ShardSet
from unitok_training.trainer.batches import TokenBatches
from unitok_training.trainer.config import DecoderTuning, DistillConfig, PartTuning, SpellingConfig, TrainConfig
from unitok_training.trainer.distributed import World
from unitok_training.trainer.fsdp import Initial
from unitok_training.trainer.loop import Trainer
from unitok_training.trainer.parts import Part, RowTuning
from unitok_training.trainer.run_state import measure_of, written_alone
from unitok_training.trainer.setup import HeldOutScorer, Setup, decoder_part, held_out_batches, prepared

HELD_OUT = "dev"
"""Split that a run is validated on."""


def token_setup(
    config: TrainConfig,
    decoder: Decoder,
    source: ExampleSource,
    world: World,
    *,
    tuning: DecoderTuning | None = None,
    first_new: int | None = None,
    held_out: ExampleSource | None = None,
    scorer: HeldOutScorer | None = None,
    initial: Initial | None = None,
    spelling: SpellingConfig | None = None,
    distill: DistillConfig | None = None,
    teacher: Teacher | None = None,
    layout: CodebookLayout | None = None,
    finished: TrainedPass | None = None,
) -> Setup:
    """Train a decoder on packs of examples.

    Args:
        config: steps, packs, precision.
        decoder: trained in place.
        source: examples.
        world: processes that share the work.
        tuning: what of the decoder moves; all of it where None.
        first_new: first row of its tables that is new.
        held_out: examples for validation.
        scorer: what else a validation measures.
        initial: weights by name, one after another, of a decoder on the meta device that is to be sharded.
        spelling: how its first blocks have learned to spell before.
        distill: what is learned from a teacher.
        teacher: the model that `distill` names; its decoder is frozen, moved and rounded in place.
        layout: predicts the codes beside ids, where the vocabulary has any; trained in place.
        finished: finds what the layout leaves open; trained in place.

    Raises:
        InputError: a teacher with other ids, or another one in another process; a layout with a teacher or with
            `train.shard`.
    """
    _check_layout(layout, source.vocabulary, config, teacher)
    distill = distill or DistillConfig()
    distill.check()
    assert bool(distill.teacher) == (teacher is not None), "a teacher comes with what is learned from it"
    tuning = tuning or DecoderTuning()
    compute = resolve(world.device, config.precision)
    torch.manual_seed(config.seed)
    part = decoder_part("", decoder, config, tuning, first_new, compute, world, initial)
    trained, compiled, messages = prepared(part, config, compute)
    learned_from = {**asdict(distill), "teacher": {"path": distill.teacher, "weights": ""}}
    if teacher is not None:
        learned_from["teacher"] = {"path": distill.teacher, "weights": _agreed(teacher, world)}
        _take_in(teacher.decoder, compute, compiled=compiled)
    beside, moves = _beside(layout, finished), tuning.layout or PartTuning(learning_rate=None)
    made = [Part(name, one.to(world.device), moves, config.optim, compute, world) for name, one in beside.items()]
    batches = TokenBatches(source, config, teacher, finished)
    validated = None if held_out is None else TokenBatches(held_out, config, teacher, finished)
    return Setup(
        parts=[part, *made],
        source=batches,
        objective=_objective(trained, config, distill, teacher, layout, finished),
        compute=compute,
        compiled=compiled,
        settings={
            **_settings(tuning, spelling or SpellingConfig(), learned_from),
            **({"prefix_lm": True} if decoder.config.prefix_lm else {}),
            **{name: one.config() for name, one in beside.items()},
        },
        defaults=_settings(
            DecoderTuning(), SpellingConfig(), {**asdict(DistillConfig()), "teacher": {"path": "", "weights": ""}}
        ),
        messages=messages,
        held_out=held_out_batches(validated, config, world),
        scorer=scorer,
    )


def _settings(tuning: DecoderTuning, spelling: SpellingConfig, distill: dict[str, Any]) -> dict[str, Any]:
    """What a continued run must have in common, beside the configuration."""
    return {"tuning": asdict(tuning), "spelling": asdict(spelling), "distill": distill}


def _beside(layout: CodebookLayout | None, finished: TrainedPass | None) -> dict[str, CodebookLayout | SecondPass]:
    """What is trained beside a decoder, under the names of a model's parts."""
    found: dict[str, CodebookLayout | SecondPass] = {} if layout is None else {LAYOUT: layout}
    return found if finished is None else {**found, SECOND_PASS: finished.second}


def _check_layout(
    layout: CodebookLayout | None, vocabulary: Vocabulary, config: TrainConfig, teacher: Teacher | None
) -> None:
    """InputError where a layout cannot be trained so; it must be the vocabulary's."""
    pattern = None if layout is None else layout.pattern
    assert pattern == vocabulary.framed, "the layout is that of the vocabulary"
    if pattern is None:
        return
    if teacher is not None:
        raise InputError(
            f"distill.teacher: codes beside ids (layout {pattern.layout!r}) are not learned from a teacher; "
            "leave it out, or train with model.layout=flat"
        )
    if config.shard:
        raise InputError(
            f"train.shard splits a decoder whose ids say everything, not one with codes beside them (layout "
            f"{pattern.layout!r}); leave it out"
        )


def _objective(
    trained: Decoder, config: TrainConfig, distill: DistillConfig, teacher: Teacher | None,
    layout: CodebookLayout | None, finished: TrainedPass | None,
) -> TokenObjective | DistillationObjective:  # fmt: skip
    if teacher is None:
        smoothing, chunk = config.label_smoothing, config.loss_chunk
        second = None if finished is None else finished.second
        return TokenObjective(decoder=trained, smoothing=smoothing, chunk=chunk, layout=layout, second=second)
    return DistillationObjective(
        decoder=trained, teacher=teacher.decoder, weight=distill.weight, tokens=distill.tokens,
        temperature=distill.temperature, smoothing=config.label_smoothing, chunk=config.loss_chunk,
    )  # fmt: skip


def _agreed(teacher: Teacher, world: World) -> str:
    """The fingerprint of a teacher. InputError where the first process has another one."""
    found = int(teacher.fingerprint[:15], 16)  # what an int64 holds
    if world.agree(found) != found:
        raise InputError(
            f"distill.teacher {teacher.path} of process {world.rank} has other weights than that of the first; "
            "copy the first one's to all machines"
        )
    return teacher.fingerprint


def _take_in(teacher: Decoder, compute: Compute, *, compiled: bool) -> None:
    """Freeze a teacher, where and in the types in which the run computes."""
    teacher.requires_grad_(False).eval().to(compute.device, compute.weights)
    if compiled:
        teacher.compile_blocks()


def train(
    config: TrainConfig,
    decoder: Decoder,
    shards: Shards | ShardSet,
    vocabulary: Vocabulary,
    out: Path,
    *,
    mixture: Mixture,
    curriculum: Curriculum | None = None,
    plans: ExampleOptions | None = None,
    pieces: Sequence[str] | None = None,
    tuning: DecoderTuning | None = None,
    first_new: int | None = None,
    initial: Initial | None = None,
    spelling: SpellingConfig | None = None,
    distill: DistillConfig | None = None,
    teacher: Teacher | None = None,
    layout: CodebookLayout | None = None,
    finished: TrainedPass | None = None,
    scorer: HeldOutScorer | None = None,
    world: World | None = None,
    resume: bool = True,
    allow_change: Sequence[str] = (),
    stop_after: int | None = None,
    first: Callable[[], None] | None = None,
    on_begin: Callable[[], None] | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train `decoder` in place; returns the directory, under `out`/checkpoints, of the checkpoint that it then is.

    A run that stopped continues exactly where its newest whole checkpoint stands. `stop_after` ends this call at a
    step without changing the schedule. `pieces` are the text tokenizer's, for `ilm`; `first_new` is the first row of
    the decoder's tables that `tuning.new_embeddings` is of; `initial` as for `token_setup`, after which the weights are
    in the checkpoint alone; `spelling`, `distill`, `teacher`, `layout` and `finished` as there too; `scorer` measures
    `eval_examples`; `allow_change` as for `Trainer.resume`; `first` is called before anything is made of the decoder,
    when nobody else may write to `out`; `on_begin` is called when nothing is left to be refused, before the first step.
    InputError for a mixture, pack size, teacher, layout or checkpoint that does not fit; NonFiniteLoss before an update
    that would ruin the weights.
    """
    world, out = world or World(), Path(out)
    source = ExampleSource(shards, vocabulary, mixture, seed=config.seed, options=plans, pieces=pieces)
    source.check(config.pack_size)
    if curriculum is not None and curriculum.tasks and not source.options.repeat:  # the same few have no order
        source.follow(curriculum, config.steps * config.packs_per_step * config.pack_size)
    held_out = held_out_source(source, shards, pieces) if config.eval_every else None
    if not decoder.embedding.is_meta:
        decoder.to(world.device)
    _check_layout(layout, vocabulary, config, teacher)
    RowTuning.of(tuning or DecoderTuning(), first_new, decoder.config.vocab_size)
    decoder.recompute_blocks(config.recompute_blocks, keep_products=config.keep_products)
    check_shared(config.packs_per_step, world.size)
    measure_of(config, () if scorer is None else scorer.scores)
    if held_out is not None:
        held_out.check(config.pack_size)
    with written_alone(out, world):
        if first is not None:
            first()  # which may take an hour: what can be refused before, is
        setup = token_setup(
            config, decoder, source, world, tuning=tuning, first_new=first_new, held_out=held_out, scorer=scorer,
            initial=initial, spelling=spelling, distill=distill, teacher=teacher, layout=layout, finished=finished,
        )  # fmt: skip
        trainer = Trainer(config, setup, out, world=world)
        if resume:
            trainer.resume(allow_change=allow_change)
        if on_begin is not None:
            on_begin()
        return trainer.run(stop_after=stop_after, on_row=on_row)


def held_out_source(source: ExampleSource, shards: Shards | ShardSet, pieces: Sequence[str] | None) -> ExampleSource:
    """Examples of the held-out split, of those tasks that it can serve.

    Raises:
        InputError: it serves none.
    """
    options, every = replace(source.options, split=HELD_OUT, repeat=0), ShardSet.of(shards)

    def of(tasks: dict[str, float]) -> ExampleSource:
        given, mixture = every.for_keys(tasks), Mixture(tasks=tasks)
        return ExampleSource(given, source.vocabulary, mixture, seed=source.seed, options=options, pieces=pieces)

    kept: dict[str, float] = {}
    for key in source.mixture.keys:
        one = {key: source.mixture.tasks[key]}
        try:
            of(one)
        except InputError:  # no rows of that split: the task is not validated
            continue
        kept |= one
    if not kept:
        raise InputError(
            f"train.eval_every is set, but no row of split {HELD_OUT!r} serves a task of the mixture; prepare shards "
            "with such rows, or leave train.eval_every out"
        )
    return of(kept)
