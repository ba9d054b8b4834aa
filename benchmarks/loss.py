"""Peak memory of the loss with a large vocabulary, beside the plain one. No timing: runs on a busy machine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.arms import Measured, measured
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok_training.loss import linear_cross_entropy
from unitok_training.planning import peak_bytes

WIDTH, IDS = 512, 150_000
CHUNK = 64
"""Supervised positions whose logits are held at once; `train.loss_chunk` of a recipe with such a vocabulary."""


def run(context: Context) -> Outcome:
    """Ratios `loss.*`."""
    ids, few, many, chunk = (2000, 512, 1024, 32) if context.quick else (IDS, 4096, 16384, CHUNK)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found: dict[str, Measured] = {}
    for name, tokens, plain in (("unitok.4k", few, False), ("plain.4k", few, True), ("unitok.16k", many, False)):
        found[name] = _arm(tokens, ids, plain, chunk, device)
        context.report(f"  {name}: {found[name].median:.4g} bytes")
    ratio = found["unitok.4k"].median / found["plain.4k"].median
    note = (
        f"bfloat16, width {WIDTH}, {ids} ids, chunk {chunk}; forward and backward, the gradients of the hidden states "
        "and of the head counted, these and the head themselves not"
    )
    return Outcome(
        arms=found,
        ratios={"loss.memory_vs_plain": ratio, "loss.peak_bytes": found["unitok.16k"].median},
        notes={"loss.memory_vs_plain": note},
    )


def _arm(tokens: int, ids: int, plain: bool, chunk: int, device: str) -> Measured:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, WIDTH, generator=generator).to(device, torch.bfloat16).requires_grad_()
    head = torch.randn(ids, WIDTH, generator=generator).mul_(0.02).to(device, torch.bfloat16).requires_grad_()
    labels = torch.randint(ids, (tokens,), generator=generator).to(device)
    weights = torch.ones(tokens, device=device)

    def loss() -> Tensor:
        if plain:
            return functional.cross_entropy((hidden @ head.t()).float(), labels, reduction="sum")
        return linear_cross_entropy(hidden, head, labels, weights, chunk=chunk)[0]

    def both() -> None:
        loss().backward()

    return measured([float(peak_bytes(both))], "bytes", {"tokens": tokens, "device": device})
