"""Low-rank updates beside full training of a 135M decoder, float32, one thread: steps a second and memory.

The steps run in turn in one process, as `unitok train` runs them where memory is not short. The memory is what the
system gives a process of its own, weights and optimizer state included, with large blocks mapped, as it is where memory
is short; the same is measured with blocks that are computed again, where activations weigh little.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from benchmarks.arms import Arm, Measured, interleave, measured, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok.decoder.model import DecoderConfig
from unitok_training.cost.measure import measure, prepared
from unitok_training.cost.step import Setup, parameters, trained_parameters

SHAPE = DecoderConfig(vocab_size=49152, width=576, layers=30, heads=9, kv_heads=3, ffn=1536)
"""SmolLM-135M's."""
TINY = DecoderConfig(vocab_size=512, width=32, layers=2, heads=2, kv_heads=1)
RANK = 16
"""Of the updates of all seven matrices of a block."""


def run(context: Context) -> Outcome:
    """Ratios `lora.*`."""
    full = Setup(
        config=TINY if context.quick else SHAPE, pack_size=128 if context.quick else 512,
        document=64 if context.quick else 256, precision="fp32",
    )  # fmt: skip
    setups = {"full": full, "updates": replace(full, lora_rank=4 if context.quick else RANK)}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found, failed = interleave([_timed(name, one) for name, one in setups.items()], context.rounds, context.report)
    finally:
        torch.set_num_threads(before)
    for name, one in setups.items():
        again = replace(one, recompute_blocks=one.config.layers)
        for kind, setup in ((f"{name}.memory", one), (f"{name}.memory.recomputed", again)):
            found[kind] = measured([float(measure(setup, updates=2).peak_bytes)], "bytes", {"pack_size": one.pack_size})
            context.report(f"  {kind}: {found[kind].median:.4g} bytes")
    return Outcome(arms=found, ratios=_ratios(found), notes={**failed, **_notes(setups)})


def _timed(name: str, setup: Setup) -> Arm:
    """One update a round, behind one that is not counted."""
    step = prepared(setup)
    step.update()

    def run() -> float:
        begin = time.perf_counter()
        step.update()
        return 1 / (time.perf_counter() - begin)

    return Arm(name=name, run=run, unit="steps/s", settings={"lora_rank": setup.lora_rank, "threads": 1})


def _ratios(found: Mapping[str, Measured]) -> dict[str, float | None]:
    return {
        "lora.steps_vs_full": ratio(found, "updates", "full"),
        "lora.memory_vs_full": ratio(found, "updates.memory", "full.memory"),
        "lora.memory_vs_full.recomputed": ratio(found, "updates.memory.recomputed", "full.memory.recomputed"),
    }


def _notes(setups: Mapping[str, Setup]) -> dict[str, str]:
    full, updates = setups["full"], setups["updates"]
    said = (
        f"{parameters(full.config) / 1e6:.0f}M weights, rank {updates.lora_rank} on all matrices "
        f"({trained_parameters(updates) / 1e6:.1f}M), packs of {full.pack_size}, float32, one thread"
    )
    return {"lora.steps_vs_full": said, "lora.memory_vs_full": f"{said}; private memory of a process"}
