"""Gradients summed over the processes while the last backward pass of a step still computes.

A gradient that is complete joins a bucket, a bucket that is full is summed beside the rest of the pass. The buckets are
made of the weights that move, before any gradient is there, and begun in one order: a process whose batch does not
reach an encoder brings zeros at the end, and all processes still sum the same things in turn. Nothing else is changed:
a sum over processes is one of single numbers, whatever they are sent with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unitok_training.trainer.distributed import World, buckets
from unitok_training.trainer.optimizer import MasterWeights
from unitok_training.trainer.parts import Part

BUCKET_BYTES = 25 * 1000 * 1000
"""Bytes that are summed at once: small enough that the first sum begins early, large enough that few are needed."""
UNDER_WAY = 8
"""Buckets that may be on their way: bounds the copies that they are sent from."""


@dataclass
class Bucket:
    """Weights whose gradients are summed together."""

    weights: Sequence[Tensor]
    """Master weights."""
    missing: set[int]
    """ids of those whose gradients are still to come."""
    flat: Tensor | None = None
    """(N,) what is sent, once it is under way: a copy, or the gradient itself where it is alone."""
    work: dist.Work | None = None
    """The sum, while it is under way."""


@dataclass
class _Plan:
    """The buckets of a step, and where each weight belongs."""

    buckets: list[Bucket] = field(default_factory=list)
    places: dict[int, Bucket] = field(default_factory=dict)
    """id of a master weight → its bucket."""


class GradientSums:
    """The sums of a step's gradients over all processes.

    Args:
        parts: what is trained. Where one of them is split over the processes nothing runs beside the backward pass,
            which has sums of its own there: two kinds would come in another order in each process.
        world: the processes.
        limit: bytes of a bucket; a larger gradient is one by itself.
    """

    def __init__(self, parts: Sequence[Part], world: World, *, limit: int = BUCKET_BYTES) -> None:
        self.parts, self.world, self.limit = parts, world, limit
        self.early = 0
        """Buckets of the last step whose sum began before its backward pass had ended."""
        self._plan = _Plan()
        self._begun = 0

    @contextmanager
    def beside(self, step: int) -> Iterator[None]:
        """Around the last backward pass of a step: sums begin as gradients are complete."""
        self._plan = self._planned(step)
        self._begun = 0
        handles = []
        for part in self.parts:
            for name, parameter in part.masters.module.items():
                if id(part.masters.named[name]) in self._plan.places:
                    hook = _Arrival(self, part.masters, name)
                    handles.append(parameter.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.early = self._begun

    def finish(self, step: int, more: Sequence[Tensor] = ()) -> None:
        """Sum what is left, and `more` tensors, in place; all gradients are there and summed when it returns.

        Gradients that no backward pass has reached are zeros. Those of sharded parts are summed already.
        """
        for part in self.parts:
            if part.moves(step):
                part.gradients(step)
        if self.world.size == 1:
            return
        while self._begun < len(self._plan.buckets):
            self._begin()
        rest = [value.grad for value in self._moving(step) if id(value) not in self._plan.places]
        self.world.sum_([*(grad for grad in rest if grad is not None), *more])
        for bucket in self._plan.buckets:
            _end(bucket)
        self._plan, self._begun = _Plan(), 0

    # ---- what is summed, in which order

    def _moving(self, step: int) -> list[nn.Parameter]:
        """What is to be summed of a step: master weights, or views of their rows."""
        return [value for part in self.parts if not part.sharded for value in part.moving_in(step)]

    def _planned(self, step: int) -> _Plan:
        """Buckets of whole weights, the last ones first, as their gradients come. Rows that are tuned apart from others
        of their table are summed by themselves, at the end: the table's gradient is the last of all anyway."""
        if self.world.size == 1 or any(part.sharded for part in self.parts):
            return _Plan()
        masters = {id(value) for part in self.parts for value in part.masters.named.values()}
        whole = [value for value in reversed(self._moving(step)) if id(value) in masters]
        if not whole:
            return _Plan()
        size = max(value.element_size() for value in whole)
        groups = buckets(whole, limit=max(self.limit // size, 1))
        found = [Bucket(weights=group, missing={id(value) for value in group}) for group in groups]
        return _Plan(buckets=found, places={id(value): bucket for bucket in found for value in bucket.weights})

    # ---- the sums

    def arrived(self, master: nn.Parameter) -> None:
        """The gradient of a weight is complete: begin what can begin, in order."""
        self._plan.places[id(master)].missing.remove(id(master))  # once: what comes after it would not be summed
        while self._begun < len(self._plan.buckets) and not self._plan.buckets[self._begun].missing:
            self._begin()

    def _begin(self) -> None:
        """Begin the sum of the next bucket."""
        number, all_buckets = self._begun, self._plan.buckets
        if number >= UNDER_WAY:
            _end(all_buckets[number - UNDER_WAY])
        bucket = all_buckets[number]
        grads = _gradients(bucket)
        alone = len(grads) == 1 and grads[0].is_contiguous()
        bucket.flat = grads[0] if alone else torch.cat([grad.reshape(-1) for grad in grads])
        bucket.work = dist.all_reduce(bucket.flat, async_op=True)
        self._begun += 1


@dataclass(frozen=True)
class _Arrival:
    """Called when autograd has added a gradient to a parameter."""

    sums: GradientSums
    masters: MasterWeights
    name: str

    def __call__(self, _: Tensor) -> None:
        self.masters.collect_one(self.name)
        self.sums.arrived(self.masters.named[self.name])


def _gradients(bucket: Bucket) -> list[Tensor]:
    """Gradients of a bucket's weights, zeros where there are none."""
    found = []
    for value in bucket.weights:
        if value.grad is None:
            value.grad = torch.zeros_like(value)
        found.append(value.grad)
    return found


def _end(bucket: Bucket) -> None:
    """Wait for a sum and put it where the gradients are."""
    if bucket.work is None:
        return
    bucket.work.wait()
    flat, bucket.work, bucket.flat = bucket.flat, None, None
    grads = _gradients(bucket)
    assert flat is not None
    if flat is grads[0]:
        return
    pieces = torch.split(flat, [grad.numel() for grad in grads])
    torch._foreach_copy_(grads, [piece.view_as(grad) for piece, grad in zip(pieces, grads)])
