"""UniAudio (Yang et al. 2023): a decoder over frames and a small one over the codebooks of each, beside a flat stream.

unitok systems run uniaudio -o runs/uniaudio

Both arms write the same codes of the same texts, have as many blocks in all, and learn from equally many utterances.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import (
    CodeBench,
    CodeBenchConfig,
    code_nats,
    parameters,
    said_errors,
    text_prompts,
    written,
)
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import Build, oracle_target, settings_of
from unitok_training.trainer.config import TrainConfig

TASKS: Mapping[str, float] = {"vtts": 1.0}
PLAIN = ExampleOptions(voice_share=0.0)
FLOAT_BYTES = 4
"""Of a kept key or value."""


@dataclass(frozen=True, kw_only=True)
class UniAudioConfig(CodeBenchConfig):
    """What the check depends on."""

    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=6, heads=4, kv_heads=2))
    """The decoder of the flat arm; the other one gives `depth_layers` of its blocks to codebooks."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=300, pack_size=2048))
    """Training of the flat arm; the seed is that of the arm."""
    rounds: int = 3
    """Times that the generation of the same utterances is timed; the quickest counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 1:
            raise InputError(f"rounds is {self.rounds}: it must be 1 or more")


def builds(bench: CodeBench) -> dict[str, Build]:
    """Arm → what it is built of."""
    config = bench.config
    assert isinstance(config, CodeBenchConfig)
    return {"flat": Build(), "depth": Build(decoder=config.core, model=config.depth, pack_size=bench.pack_of(1))}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a second of audio takes."""

    seconds: float
    """Of the processor, of this process alone: others on the machine do not count."""
    kept: float
    """Bytes of the keys and values that the decoder keeps of it. A small decoder keeps those of one frame alone."""


def cost(run: Evaluation, rows: Sequence[int], sampling: Sampling, rounds: int) -> Cost:
    """Measure the writing of codes."""
    stream, specs, quickest, frames = run.stream("codes"), text_prompts(run, rows), float("inf"), 0
    assert stream is not None and stream.frame_rate is not None, "the codec says its rate"
    for _ in range(rounds):
        begin = time.process_time()
        found = written(run, specs, sampling, speak=False)
        quickest = min(quickest, time.process_time() - begin)
        frames = sum(len(span) for one in found for span in one.outputs)
    seconds = max(frames, 1) / float(stream.frame_rate)  # of a model that says nothing, one frame
    return Cost(
        seconds=quickest / seconds, kept=float(stream.frame_rate) * positions(run.model) * kept_bytes(run.model)
    )


def positions(model: Model) -> float:
    """Positions of a frame of codes."""
    pattern, stream = model.vocabulary.framed, model.vocabulary.main("codes")
    assert stream is not None
    return len(stream.cardinalities) if pattern is None else len(pattern.inline) / pattern.frames


def kept_bytes(model: Model) -> int:
    """Bytes of the keys and values of one position."""
    shape = model.decoder.config
    return 2 * shape.layers * shape.kv_heads * (shape.head_size or shape.width // shape.heads) * FLOAT_BYTES


def check_uniaudio(given: Bench) -> Figures:
    """Likelihood, time and memory by second of audio, of a frame at once and of a code after another."""
    config = settings_of(given, UniAudioConfig)
    bench = CodeBench(given, config)
    figures, nats = bench.oracle_figures("c32"), dict[str, list[Counted]]()
    sampling = Sampling(temperature=config.temperature)

    def scored(run: Evaluation) -> tuple[Counted, Cost, Counted, int]:
        some = bench.some(run, "codes", "text_ids")
        spent = cost(run, some, sampling, config.rounds)
        return code_nats(run), spent, said_errors(bench, run, some, config.temperature), parameters(run.model)

    for arm, build in builds(bench).items():
        found = bench.over_seeds(arm, TASKS, scored, options=PLAIN, build=build)
        nats[arm] = [one for one, *_ in found]
        figures |= over_seeds(f"c32.{arm}.bits_per_second", [one.rate / float(np.log(2)) for one in nats[arm]])
        figures |= over_seeds(f"c32.{arm}.ms_per_second", [1000 * one.seconds for _, one, *_ in found])
        figures |= over_seeds(f"c32.{arm}.wer", [one.rate for *_, one, _ in found])
        figures[f"c32.{arm}.kept_bytes_per_second"] = found[0][1].kept
        figures[f"c32.{arm}.parameters"] = float(found[0][3])
    figures |= bench.compared("c32.nats_over_flat", nats["depth"], nats["flat"])
    for key in ("ms_per_second", "kept_bytes_per_second", "parameters"):
        figures[f"c32.{key}_ratio"] = figures[f"c32.depth.{key}"] / figures[f"c32.flat.{key}"]
    return figures


SYSTEM = System(
    name="uniaudio",
    title="UniAudio",
    row="C32",
    sentences=600,
    test_sentences=100,
    settings=UniAudioConfig,
    check=check_uniaudio,
    differs="one task, text to codes; four codebooks of the codec here; a head for each codebook; codes enter the "
    "decoder as their sum, not as a patch of joined rows; both arms learn from equally many utterances",
    measures="likelihood of held-out codes, time and kept keys and values by second of audio, of a depth decoder "
    "without per-step weights and of a flat stream with as many blocks; word errors heard by the oracle",
    targets=(
        oracle_target("c32"),
        Target("no more parameters than the flat stream's", lambda f: f["c32.parameters_ratio"] <= 1.02),
        Target("codes are as likely, or likelier", lambda f: f["c32.nats_over_flat"] <= 0),
        Target("… on these sentences, not by chance", lambda f: f["c32.nats_over_flat.high"] <= 0),
        Target("a second of audio takes less time", lambda f: f["c32.ms_per_second_ratio"] < 1),
        Target("… and less memory", lambda f: f["c32.kept_bytes_per_second_ratio"] < 1),
    ),
    measured=(
        Measured(
            "unitok systems run uniaudio",
            {
                "c32.depth.bits_per_second": 466.0,
                "c32.depth.bits_per_second.interval": 11.1,
                "c32.depth.kept_bytes_per_second": 51200.0,
                "c32.depth.ms_per_second": 16.7,
                "c32.depth.ms_per_second.interval": 5.07,
                "c32.depth.parameters": 1280000.0,
                "c32.depth.wer": 0.86,
                "c32.depth.wer.interval": 0.123,
                "c32.flat.bits_per_second": 486.0,
                "c32.flat.bits_per_second.interval": 12.6,
                "c32.flat.kept_bytes_per_second": 307000.0,
                "c32.flat.ms_per_second": 38.9,
                "c32.flat.ms_per_second.interval": 8.78,
                "c32.flat.parameters": 1330000.0,
                "c32.flat.wer": 1.21,
                "c32.flat.wer.interval": 0.386,
                "c32.kept_bytes_per_second_ratio": 0.167,
                "c32.ms_per_second_ratio": 0.429,
                "c32.nats_over_flat": -13.8,
                "c32.nats_over_flat.high": -12.2,
                "c32.nats_over_flat.low": -15.4,
                "c32.oracle.accuracy": 0.967,
                "c32.parameters_ratio": 0.96,
            },
            "7fa1f90",
        ),
    ),
)
