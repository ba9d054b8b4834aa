"""Peak memory of the loss with a large vocabulary, beside the plain one. No timing: runs on a busy machine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.arms import Measured, measured
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_training.cost.memory import peak_bytes
from unitok_training.objectives.token_loss import linear_cross_entropy, rows_at_once

WIDTH, IDS = 512, 150_000


def run(context: Context) -> Outcome:
    """Ratios `loss.*`."""
    ids, few, many, width = (40_000, 1024, 2048, 16) if context.quick else (IDS, 4096, 16384, WIDTH)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if context.bf16 else torch.float32
    found: dict[str, Measured] = {}
    for name, tokens, plain in (("unitok.4k", few, False), ("plain.4k", few, True), ("unitok.16k", many, False)):
        found[name] = _arm((tokens, ids, width), plain, torch.device(device), dtype, context.seed)
        context.report(f"  {name}: {found[name].median:.4g} bytes")
    ratio = found["unitok.4k"].median / found["plain.4k"].median
    chunk = rows_at_once(ids, on_gpu=device == "cuda")
    note = (
        f"{dtype}, width {width}, {ids} ids, the default chunk of {chunk} positions; forward and backward, the "
        "gradients of the hidden states and of the head counted, these and the head themselves not"
    )
    return Outcome(
        arms=found,
        ratios={"loss.memory_vs_plain": ratio, "loss.peak_bytes": found["unitok.16k"].median},
        notes={"loss.memory_vs_plain": note},
    )


def _arm(sizes: tuple[int, int, int], plain: bool, device: torch.device, dtype: torch.dtype, seed: int) -> Measured:
    """Bytes at the peak for (tokens, ids, width)."""
    tokens, ids, width = sizes
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(tokens, width, generator=generator).to(device, dtype).requires_grad_()
    head = torch.randn(ids, width, generator=generator).mul_(0.02).to(device, dtype).requires_grad_()
    labels = torch.randint(ids, (tokens,), generator=generator).to(device)
    weights = torch.ones(tokens, device=device)

    def loss() -> Tensor:
        if plain:
            return functional.cross_entropy((hidden @ head.t()).float(), labels, reduction="sum")
        return linear_cross_entropy(hidden, head, labels, weights)[0]

    def both() -> None:
        loss().backward()

    return measured([float(peak_bytes(both))], "bytes", {"tokens": tokens, "device": device.type})
