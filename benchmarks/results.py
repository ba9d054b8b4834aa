"""What is measured, what it should reach, and results on disk: a part for each kind of processor, losing rows kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.arms import Measured
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A row of the table: what is measured and what it should reach."""

    text: str
    """What, in a few words."""
    at_least: float | None = None
    """Smallest value that reaches the goal."""
    at_most: float | None = None
    """Greatest value that reaches it."""

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def sign(self) -> str:
        """The goal as it is printed."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


GOALS: Mapping[str, Goal] = {
    "train.vs_trainer_default": Goal(text="training tokens/s ÷ Trainer at its defaults", at_least=5),
    "train.vs_trainer_best": Goal(text="training tokens/s ÷ Trainer at its best flags", at_least=2),
    "train.vs_trainer_best.fp32": Goal(text="the same, both in float32", at_least=2),
    "train.vs_trainer_best.bf16": Goal(text="the same, both in bfloat16 over float32 weights", at_least=2),
    "train.gemm_share": Goal(text="share of the matrix-product rate, training", at_least=0.40),
    "train.gpu_gemm_share": Goal(text="share of the matrix-product rate, training, H200", at_least=0.75),
    "train.gpu_vs_trainer_best": Goal(text="training tokens/s ÷ Trainer with its best flags, H200", at_least=2.5),
    "decode.vs_generate": Goal(text="decoding, batch 1, 28M ÷ generate at its best flags", at_least=3),
    "decode.vs_generate.fp32": Goal(text="the same, both in float32", at_least=3),
    "decode.vs_generate.bf16": Goal(text="the same, both in bfloat16", at_least=3),
    "decode.vs_llamacpp": Goal(text="decoding, batch 1, 28M ÷ llama.cpp", at_least=0.8),
    "decode.bandwidth_share": Goal(text="share of the read bandwidth, batch 1, 350M", at_least=0.6),
    "decode.gpu_bandwidth_share": Goal(text="share of the read bandwidth, batch 1, ≥ 1B, H200", at_least=0.75),
    "decode_b64.vs_generate": Goal(text="decoding, batch 64 ÷ generate at its best flags", at_least=4),
    "decode_b64.vs_generate.fp32": Goal(text="the same, both in float32", at_least=4),
    "decode_b64.vs_generate.bf16": Goal(text="the same, both in bfloat16", at_least=4),
    "layouts.depth_vs_flat.b1": Goal(text="ms a second of audio by depth ÷ flat, batch 1, 8 codebooks", at_most=0.4),
    "layouts.depth_vs_flat.b8": Goal(text="the same, batch 8", at_most=0.4),
    "layouts.parallel_bits_vs_depth": Goal(text="bits a second of held-out audio, parallel ÷ depth", at_least=1),
    "data.packed_tokens_per_second": Goal(text="packed tokens/s from shards, one core", at_least=100e6),
    "data.padding_share": Goal(text="padding share of packs", at_most=0.001),
    "data.dropped_share": Goal(text="dropped share of examples", at_most=0.0),
    "loss.memory_vs_plain": Goal(text="default loss's peak memory ÷ plain's, 150k ids, 4k tokens", at_most=0.1),
    "loss.peak_bytes": Goal(text="default loss's peak memory, 150k ids, 16k tokens (bytes)", at_most=1e9),
    "lora.steps_vs_full": Goal(text="steps/s of rank 16 on all matrices ÷ full training's, 135M", at_least=1.3),
    "lora.memory_vs_full": Goal(text="peak memory of rank 16 ÷ full training's, 135M", at_most=0.45),
    "lora.memory_vs_full.recomputed": Goal(text="the same, both computing their blocks again", at_most=0.45),
    "sharded.memory_vs_share.2": Goal(text="memory a process ÷ its share of 100M, 2 processes", at_most=1.05),
    "sharded.memory_vs_share.4": Goal(text="the same, 4 processes", at_most=1.05),
    "checkpoint.stall_vs_copy": Goal(text="checkpoint stall ÷ copying the bytes once", at_most=1.5),
    "units.vs_transformers": Goal(text="units/s to layer 6 ÷ transformers cut there, batch 8 by length", at_least=1.5),
    "units.vs_transformers_cut": Goal(text="the same ÷ transformers with all of its blocks", at_least=3),
    "units.equal_share": Goal(text="units equal to transformers' of each recording alone", at_least=0.995),
    "units.far_share": Goal(text="share of the others that are no near tie", at_most=0),
    "files.vs_process_each": Goal(text="short files/s of `generate` ÷ one process a file", at_least=20),
    "files.vs_unsorted": Goal(text="short files/s by length ÷ batches in the order of the files", at_least=1),
    "files.vs_alone": Goal(text="short files/s by length ÷ one after another in a process", at_least=2),
    "files_killed.vs_undisturbed": Goal(
        text="10,000 short files killed five times ÷ undisturbed, files/s", at_least=0.5
    ),
    "streams.offline_difference": Goal(text="50,000 frames stepped − one pass over them (nats)", at_most=1e-4),
    "streams.cache_growth": Goal(text="bytes of the cache behind them ÷ behind the first", at_most=1),
    "streams.p99_vs_frame": Goal(text="99th percentile of a step ÷ a frame's 80 ms", at_most=1),
    "demo.seconds_vs_before": Goal(text="`make demo` ÷ time before: 450 s of 746, its targets met", at_most=450 / 746),
}
"""Key of `ratios` → goal."""


@dataclass(kw_only=True)
class Outcome:
    """What one subject found."""

    arms: dict[str, Measured] = field(default_factory=dict)
    """Arm → rounds."""
    ratios: dict[str, float | None] = field(default_factory=dict)
    """Keys of GOALS → value, None where it could not be measured."""
    notes: dict[str, str] = field(default_factory=dict)
    """Key or arm → why there is no value, or what a reader must know."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a subject was measured: what every row of it names."""

    commit: str
    """Of the source; `+` behind it where files differed."""
    rounds: int
    """Times that every arm ran."""
    threads: int
    """Of the processor."""
    seed: int
    """Of weights, prompts and lengths."""
    bfloat16: bool
    """Whether bfloat16 was a precision to measure."""
    busy_share: float
    """Largest share of the processor that other work took before or meanwhile."""
    forced: tuple[str, ...] = ()
    """What `--force` overruled; empty where nothing."""


