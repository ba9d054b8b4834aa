"""The loop of every network that is small enough for one device: steps down a loss, and nothing else.

`Trainer` draws from streams and keeps what it needs to go on; here whoever calls makes the batch of a step and its
loss. Device, optimizer, clipping, the course of the learning rate, progress, what is not a number, and the sums over
processes are the same for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.progress import advance
from unitok_training.fitting.kept import Kept
from unitok_training.fitting.share import Share, same_in_all, same_random, shared_dropout
from unitok_training.trainer.optimizer import (
    MuonParams,
    OptimConfig,
    Optimizer,
    clip_gradients,
    embedding_names,
    rate,
)

READ_EVERY = 20
"""Steps after which a loss is read from a GPU: reading waits for all that it has yet to do."""


def fit_network(
    network: nn.Module,
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    optim: OptimConfig,
    compute: Compute,
    moving: Iterable[nn.Parameter] | None = None,
    quicker: Iterable[nn.Parameter] = (),
    times: float = 1.0,
    plain: bool = False,
    shown: str = "",
    progress: Callable[[int, float], None] | None = None,
    kept: Kept | None = None,
    share: Share | None = None,
) -> list[float]:
    """Train `network` in place, on the device of `compute`; returns the loss of every step done, the same anywhere.

    Args:
        network: moved to the device, where it stays.
        loss: step 0 … steps - 1 → loss () of its batch; it uses `compute.mixed()` itself, around what may be mixed.
        steps: updates.
        optim: how weights move.
        compute: device and precision.
        moving: what of the network moves; all of it where None.
        quicker: what moves as well, `times` as fast: new parts beside a network that has learned already.
        times: see `quicker`.
        plain: as for `Optimizer`: what learns from a few hundred lists generalizes better so. A router that was tried
            on requests in other words answered .92 to .98 of them (three seeds), with the other AdamW .70 to .77.
        shown: what a step is called where progress is shown here; empty where `progress` shows it.
        progress: called with (steps done, loss).
        kept: where the run is continued from, and written down.
        share: what a loss that knows of several processes gives its part by: the sum over the items that this process
            computes ÷ the count over all, which add up here, as the gradients do. Each process trains for itself, and
            computes everything, where None.

    Raises:
        InputError: a loss that is not a number; the weights were not updated with it.
    """
    network.to(compute.device)
    share = share or Share()
    optimizers = _optimizers(network, moving, list(quicker), times, optim, compute, plain)
    values = [value for optimizer in optimizers for value in optimizer.named.values()]
    # Elsewhere a loss is at hand, or a step cannot be skipped on the device: only a fused optimizer can.
    waits = compute.device.type == "cuda" and not plain
    bad = torch.zeros((), dtype=torch.float32, device=compute.device)
    losses: list[Tensor] = []
    same_in_all([*network.parameters(), *values, *network.buffers()], share.world)
    same_random(share.world)
    start = 0 if kept is None else kept.begin(network, {str(i): one for i, one in enumerate(optimizers)})
    with shared_dropout(network, share):
        for step in range(start, steps):
            found = loss(step)
            for value in values:
                value.grad = None
            found.backward()  # type: ignore[no-untyped-call]
            losses.append(found.detach().clone())
            share.sum_gradients(values, losses[-1])
            norm = clip_gradients([value.grad for value in values if value.grad is not None], optim.clip)
            bad = torch.maximum(bad, 1.0 - torch.isfinite(losses[-1] + norm).float())
            read = not waits or (step + 1) % READ_EVERY == 0 or step + 1 == steps
            if read and float(bad):
                raise _not_a_number(losses[-1], norm, step + 1, shown, optim)
            factor = rate(step, steps=steps, config=optim)
            for optimizer in optimizers:
                optimizer.step(factor, skip=bad if waits else None)
            if read and shown:
                advance(shown, step + 1, steps, float(losses[-1]))
            if read and progress is not None:
                progress(step + 1, float(losses[-1]))
            if kept is not None:
                kept.after(step + 1, partial(_read, losses[-1]))
    for value in values:
        value.grad = None
    return torch.stack(losses).tolist() if losses else []


def _not_a_number(loss: Tensor, norm: Tensor, step: int, shown: str, optim: OptimConfig) -> InputError:
    told = f"loss {float(loss)}" if not math.isfinite(float(loss)) else f"gradient {float(norm)}"
    where = f" of the {shown}" if shown else ""
    return InputError(f"{told} at step {step}{where}; lower the learning rate ({optim.learning_rate})")


def _read(loss: Tensor) -> dict[str, float]:
    return {"loss": float(loss)}


def _optimizers(
    network: nn.Module,
    moving: Iterable[nn.Parameter] | None,
    quicker: list[nn.Parameter],
    times: float,
    optim: OptimConfig,
    compute: Compute,
    plain: bool,
) -> list[Optimizer]:
    named = dict(network.named_parameters())
    if moving is not None:
        chosen = list(moving)
        names = {id(value): name for name, value in named.items()}
        named = {names.get(id(value), f"beside.{place}"): value for place, value in enumerate(chosen)}
    matrices, tables = MuonParams(compute.products), embedding_names(network)
    groups: list[tuple[Mapping[str, nn.Parameter], OptimConfig]] = [(named, optim)]
    rates = {name: getattr(optim, name) * times for name in ("learning_rate", "matrix_learning_rate")}
    groups.append(({f"added.{place}": value for place, value in enumerate(quicker)}, replace(optim, **rates)))
    return [Optimizer(group, config, matrices, embeddings=tables, plain=plain) for group, config in groups if group]
