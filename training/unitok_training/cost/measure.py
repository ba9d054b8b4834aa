"""What a training step really takes: some updates in processes of their own, by the system's account of their memory.

The peak is the most resident memory above what the same process held after an update of a tiny model, which loads
whatever the first use of torch loads. Linux only: /proc tells it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.lora import LoraConfig, add_lora
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.compute import Compute, resolve
from unitok_tokenizers.heap import map_large_blocks
from unitok_training.cost.step import Setup
from unitok_training.data.batch import Pack, collate
from unitok_training.data.documents import Document
from unitok_training.objectives.distillation import DistillationObjective
from unitok_training.objectives.pack_losses import supervised_positions
from unitok_training.objectives.tokens import TokenBatch, TokenObjective
from unitok_training.trainer.distributed import World, world_from_environment
from unitok_training.trainer.fsdp import ShardedMasterWeights, shard_decoder, total_norm
from unitok_training.trainer.optimizer import MasterWeights, OptimConfig, Optimizer, clip_gradients

TINY = DecoderConfig(vocab_size=64, width=32, layers=1, heads=2, kv_heads=1)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Updates in one process."""

    peak_bytes: int
    """Most memory at once, weights and optimizer state included, what the libraries take not."""
    seconds: tuple[float, ...]
    """Of every update but the first."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A model that is ready to learn."""

    update: Callable[[], None]
    """One update: forward, backward, clipping, optimizer."""
    held_bytes: Callable[[], int]
    """Bytes of the tensors that lie between two updates: weights, masters, optimizer state."""


def prepared(setup: Setup, world: World | None = None) -> Step:
    """A setup's model with random weights, a pack of random ids, and its optimizer."""
    world = world or World()
    model = Decoder(setup.config, generator=torch.Generator().manual_seed(0))
    if setup.lora_rank:
        add_lora(model, LoraConfig(rank=setup.lora_rank, targets=setup.lora_targets))
    elif setup.frozen_blocks:
        model.requires_grad_(False)
    for table in (model.embedding, model.head):
        if table is not None:
            table.requires_grad_(setup.moving_embeddings)
    model.recompute_blocks(setup.recompute_blocks, keep_products=setup.keep_products)
    masters: MasterWeights
    if setup.shards > 1:
        sharded = shard_decoder(model, resolve(world.device, setup.precision), world)
        masters = ShardedMasterWeights(sharded, model, world)
        for value in model.parameters():
            value.data = value.data.new_empty(0)  # what the step does not read is not counted as its memory
        model = sharded
    else:
        masters = MasterWeights(model, torch.bfloat16 if setup.precision == "bf16-pure" else torch.float32)
    optimizer = Optimizer(masters.named, OptimConfig())
    if setup.compiled:
        model.compile_blocks()
    pack, compute = random_pack(setup), resolve(world.device, setup.precision)
    batch = TokenBatch(pack=pack, supervised=supervised_positions(pack))
    teacher = _teacher(setup, compute)
    objective: TokenObjective | DistillationObjective = TokenObjective(decoder=model, chunk=setup.loss_chunk)
    if teacher is not None:
        objective = DistillationObjective(decoder=model, teacher=teacher, chunk=setup.loss_chunk)

    def update() -> None:
        for _ in range(setup.packs):
            with compute.mixed():
                terms = objective.losses(batch).terms
            total = torch.stack([value / len(batch.supervised) for value in terms.values()]).sum()
            del terms
            total.backward()  # type: ignore[no-untyped-call]
            masters.collect()
        gradients = masters.gradients()
        clip_gradients(gradients, 1.0, total_norm(gradients, world) if setup.shards > 1 else None)
        optimizer.step(1.0)
        masters.publish()
        masters.zero_grad()

    def held_bytes() -> int:
        copies = masters.named.values() if masters.separate else ()
        own = [*model.parameters(), *optimizer.tensors().values(), *copies]
        own += [] if teacher is None else teacher.parameters()
        return sum(value.numel() * value.element_size() for value in own)

    return Step(update=update, held_bytes=held_bytes)


def _teacher(setup: Setup, compute: Compute) -> Decoder | None:
    """A setup's teacher with random weights."""
    if setup.teacher is None:
        return None
    made = Decoder(setup.teacher, generator=torch.Generator().manual_seed(1)).to(compute.device, compute.weights)
    if setup.compiled:
        made.compile_blocks()
    return made.requires_grad_(False).eval()


def random_pack(setup: Setup) -> Pack:
    """Documents of the setup's length, the ends of which are supervised."""
    random = np.random.default_rng(0)
    weight = np.zeros(setup.document, np.float32)
    weight[-round(setup.supervised_share * setup.document) :] = 1.0
    documents = [
        Document(ids=random.integers(0, setup.config.vocab_size, setup.document), loss_weight=weight, task=0)
        for _ in range(setup.pack_size // setup.document)
    ]
    return collate(documents, capacity=setup.pack_size, pad=0)


def measure(setup: Setup, *, updates: int = 3) -> Measured:
    """The process that took most, of as many as the setup's weights are split over."""
    given = json.dumps([asdict(setup), updates])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={setup.shards}"]
    command = [sys.executable, *(launcher if setup.shards > 1 else []), "-m", __spec__.name, given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == setup.shards, done.stdout
    worst = max(rows, key=lambda row: int(row["peak_bytes"]))
    return Measured(peak_bytes=worst["peak_bytes"], seconds=tuple(worst["seconds"]))


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS, what lies in memory now, or VmHWM, the most that did."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def settle() -> None:
    """Give the system back what is free, and forget the peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")


def updates_here(setup: Setup, updates: int, world: World) -> Measured:
    """The measurement, in this process."""
    shape = replace(TINY, qk_norm=setup.config.qk_norm)
    tiny = replace(setup, config=shape, teacher=setup.teacher and shape)
    prepared(replace(tiny, pack_size=64, document=32, recompute_blocks=0), world).update()
    settle()
    before = resident("VmRSS")
    step = prepared(setup, world)
    settle()
    seconds = []
    for _ in range(updates):
        begin = time.perf_counter()
        step.update()
        seconds.append(time.perf_counter() - begin)
    return Measured(peak_bytes=resident("VmHWM") - before, seconds=tuple(seconds[1:]))


def main(given: str) -> None:
    """Measure a setup in JSON and print what was found, one line a process."""
    setup, updates = json.loads(given)
    teacher = setup["teacher"] and DecoderConfig(**setup["teacher"])
    made = {"config": DecoderConfig(**setup["config"]), "lora_targets": tuple(setup["lora_targets"])}
    shape = Setup(**{**setup, **made, "teacher": teacher})
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    map_large_blocks()
    with world_from_environment("cpu") as world:
        found = json.dumps(asdict(updates_here(shape, updates, world)))
        os.write(1, f"{found}\n".encode())  # one write: lines of several processes are not mixed


if __name__ == "__main__":
    main(sys.argv[1])
