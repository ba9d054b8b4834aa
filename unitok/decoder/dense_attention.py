"""Training attention on CPU: documents of about equal length side by side, dense softmax, hand-written backward.

T packed positions, H query heads, G key/value heads, R = H / G, D head size, B documents of a group, L its longest.
Same signature and result as the other kernels. torch's CPU flash kernel spends most of a short document's backward on
overhead: for documents of 100 to 400 positions this is 2 to 2.8 times faster forward and backward (one thread, bf16).
Memory is quadratic in a document's length, so that long ones are left to the flash kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONGEST = 1024
"""Longest document that dense scores are made for."""
GROUP_SCORES = 1 << 19
"""Scores (B · H · L · L) of a group: small enough for a core's cache."""


@dataclass(frozen=True)
class Group:
    """Documents that are computed together."""

    index: Tensor
    """(B, L) packed position of each cell; cells behind a document's end repeat its first position."""
    packed: Tensor
    """(P,) packed positions of the group's documents."""
    cells: Tensor
    """(P,) cell of the flattened (B, L) that each of them lies in."""
    future: Tensor
    """(1, 1, L, L) bool, True where a key comes after the query; (B, 1, L, L) where documents have prefixes."""


def group_documents(cu_seqlens: Tensor, heads: int, prefix_lengths: Tensor | None = None) -> list[Group]:
    """Documents by length, longest first, in groups that waste little on padding."""
    prefixes = None if prefix_lengths is None else prefix_lengths.tolist()
    starts = cu_seqlens[:-1].tolist()
    lengths = cu_seqlens.diff().tolist()
    groups: list[list[int]] = []
    for document in sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i]):
        longest = lengths[groups[-1][0]] if groups else 0
        similar = 0 < longest <= max(1.25 * lengths[document], lengths[document] + 16)
        if similar and (len(groups[-1]) + 1) * heads * longest**2 <= GROUP_SCORES:
            groups[-1].append(document)
        else:
            groups.append([document])
    return [
        _group(
            [starts[i] for i in members],
            [lengths[i] for i in members],
            None if prefixes is None else [prefixes[i] for i in members],
            cu_seqlens.device,
        )
        for members in groups
    ]


def _group(starts: list[int], lengths: list[int], prefixes: list[int] | None, device: torch.device) -> Group:
    steps = torch.arange(lengths[0], device=device)
    inside = steps < torch.tensor(lengths, device=device)[:, None]  # (B, L)
    first = torch.tensor(starts, device=device)[:, None]
    index = torch.where(inside, first + steps, first)
    cells = inside.reshape(-1).nonzero().squeeze(-1)
    future = torch.ones(lengths[0], lengths[0], dtype=torch.bool, device=device).triu(1)[None, None]
    if prefixes is not None:  # a query before a key of the prefix lies in the prefix itself
        future = future & (steps >= torch.tensor(prefixes, device=device)[:, None])[:, None, None]
    return Group(index, index.reshape(-1)[cells], cells, future)


def _queries(x: Tensor, kv_heads: int) -> Tensor:
    """(B, L, H, D) → (B · G, R · L, D): the query heads of one key head lie under one another."""
    documents, longest, heads, size = x.shape
    x = x.view(documents, longest, kv_heads, heads // kv_heads, size).permute(0, 2, 3, 1, 4)
    return x.reshape(documents * kv_heads, -1, size)


def _positions(x: Tensor, documents: int, longest: int, kv_heads: int) -> Tensor:
    """Inverse of `_queries`, flattened: (B · G, R · L, D) → (B · L, H, D); keys have R = 1."""
    x = x.view(documents, kv_heads, -1, longest, x.shape[-1]).permute(0, 3, 1, 2, 4)
    return x.reshape(documents * longest, -1, x.shape[-1])


class _PaddedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, groups: list[Group], scale: float) -> Tensor:
        kv_heads = k.shape[1]
        out = torch.empty_like(q)
        saved: list[Tensor] = []
        for group in groups:
            documents, longest = group.index.shape
            queries = _queries(q[group.index], kv_heads)  # (B · G, R · L, D)
            keys, values = _queries(k[group.index], kv_heads), _queries(v[group.index], kv_heads)  # (B · G, L, D)
            scores = torch.bmm(queries, keys.mT).float().mul_(scale)
            blocks = scores.view(documents, -1, longest, longest).masked_fill_(group.future, -torch.inf)
            weights = blocks.softmax(-1).view_as(scores).to(q.dtype)  # (B · G, R · L, L)
            mixed = _positions(torch.bmm(weights, values), documents, longest, kv_heads)
            out[group.packed] = mixed[group.cells]
            saved += [queries, keys, values, weights]
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.scale, ctx.kv_heads = groups, scale, kv_heads
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kv_heads = ctx.kv_heads
        grad_q = torch.empty_like(grad)
        grad_k = grad.new_empty(grad.shape[0], kv_heads, grad.shape[2])
        grad_v = torch.empty_like(grad_k)
        saved = iter(ctx.saved_tensors)
        for group in ctx.groups:
            queries, keys, values, weights = (next(saved) for _ in range(4))
            documents, longest = group.index.shape
            padded = grad.new_zeros(documents * longest, *grad.shape[1:])
            padded[group.cells] = grad[group.packed]
            upstream = _queries(padded.view(documents, longest, *grad.shape[1:]), kv_heads)
            slope = torch.bmm(upstream, values.mT).float().mul_(weights)
            slope.sub_(weights * slope.sum(-1, keepdim=True)).mul_(ctx.scale)  # softmax's Jacobian
            slope = slope.to(grad.dtype)  # (B · G, R · L, L)
            for target, part in (
                (grad_q, torch.bmm(slope, keys)),
                (grad_k, torch.bmm(slope.mT, queries)),
                (grad_v, torch.bmm(weights.mT, upstream)),
            ):
                target[group.packed] = _positions(part, documents, longest, kv_heads)[group.cells]
        return grad_q, grad_k, grad_v, None, None


def padded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    *,
    prefix_lengths: Tensor | None = None,
) -> Tensor:
    """Causal attention of documents to themselves, none longer than LONGEST; the signature of the other kernels.

    The first `prefix_lengths` (N,) positions of each document see each other in both directions.
    """
    assert causal and dropout_p == 0.0 and max_seqlen_q == max_seqlen_k <= LONGEST
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    groups = group_documents(cu_seqlens_q, q.shape[1], prefix_lengths)
    return _PaddedAttention.apply(q, k, v, groups, scale)  # type: ignore[no-any-return]
