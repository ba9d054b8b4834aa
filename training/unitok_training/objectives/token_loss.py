"""Cross-entropy over the supervised positions only, in chunks, with the sums that reports are made of.

Shapes: T positions, S streams, N supervised positions, C width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_training.data.batch import NO_LABEL

LOGIT_BYTES = 1 << 26
"""Bytes of float32 logits that a processor holds at once: more are no quicker there."""
GPU_LOGIT_BYTES = 1 << 29
"""Bytes of float32 logits that a GPU holds at once: fewer leave its matrix products too few rows."""


def rows_at_once(vocab_size: int, *, on_gpu: bool = False) -> int:
    """Supervised positions whose logits are held at once where nobody says how many: what a bound in bytes allows."""
    return max((GPU_LOGIT_BYTES if on_gpu else LOGIT_BYTES) // (4 * vocab_size), 1)


@dataclass(frozen=True, kw_only=True)
class TokenLosses:
    """Loss of every supervised position."""

    total: Tensor
    """() float32; weighted sum, with gradient."""
    losses: Tensor
    """(N,) float32; unweighted and without smoothing, detached: their mean is a negative log-likelihood."""
    labels: Tensor
    """(N,) int64 ids that were to be predicted."""
    task_ids: Tensor
    """(N,) int64 task line of each."""


@dataclass(frozen=True)
class HeadSlice:
    """Consecutive rows (of hidden states) whose labels are told apart from some ids only."""

    rows: int
    """How many rows."""
    start: int
    """First id of the slice."""
    stop: int
    """Behind its last id."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of weighted losses; the gradients are made chunk by chunk in the forward pass.

    The logits of one chunk are all that is ever held, and nothing is computed twice: backward only multiplies.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        labels: Tensor,
        weights: Tensor,
        smoothing: float,
        chunk: int,
        slices: tuple[HeadSlice, ...],
    ) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        losses = torch.empty(labels.shape, dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if hidden.requires_grad else None
        grad_head, written = _head_gradient(head, slices) if head.requires_grad else (None, True)
        cast_head = head.to(hidden.dtype)
        for part, ids in row_chunks(slices, chunk):
            logits = hidden[part] @ cast_head[ids].t()  # (N', V')
            here, wanted = torch.arange(logits.shape[0], device=logits.device), labels[part] - ids.start
            slope = logits.float()  # all in one place: fresh memory costs more than what is computed in it
            slope -= slope.amax(-1, keepdim=True)
            above = slope[here, wanted]
            mean = slope.mean(-1) if smoothing else None
            normalizer = slope.exp_().sum(-1)
            losses[part] = normalizer.log() - above
            objective = losses[part]
            if mean is not None:
                objective = (1 - smoothing) * objective + smoothing * (normalizer.log() - mean)
            total += (weights[part] * objective).sum()
            if grad_hidden is None and grad_head is None:
                continue
            slope *= (weights[part] / normalizer)[:, None]  # softmax: the derivative of the normalizer's logarithm
            slope[here, wanted] -= weights[part] * (1 - smoothing)
            if smoothing:
                slope -= weights[part, None] * (smoothing / slope.shape[1])
            slope = logits.copy_(slope)
            if grad_hidden is not None:
                grad_hidden[part] = slope @ cast_head[ids]
            if grad_head is not None:
                of_slice = grad_head[ids]
                for rows in head_rows(of_slice):  # adding in another dtype copies what is added
                    product = slope[:, rows].t() @ hidden[part]
                    of_slice[rows].add_(product) if written else of_slice[rows].copy_(product)
                written = True
            del logits, slope  # or the next chunk's are held beside them
        keep_gradients(ctx, grad_hidden, grad_head, head.dtype)
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        return *kept_gradients(ctx, scale), None, None, None, None, None


def keep_gradients(
    ctx: torch.autograd.function.FunctionCtx, hidden: Tensor | None, head: Tensor | None, dtype: torch.dtype
) -> None:
    """Keep the gradients of a loss () that its forward pass has made: of hidden (N, C), and of a head (V, C) of `dtype`
    in float32."""
    ctx.save_for_backward(*(t for t in (hidden, head) if t is not None))
    ctx.layout = (hidden is not None, head is not None, dtype)  # type: ignore[attr-defined]


def kept_gradients(ctx: torch.autograd.function.FunctionCtx, scale: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """What `keep_gradients` kept, times the gradient () of the loss."""
    with_hidden, with_head, dtype = ctx.layout  # type: ignore[attr-defined]
    saved = list(ctx.saved_tensors)  # type: ignore[attr-defined]
    grad_hidden = None
    if with_hidden:
        grad_hidden = saved.pop(0)
        grad_hidden = grad_hidden * scale.to(grad_hidden.dtype)
    return grad_hidden, _scaled(saved.pop(0), scale, dtype) if with_head else None


def _head_gradient(head: Tensor, slices: Sequence[HeadSlice]) -> tuple[Tensor, bool]:
    """Room for the gradient of a head (V, C), float32, and whether there is something in it already: zeros where no
    slice writes every row of it."""
    every = [(one.start, one.stop) for one in slices if one.rows] == [(0, head.shape[0])]
    made = torch.empty_like if every else torch.zeros_like
    return made(head, dtype=torch.float32), not every


def row_chunks(slices: Sequence[HeadSlice], chunk: int) -> Iterator[tuple[slice, slice]]:
    """(rows, ids) of the logits that are held at once: `chunk` rows at most, never of two slices."""
    first = 0
    for one in slices:
        for begin in range(first, first + one.rows, chunk):
            yield slice(begin, min(begin + chunk, first + one.rows)), slice(one.start, one.stop)
        first += one.rows


def head_rows(head: Tensor, count: int = 16384) -> list[slice]:
    """The rows of a table (V, C), `count` at a time: a large vocabulary's gradient is never held twice in float32."""
    return [slice(begin, begin + count) for begin in range(0, head.shape[0], count)]


def _scaled(table: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """(V, C) float32 × () in another dtype; in its place where that is the same, and nobody asks twice."""
    if dtype == table.dtype:
        return table.mul_(scale)
    out = torch.empty_like(table, dtype=dtype)
    for rows in head_rows(table):
        out[rows] = table[rows] * scale
    return out


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    labels: Tensor,
    weights: Tensor,
    *,
    smoothing: float = 0.0,
    chunk: int = 0,
    slices: Sequence[HeadSlice] = (),
) -> tuple[Tensor, Tensor]:
    """(weighted sum of losses with gradient (), loss of each row (N,) detached) of logits = hidden @ headᵀ.

    hidden (N, C) and head (V, C); labels (N,) int64; weights (N,) float32. The softmax is in float32 whatever the
    inputs; the logits of `chunk` rows are held at once, of `rows_at_once` where it is 0. Smoothing (Szegedy 2016, ε
    spread over all V) changes the sum and the gradient, not the reported losses.
    With `slices`, which cover the rows in order and hold their labels, each row's softmax is over its slice alone.
    """
    assert hidden.shape[0] == labels.shape[0] == weights.shape[0] and hidden.shape[1] == head.shape[1]
    if not torch.is_grad_enabled():  # a function of one's own is not told, and would make gradients
        hidden, head = hidden.detach(), head.detach()
    whole = tuple(slices) or (HeadSlice(labels.shape[0], 0, head.shape[0]),)
    assert sum(one.rows for one in whole) == labels.shape[0], "slices cover every row"
    chunk = chunk or rows_at_once(head.shape[0], on_gpu=hidden.is_cuda)
    return _LinearCrossEntropy.apply(  # type: ignore[no-any-return]
        hidden, head, labels, weights, smoothing, chunk, whole
    )


def supervised_losses(
    hidden: Tensor,
    head: Tensor,
    *,
    labels: Tensor,
    loss_weight: Tensor,
    task_ids: Tensor,
    index: Tensor | None = None,
    smoothing: float = 0.0,
    chunk: int = 0,
    slices: Sequence[HeadSlice] = (),
) -> TokenLosses:
    """Losses of one stream: hidden (T, C), labels (T,), loss_weight (T,), task_ids (T,).

    `index` (N,) are the supervised positions, where the caller knows them: finding them on a GPU waits for it.
    `slices` are those of these positions, in their order.
    """
    if index is None:
        index = ((labels != NO_LABEL) & (loss_weight > 0)).nonzero().squeeze(-1)
    labels, weights = labels[index], loss_weight[index]
    total, losses = linear_cross_entropy(
        hidden[index], head, labels, weights, smoothing=smoothing, chunk=chunk, slices=slices
    )
    return TokenLosses(total=total, losses=losses, labels=labels, task_ids=task_ids[index])


class LossTable:
    """Running sums of losses and token counts by task and by stream, kept on the device until they are asked for."""

    def __init__(self, tasks: Sequence[str], streams: Sequence[str], stream_of: Tensor, device: torch.device) -> None:
        self.tasks, self.streams = tuple(tasks), tuple(streams)
        self.stream_of = stream_of.to(device)
        cells = len(self.tasks) + len(self.streams)
        self.sums = torch.zeros((2, cells), dtype=torch.float64, device=device)

    def add(self, losses: TokenLosses) -> None:
        """Count the tokens of one micro-batch."""
        values = torch.stack([losses.losses.double(), torch.ones_like(losses.losses, dtype=torch.float64)])
        self.sums.index_add_(1, losses.task_ids, values)
        self.sums.index_add_(1, self.stream_of[losses.labels] + len(self.tasks), values)

    def reset(self) -> None:
        """Begin a new interval."""
        self.sums.zero_()

    def read(self) -> dict[str, dict[str, float]]:
        """{"task": {name: mean loss}, "stream": {…}, "task_tokens": {name: count}}; empty cells are left out."""
        sums, counts = self.sums.cpu().tolist()
        names = [("task", name) for name in self.tasks] + [("stream", name) for name in self.streams]
        table: dict[str, dict[str, float]] = {"task": {}, "stream": {}, "task_tokens": {}}
        for (kind, name), value, count in zip(names, sums, counts):
            if count:
                table[kind][name] = value / count
                if kind == "task":
                    table["task_tokens"][name] = count
        return table
