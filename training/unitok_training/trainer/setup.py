"""What a trainer needs: parts, a source of batches, an objective; and what setups of all kinds have in common."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from unitok.decoder.model import Decoder
from unitok_tokenizers.compute import Compute
from unitok_training.data.packing import DataState
from unitok_training.objectives.base import Objective
from unitok_training.trainer.batches import BatchSource
from unitok_training.trainer.config import DecoderTuning, TrainConfig
from unitok_training.trainer.distributed import World
from unitok_training.trainer.fsdp import Initial
from unitok_training.trainer.parts import Part, RowTuning


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What a run is validated on."""

    keys: Sequence[str]
    """Keys of the mixture that held-out rows can serve."""
    batches: Sequence[Any]
    """This process's share of the batches."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score of held-out examples."""

    name: str
    """Its place among the scores, with points: `asr.wer`."""
    higher: bool
    """Whether the higher one is better."""
    shown: bool = True
    """Whether it is told on the terminal."""


LOSS = Score(name="loss", higher=False)
"""What a validation always has."""


class HeldOutScorer(ABC):
    """Scores held-out examples with the weights of a run, without changing anything of it."""

    @property
    @abstractmethod
    def scores(self) -> Sequence[Score]:
        """What `measure` gives a number for, every time."""

    @abstractmethod
    def measure(self, modules: Mapping[str, nn.Module]) -> dict[str, Any]:
        """Scores by task, as an evaluation names them.

        `modules` are the networks of the parts by name (a decoder alone is `decoder`), in evaluation mode.
        """


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is trained, on what, towards what."""

    parts: Sequence[Part]
    """The parts of the model."""
    source: BatchSource[Any, Any]
    """Where batches come from."""
    objective: Objective[Any]
    """What is minimized."""
    compute: Compute
    """Device and precision."""
    compiled: bool = False
    """Whether the decoder's blocks are compiled."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What a continued run must have in common with this one, beside the configuration and the source's."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What these settings were before a version could say them."""
    messages: Sequence[str] = ()
    """What to tell before training."""
    held_out: HeldOut | None = None
    """What it is validated on; None for no validation."""
    scorer: HeldOutScorer | None = None
    """What else a validation measures."""


def decoder_part(
    name: str,
    decoder: Decoder,
    config: TrainConfig,
    tuning: DecoderTuning,
    first_new: int | None,
    compute: Compute,
    world: World,
    initial: Initial | None = None,
) -> Part:
    """A decoder as a part, its blocks recomputed as the configuration says."""
    rows = RowTuning.of(tuning, first_new, decoder.config.vocab_size)
    decoder.recompute_blocks(config.recompute_blocks, keep_products=config.keep_products)
    return Part(
        name, decoder, tuning.decoder, config.optim, compute, world, rows=rows, shard=config.shard, initial=initial
    )


def prepared(part: Part, config: TrainConfig, compute: Compute) -> tuple[Decoder, bool, list[str]]:
    """(the decoder of a part, compiled as the configuration says; whether its blocks are; what to tell)."""
    decoder = part.module
    assert isinstance(decoder, Decoder)
    if config.compile and compute.compiles:
        decoder.compile_blocks()
        return decoder, True, []
    told = ["train.compile has no effect: no C++ compiler found (g++, clang++ or $CXX)"] if config.compile else []
    return decoder, False, told


def held_out_batches(source: BatchSource[Any, Any] | None, config: TrainConfig, world: World) -> HeldOut | None:
    """This process's share of the batches of a validation: as many in every process."""
    if source is None or not config.eval_every:
        return None
    count = -(-config.eval_batches // world.size)
    steps = source.steps(DataState(), rank=world.rank, world_size=world.size, pin=False)
    batches = itertools.islice(itertools.chain.from_iterable(made for made, _ in steps), count)
    return HeldOut(keys=source.keys, batches=list(batches))
