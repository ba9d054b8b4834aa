"""Decoding on a GPU, one sequence of a decoder of 1.1 billion weights: captured steps beside eager ones.

Greedy, a fixed number of ids, no end of sequence; rates include the prefill. Both arms must give the same first id.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from benchmarks import material
from benchmarks.arms import Arm, Measured, interleave
from benchmarks.context import Context
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.generate import generate

LARGE = {"width": 2048, "layers": 24, "heads": 16, "kv_heads": 8, "ffn": 5632}
CAPTURED, EAGER = "unitok.1b.bf16.graphs", "unitok.1b.bf16.torch"


def run(
    context: Context, shape: dict[str, int], prompt: np.ndarray, count: int, *, device: str = "cuda"
) -> tuple[dict[str, Measured], float, str]:
    """(arms, bytes of weights that the captured arm reads in a second, how far the arms' ids agree).

    AssertionError where the arms' ids differ from the start.
    """
    model = material.decoder(shape, dtype=torch.bfloat16).to(device)
    graphs = CudaGraphs(model, capacity=len(prompt) + count, sizes=(1,))
    ids: dict[str, np.ndarray] = {}

    def arm(name: str, steps: CudaGraphs | None) -> Arm:
        def measure() -> float:
            begin = time.perf_counter()
            (made,) = generate(model, [prompt], max_new_tokens=count, graphs=steps)  # its ids have left the GPU
            ids[name] = made.ids
            return count / (time.perf_counter() - begin)

        step = "CUDA graph" if steps else "torch's operations"
        return Arm(name=name, run=measure, unit="tokens/s", settings={"precision": "bf16", "step": step})

    arms = [arm(CAPTURED, graphs), arm(EAGER, None)]
    for one in arms:
        one.run()
    found, failed = interleave(arms, context.rounds, context.report)
    assert not failed, failed
    differs = np.flatnonzero(ids[CAPTURED] != ids[EAGER])
    same = int(differs[0]) if len(differs) else count
    assert same, "captured steps begin with another id than eager ones"
    rate = found[CAPTURED].median * material.parameters(model) * 2
    return found, rate, f"{same} of {count} ids, up to the first that differs, are those of eager steps"