FORMAT = 2


def empty() -> dict[str, Any]:
    """Results before anything was measured."""
    return {"format": FORMAT, "processors": {}}


def read(path: Path) -> dict[str, Any]:
    """Results of earlier runs, or empty ones. InputError for a file of another format."""
    if not path.exists():
        return empty()
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is not results of format {FORMAT}: move it away, and measure anew")
    return found


def merge(
    results: dict[str, Any], subject: str, outcome: Outcome, *, kind: str, machine: Mapping[str, Any], run: Run
) -> dict[str, Any]:
    """Replace one subject's part of one kind of processor. AssertionError for a key that the table does not have."""
    assert set(outcome.ratios) <= set(GOALS), set(outcome.ratios) - set(GOALS)
    fresh: dict[str, Any] = {"machine": {}, "subjects": {}}
    part = results["processors"].setdefault(kind, fresh)
    part["machine"] = dict(machine)
    missing = [key for key, value in outcome.ratios.items() if value is None and key not in outcome.notes]
    part["subjects"][subject] = {
        "run": {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), **asdict(run), "forced": list(run.forced)},
        "ratios": dict(outcome.ratios),
        "arms": {name: value.to_json() for name, value in outcome.arms.items()},
        "notes": {**outcome.notes, **{key: "could not be measured here" for key in missing}},
    }
    return results


def save(results: Mapping[str, Any], json_path: Path) -> None:
    """Write the file."""
    write_json(json_path, results)
