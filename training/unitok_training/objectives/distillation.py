"""Learning what a trained decoder would have said (Hinton et al. 2015) beside, or instead of, what was said.

The term "distill" is τ² · KL(teacher ‖ student), both distributions at temperature τ, summed over the labels that
tokens have, each with its weight. Factor τ²: gradients shrink with 1 / τ², and the weight of the term is to mean the
same at every temperature.

T positions of a pack, N taught positions, C width of the student, D of the teacher, V ids, V' those of the teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok_training.objectives.base import TOKENS, BatchLosses
from unitok_training.objectives.pack_losses import hidden_states
from unitok_training.objectives.token_loss import (
    HeadSlice,
    head_rows,
    keep_gradients,
    kept_gradients,
    row_chunks,
    rows_at_once,
    supervised_losses,
)
from unitok_training.objectives.tokens import TokenBatch

DISTILL = "distill"
"""The term of what is learned from a teacher."""


class _LinearDivergence(torch.autograd.Function):
    """Sum of weighted divergences; gradients are made chunk by chunk in the forward pass, as those of cross-entropy."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        head: Tensor,
        taught: Tensor,
        taught_head: Tensor,
        weights: Tensor,
        temperature: float,
        chunk: int,
        slices: tuple[HeadSlice, ...],
    ) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if hidden.requires_grad else None
        grad_head = torch.zeros_like(head, dtype=torch.float32) if head.requires_grad else None
        cast_head, cast_taught = head.to(hidden.dtype), taught_head.to(taught.dtype)
        for part, ids in row_chunks(slices, chunk):
            wanted = _log_probabilities(taught[part], cast_taught[ids], temperature)  # (N', V')
            logs = _log_probabilities(hidden[part], cast_head[ids], temperature)
            share = wanted.exp()
            total += temperature**2 * (weights[part] * wanted.sub_(logs).mul_(share).sum(-1)).sum()
            if grad_hidden is None and grad_head is None:
                continue
            slope = logs.exp_().sub_(share).mul_(temperature * weights[part, None]).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = slope @ cast_head[ids]
            if grad_head is not None:
                of_slice = grad_head[ids]
                for rows in head_rows(of_slice):
                    of_slice[rows] += slope[:, rows].t() @ hidden[part]
        keep_gradients(ctx, grad_hidden, grad_head, head.dtype)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, scale: Tensor) -> tuple[Tensor | None, ...]:
        return *kept_gradients(ctx, scale), None, None, None, None, None, None


def _log_probabilities(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    """(N', V') float32 of hidden (N', C) and head (V', C)."""
    return (hidden @ head.t()).float().mul_(1 / temperature).log_softmax(-1)


def linear_divergence(
    hidden: Tensor,
    head: Tensor,
    taught: Tensor,
    taught_head: Tensor,
    weights: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 0,
    slices: Sequence[HeadSlice] = (),
) -> Tensor:
    """() float32 Σ weight · τ² · KL(softmax(taught @ taught_headᵀ / τ) ‖ softmax(hidden @ headᵀ / τ)).

    hidden (N, C) and head (V, C) with gradient; taught (N, D) and taught_head (V', D), V' ≤ V, without; weights (N,)
    float32. The distributions are over the ids that both have, in float32 whatever the inputs; with `slices`, which
    cover the rows in order, each row's is over its slice alone. The logits of `chunk` rows are held at once, of both
    sides; 0 for as many as take the bytes that cross-entropy's take.
    """
    if not torch.is_grad_enabled():
        hidden, head = hidden.detach(), head.detach()
    ids = taught_head.shape[0]
    assert hidden.shape[0] == taught.shape[0] == weights.shape[0] and ids <= head.shape[0]
    whole = tuple(slices) or (HeadSlice(hidden.shape[0], 0, ids),)
    assert sum(one.rows for one in whole) == hidden.shape[0], "slices cover every row"
    assert max(one.stop for one in whole) <= ids, "a teacher says nothing of ids that it does not have"
    chunk = chunk or rows_at_once(2 * ids, on_gpu=hidden.is_cuda)
    found: Tensor = _LinearDivergence.apply(  # type: ignore[no-untyped-call]
        hidden, head, taught, taught_head, weights, temperature, chunk, whole
    )
    return found


@dataclass(frozen=True, kw_only=True)
class DistillationObjective:
    """See `Objective`."""

    decoder: Decoder
    """What is trained."""
    teacher: Decoder
    """What it learns from: frozen, in no checkpoint, whole in every process."""
    weight: float = 1.0
    """Weight of the divergence; 0 for a report alone."""
    tokens: float = 1.0
    """Weight of the cross-entropy of the labels; 0 for a report alone."""
    temperature: float = 1.0
    """τ."""
    smoothing: float = 0.0
    """Probability of the labels' cross-entropy that is spread over the whole vocabulary."""
    chunk: int = 0
    """Supervised positions whose logits are held at once, of both decoders; 0 for as many as fit."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Tokens and divergence."""
        return {TOKENS: self.tokens, DISTILL: self.weight}

    def counts(self, batch: TokenBatch) -> Mapping[str, float]:
        """Labels of a pack, and those of which the teacher has something to say."""
        taught = batch.supervised if batch.taught is None else batch.taught
        return {TOKENS: batch.pack.supervised, DISTILL: len(taught)}

    def losses(self, batch: TokenBatch) -> BatchLosses:
        """Forward one pack through both."""
        moved = batch.to(self.decoder.embedding.device)
        pack, taught = moved.pack, moved.supervised if moved.taught is None else moved.taught
        with torch.no_grad():  # first: what it computes is gone before the student keeps anything
            known = pack.ids.clamp(max=self.teacher.config.vocab_size - 1)  # nothing is taught behind other ids
            said = hidden_states(self.teacher, replace(pack, ids=known))[taught.index]  # (N, D)
        hidden, head = hidden_states(self.decoder, pack), self.decoder.head_weight
        # A term that is only reported makes no gradients.
        of_tokens = (hidden, head) if self.tokens else (hidden.detach(), head.detach())
        found = supervised_losses(
            *of_tokens, labels=pack.labels, loss_weight=pack.loss_weight, task_ids=pack.task_ids,
            index=moved.supervised.index, smoothing=self.smoothing, chunk=self.chunk, slices=moved.supervised.slices,
        )  # fmt: skip
        of_teacher = (hidden, head) if self.weight else (hidden.detach(), head.detach())
        divergence = linear_divergence(
            of_teacher[0][taught.index], of_teacher[1], said, self.teacher.head_weight.detach(),
            pack.loss_weight[taught.index], temperature=self.temperature, chunk=self.chunk, slices=taught.slices,
        )  # fmt: skip
        return BatchLosses(
            terms={TOKENS: found.total, DISTILL: divergence}, tokens=found,
            used=pack.used, positions=pack.size, supervised=pack.supervised,
        )  # fmt: skip
