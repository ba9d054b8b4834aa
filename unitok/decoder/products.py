"""Products with a block's matrices, and how one with low-rank updates is computed: x Wᵀ + (α / r) (x Aᵀ) Bᵀ.

T positions, C width, I columns and R rows of a matrix W, r rank. A joined matrix has bands of rows (queries, keys,
values), each with factors of its own; N = r · (number of bands with factors).

Unusual: the backward pass of an updated matrix is written out. No tensor of W's shape is made where W does not move,
and of what enters a product only its source is kept: what a norm or a gate makes of that is made again, which takes a
fiftieth of the product's time and saves almost half of what a block would keep. The branch is added to the base
product, so that B = 0 changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Updated:
    """A matrix with low-rank updates, as products take it."""

    weight: Tensor
    """W (R, I)."""
    a: tuple[Tensor, ...]
    """(r, I) of every band that has factors."""
    b: tuple[Tensor, ...]
    """(rows of the band, r) of the same."""
    starts: tuple[int, ...]
    """First row of the same."""
    scale: float
    """α ÷ r."""


Matrix = Tensor | Updated


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm (Zhang & Sennrich 2019), computed in float32."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * weight.to(x.dtype)


def product_type(x: Tensor) -> torch.dtype:
    """Type in which x is multiplied: autocast's, or its own."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def linear(x: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """x (T, I) → (T, R), in x's type."""
    if isinstance(matrix, Updated):
        return _Plain.apply(x, *_operands(matrix, bias, x.dtype))  # type: ignore[no-any-return, no-untyped-call]
    return functional.linear(x, matrix.to(x.dtype), None if bias is None else bias.to(x.dtype))


def normed_linear(x: Tensor, norm: Tensor, eps: float, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """`linear` of the norm of x: (T, I) → (T, R), in autocast's type."""
    dtype = product_type(x)
    if isinstance(matrix, Updated):
        return _Normed.apply(x, norm, eps, *_operands(matrix, bias, dtype))  # type: ignore[no-any-return, no-untyped-call]
    return linear(rms_norm(x, norm, eps).to(dtype), matrix, bias)


def gated_linear(gate_up: Tensor, matrix: Matrix) -> Tensor:
    """`linear` of silu(gate) · up (Shazeer 2020): gates and values side by side (T, 2 I) → (T, R)."""
    if isinstance(matrix, Updated):
        return _Gated.apply(gate_up, *_operands(matrix, None, gate_up.dtype))  # type: ignore[no-any-return, no-untyped-call]
    return linear(_gated(gate_up), matrix)


def _gated(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate) * up


def _operands(matrix: Updated, bias: Tensor | None, dtype: torch.dtype) -> tuple[Any, ...]:
    """(W, bias, A (N, I), starts, α ÷ r, B of each band), of this type but for W, whose rounded copy nobody keeps."""
    a = matrix.a[0] if len(matrix.a) == 1 else torch.cat(matrix.a)
    return (
        matrix.weight, None if bias is None else bias.to(dtype), a.to(dtype), matrix.starts, matrix.scale,
        *(b.to(dtype) for b in matrix.b),
    )  # fmt: skip


def _forward(ctx: Any, source: Tensor, entering: Tensor, operands: tuple[Any, ...], *more: Tensor) -> Tensor:
    """(T, R) of what enters, (T, I); keeps its source and what the slopes need."""
    weight, bias, a, starts, scale, *b = operands
    # Selective checkpointing keeps what the product yields: what is added goes into a copy.
    out = functional.linear(entering, weight.to(entering.dtype), bias).clone()
    small = entering @ a.t()  # (T, N)
    for start, part, factor in zip(starts, small.split([one.shape[1] for one in b], -1), b):
        out[:, start : start + factor.shape[0]].addmm_(part, factor.t(), alpha=scale)
    ctx.starts, ctx.scale, ctx.has_bias = starts, scale, bias is not None
    ctx.save_for_backward(source, small, weight, a, *b, *more)
    return out


def _slopes(
    ctx: Any, kept: tuple[Tensor, ...], slope: Tensor, entering: Tensor, first: int
) -> tuple[Tensor, tuple[Any, ...]]:
    """(slope of what entered (T, I), slopes of the operands, which begin at input `first`); `kept` can be asked for
    only once where a block is computed again."""
    small, weight, a, *b = kept[1 : 4 + len(ctx.starts)]
    moves, bias_moves, a_moves = ctx.needs_input_grad[first : first + 3]
    parts = [slope[:, start : start + one.shape[0]] for start, one in zip(ctx.starts, b)]
    behind = torch.cat([part @ one for part, one in zip(parts, b)], -1).mul_(ctx.scale)  # (T, N)
    into = (slope @ weight.to(slope.dtype)).addmm_(behind, a)
    columns = torch.split(small, [one.shape[1] for one in b], -1)
    b_moves = ctx.needs_input_grad[first + 5 :]
    b_slopes = [
        (column.t() @ part).mul_(ctx.scale).t() if moving else None
        for part, column, moving in zip(parts, columns, b_moves)
    ]
    return into, (
        (slope.t() @ entering).to(weight.dtype) if moves else None,
        slope.sum(0) if ctx.has_bias and bias_moves else None,
        behind.t() @ entering if a_moves else None,
        None,
        None,
        *b_slopes,
    )


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *operands: Any) -> Tensor:
        return _forward(ctx, x, x, operands)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        kept = ctx.saved_tensors
        into, rest = _slopes(ctx, kept, slope, kept[0], 1)
        return into, *rest


class _Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, eps: float, *operands: Any) -> Tensor:
        ctx.eps = eps
        return _forward(ctx, x, rms_norm(x, norm, eps).to(operands[2].dtype), operands, norm)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        kept = ctx.saved_tensors
        x, norm = kept[0], kept[-1]
        wide = x.float()
        inverse = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + ctx.eps)
        unit = wide * inverse
        scaled = unit.to(x.dtype)
        into, rest = _slopes(ctx, kept, slope, (scaled * norm.to(x.dtype)).to(slope.dtype), 3)
        into = into.to(x.dtype)
        norm_slope = (into * scaled).sum(0).to(norm.dtype) if ctx.needs_input_grad[1] else None
        into = (into * norm.to(x.dtype)).float()
        along = (into * unit).mean(-1, keepdim=True)
        return into.addcmul_(unit, along, value=-1).mul_(inverse).to(x.dtype), norm_slope, None, *rest


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, *operands: Any) -> Tensor:
        return _forward(ctx, gate_up, _gated(gate_up), operands)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        kept = ctx.saved_tensors
        gate, up = kept[0].chunk(2, dim=-1)
        opened = functional.silu(gate)
        into, rest = _slopes(ctx, kept, slope, opened * up, 1)
        return torch.cat([torch.ops.aten.silu_backward(into * up, gate), into * opened], -1), *rest
