"""How long training stands still for a checkpoint, beside copying the same bytes once in memory."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.arms import Arm, interleave, ratio
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_training.checkpoint.background import BackgroundSaver
from unitok_training.checkpoint.state import Checkpoint, module_tensors, random_states, save_checkpoint
from unitok_training.trainer.optimizer import OptimConfig, Optimizer


def run(context: Context) -> Outcome:
    """Ratio `checkpoint.stall_vs_copy`."""
    shape = {"width": 64, "layers": 1, "heads": 2, "kv_heads": 1} if context.quick else material.SMALL
    model = material.decoder(shape, seed=context.seed)
    optimizer = Optimizer(dict(model.named_parameters()), OptimConfig())
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    optimizer.step(1.0)
    checkpoint = Checkpoint(
        model=module_tensors(model), optimizer=optimizer.tensors(), rng=random_states(), state={"data": {}}
    )
    tensors = [*checkpoint.model.values(), *checkpoint.optimizer.values()]
    size = sum(value.numel() * value.element_size() for value in tensors)
    folder = context.folder / "checkpoints"
    saver = BackgroundSaver()
    counter = iter(range(1, 1_000_000))

    def copy() -> float:
        begin = time.perf_counter()
        copies = [value.clone() for value in tensors]
        seconds = time.perf_counter() - begin
        del copies
        return seconds

    arms = [
        Arm(name="copy", run=copy, unit="s", settings={"bytes": size}),
        Arm(name="blocking", run=lambda: _blocking(folder, checkpoint, next(counter)), unit="s"),
        Arm(name="background", run=lambda: _background(saver, folder, checkpoint, next(counter)), unit="s"),
    ]
    _background(saver, folder, checkpoint, next(counter))  # its copies are allocated once in a run
    found, failed = interleave(arms, context.rounds, context.report)
    return Outcome(
        arms=found,
        ratios={"checkpoint.stall_vs_copy": ratio(found, "background", "copy")},
        notes={
            "checkpoint.stall_vs_copy": f"{size / 1e6:.0f} MB of weights and moments; another process writes the copy",
            **{f"checkpoint.{name}": reason for name, reason in failed.items()},
        },
    )


def _background(saver: BackgroundSaver, folder: Path, checkpoint: Checkpoint, step: int) -> float:
    """Seconds that a step waits, the write before being over."""
    begin = time.perf_counter()
    saver.save(folder, checkpoint, step=step, keep=1)
    seconds = time.perf_counter() - begin
    saver.wait()
    return seconds


def _blocking(folder: Path, checkpoint: Checkpoint, step: int) -> float:
    begin = time.perf_counter()
    save_checkpoint(folder, checkpoint, step=step, keep=1)
    return time.perf_counter() - begin
