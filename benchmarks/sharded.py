"""What a process of a sharded run holds: private memory of each between two updates, beside its share.

A 100M decoder is trained for a few updates over 2 and over 4 processes that gloo connects, from the meta device, as
`unitok train` with `train.shard` does. Counted is the private memory of the process that has most, above what it has
with a decoder of a hundredth of the size: interpreter, libraries and shards are the same in both. Its share is that of
what stays from one update to the next, float32 weights and two moments of AdamW: 12 bytes a weight ÷ processes.
Gradients are gone by then.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import material
from benchmarks.arms import Measured, measured
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok.decoder.initial_values import initial_values
from unitok.decoder.model import Decoder, DecoderConfig
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.heap import map_large_blocks
from unitok_training.cost.step import parameters
from unitok_training.runs.process_memory import give_back
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.optimizer import OptimConfig

LARGE = {"width": 768, "layers": 14, "heads": 12, "kv_heads": 12}
"""105 million weights with the vocabulary of `material`."""
SMALL = {"width": 128, "layers": 2, "heads": 2, "kv_heads": 2}
"""1.4 million."""
TINY = {"width": 256, "layers": 2, "heads": 4, "kv_heads": 4}
"""What stands for the large one where only the plumbing is tried."""
PROCESSES = (2, 4)
BYTES = 12
"""Of a weight between two updates: itself and two moments, in float32."""
LIMIT = 1.05
UPDATES, PACK, ROWS = 3, 1024, 256
ROLLUP = Path("/proc/self/smaps_rollup")


def run(context: Context) -> Outcome:
    """Ratios `sharded.*`."""
    if not ROLLUP.exists():
        keys = [f"sharded.memory_vs_share.{count}" for count in PROCESSES]
        why = "this system does not tell the private memory of a process"
        return Outcome(ratios=dict.fromkeys(keys), notes=dict.fromkeys(keys, why))
    material.shards(context.folder / "sharded-shards", ROWS, seed=context.seed)
    large = TINY if context.quick else LARGE
    weights = parameters(shape_of(large)) - parameters(shape_of(SMALL))
    arms, ratios = dict[str, Measured](), dict[str, float | None]()
    context.report(f"  {'processes':>9}  {'private MB each':>15}  {'share MB':>8}  {'÷ share':>7}  limit")
    for count in PROCESSES[:1] if context.quick else PROCESSES:
        held = [max(_launch(context, shape, count)) for shape in (SMALL, large)]
        share, found = BYTES * weights / count, held[1] - held[0]
        settings = {"weights": weights, "share_bytes": round(share), "limit_bytes": round(LIMIT * share)}
        arms[f"processes{count}"] = measured([float(found)], "bytes", settings)
        ratios[f"sharded.memory_vs_share.{count}"] = found / share
        context.report(f"  {count:9}  {found / 1e6:15.0f}  {share / 1e6:8.0f}  {found / share:7.3f}  ≤ {LIMIT}")
    said = (
        f"{weights / 1e6:.0f}M weights more than the small decoder's, float32, AdamW, packs of {PACK}; private memory "
        "after an update of the process that has most, ÷ 12 bytes a weight: gradients are gone by then"
    )
    return Outcome(arms=arms, ratios=ratios, notes=dict.fromkeys(ratios, said))


def shape_of(shape: Mapping[str, int]) -> DecoderConfig:
    """A decoder for the vocabulary of `material`."""
    return DecoderConfig(vocab_size=material.vocabulary().size, **shape)  # type: ignore[arg-type]


def _launch(context: Context, shape: Mapping[str, int], processes: int) -> list[int]:
    """Private bytes of each process after its last update."""
    out = context.folder / f"sharded-{processes}-{shape['width']}"
    given = json.dumps([dict(shape), str(context.folder / "sharded-shards"), str(out), context.seed])
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = os.pathsep.join(path or "." for path in sys.path)
    done = subprocess.run(
        [sys.executable, *launcher, "-m", __spec__.name, given], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[:4000]
    rows: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"private')]
    assert len(rows) == processes, done.stdout
    return [row["private"] for row in rows]


def private_bytes() -> int:
    """Bytes that lie in this process's memory alone, what is free given back before."""
    gc.collect()
    give_back()
    kinds = ("Private_Clean:", "Private_Dirty:")
    return sum(int(line.split()[1]) for line in ROLLUP.read_text().splitlines() if line.startswith(kinds)) * 1024


def main(given: str) -> None:
    """Train in this process of several, and print what it held."""
    shape, shards, out, seed = json.loads(given)
    torch.set_num_threads(1)
    map_large_blocks()
    vocabulary, config, seen = material.vocabulary(), shape_of(shape), list[int]()
    settings = TrainConfig(
        steps=UPDATES, pack_size=PACK, packs_per_step=4, window=64, precision="fp32", log_every=1, shard=True,
        optim=OptimConfig(learning_rate=3e-4, warmup_steps=2),
    )  # fmt: skip
    with world_from_environment("cpu") as world:
        with torch.device("meta"):
            decoder = Decoder(config)
        train(
            settings, decoder, Shards.open(Path(shards)), vocabulary, Path(out), mixture=material.MIXTURE, world=world,
            initial=initial_values(config, torch.Generator().manual_seed(seed)), resume=False,
            on_row=lambda row: seen.append(private_bytes()),
        )  # fmt: skip
    os.write(1, f"{json.dumps({'private': seen[-1]})}\n".encode())  # one write: lines are not mixed


if __name__ == "__main__":
    main(sys.argv[1])
