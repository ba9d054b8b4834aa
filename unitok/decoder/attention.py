"""Attention over packed documents: one call site, three kernels, one oracle.

T packed positions, H query heads, G key/value heads, D head size, N documents.
The call has the signature of `flash_attn_varlen_func`; which kernel answers is resolved per call from the device, not
at import.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder.dense_attention import LONGEST, padded_attention

VarlenAttention = Callable[..., Tensor]
LARGEST_HEAD = 256
"""Largest head size of the variable-length kernels, which take multiples of 8."""
LEAST_PIECE = 256
"""Queries that windowed attention takes together, at least: of a short window, pieces of it would be many calls."""


def varlen_attention(
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
    prefix: Prefix | None = None,
    lengths_q: HostLengths | None = None,
    lengths_k: HostLengths | None = None,
    window: int | None = None,
) -> Tensor:
    """Attention within documents.

    Args:
        q: (T, H, D); k, v: (T', G, D) with H a multiple of G.
        cu_seqlens_q: (N + 1,) int32 where each document starts and ends in q; cu_seqlens_k likewise in k.
        max_seqlen_q: longest document in q; max_seqlen_k in k.
        dropout_p: dropout of the weights.
        softmax_scale: D ** -0.5 by default.
        causal: positions see themselves and what comes before, aligned at the documents' ends.
        prefix: beginnings of the documents that see each other in both directions; for `causal` attention of
            documents to themselves.
        lengths_q: what `cu_seqlens_q` says, for kernels that ask on the host; whoever calls for every layer gives it,
            so that a device is waited for once. `lengths_k` likewise.
        window: positions that one sees, itself the last of them, for `causal` attention; all before it where None.

    Returns:
        (T, H, D) in q's dtype.
    """
    if window is not None and window >= max_seqlen_k:
        window = None  # it ends before every document does
    assert window is None or (causal and prefix is None)
    if prefix is not None:
        assert causal and cu_seqlens_q is cu_seqlens_k and dropout_p == 0.0
        return prefix_attention(q, k, v, cu_seqlens_q, max_seqlen_q, prefix, softmax_scale, lengths_q)
    kernel = resolve(q.device.type, q.dtype, q.shape[-1])
    given = (q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal)
    if kernel is split_attention:
        return split_attention(*given, lengths_q=lengths_q, lengths_k=lengths_k, window=window)
    return kernel(*given) if window is None else kernel(*given, window_size=(window - 1, 0))


class HostLengths:
    """The lengths of packed documents on the host, read from the device when a kernel first asks, and never again.

    Args:
        cu_seqlens: (N + 1,) where documents start and end; not changed afterwards.
        known: the lengths, where the caller has them already: nothing is waited for.
    """

    def __init__(self, cu_seqlens: Tensor, known: Sequence[int] | None = None) -> None:
        self.cu_seqlens, self.known = cu_seqlens, known

    @cached_property
    def values(self) -> list[int]:
        """N lengths."""
        return self.cu_seqlens.diff().tolist() if self.known is None else list(self.known)


@dataclass(frozen=True)
class Prefix:
    """Beginnings of packed documents whose positions see each other in both directions; the rest stays causal."""

    lengths: Tensor
    """(N,) positions of each document's beginning, 0 for none."""
    inside: Tensor
    """(T, 1, 1) bool, True within a beginning."""
    bounds: Tensor
    """(2N + 1,) int32 like `cu_seqlens`, each document cut where its beginning ends."""

    @staticmethod
    def of(cu_seqlens: Tensor, lengths: Tensor, positions: int) -> Prefix:
        """From `cu_seqlens` (N + 1,), `lengths` (N,) and the number of packed positions, without waiting for a GPU."""
        assert len(cu_seqlens) == len(lengths) + 1
        ends = cu_seqlens[:-1] + lengths.to(cu_seqlens.dtype)
        bounds = torch.cat([torch.stack([cu_seqlens[:-1], ends], 1).flatten(), cu_seqlens[-1:]])
        steps = torch.arange(positions, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
        document = torch.searchsorted(cu_seqlens[1:].contiguous(), steps, right=True)
        return Prefix(lengths, (steps < ends[document])[:, None, None], bounds)

    @cached_property
    def bound_lengths(self) -> HostLengths:
        """Those of `bounds`."""
        return HostLengths(self.bounds)


def prefix_attention(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, prefix: Prefix, scale: float | None = None,
    lengths: HostLengths | None = None,
) -> Tensor:  # fmt: skip
    """Causal attention of documents to themselves, both ways within their beginnings.

    Any kernel does it in two calls: over the documents, causal, and over their two parts, both ways; a position takes
    the one that it belongs to. Training on short documents on a processor is one call of dense scores.
    """
    if _dense_pays(q, longest):
        return padded_attention(
            q, k, v, cu_seqlens, cu_seqlens, longest, longest, 0.0, scale, True, prefix_lengths=prefix.lengths
        )
    whole, parts = lengths or HostLengths(cu_seqlens), prefix.bound_lengths
    after = varlen_attention(
        q, k, v, cu_seqlens, cu_seqlens, longest, longest, 0.0, scale, True, lengths_q=whole, lengths_k=whole
    )
    among = varlen_attention(
        q, k, v, prefix.bounds, prefix.bounds, longest, longest, 0.0, scale, False, lengths_q=parts, lengths_k=parts
    )
    return torch.where(prefix.inside, among, after)


def _dense_pays(q: Tensor, longest: int) -> bool:
    """Whether dense scores are the quicker way: on a processor alone, whose kernel for short documents is slow.

    In bfloat16, that is: in float32 the kernel takes 1.3 to 1.9 times less time than dense scores, for documents of 100
    to 1,000 positions, forward and backward, with AVX2 as with AVX-512.
    """
    return q.device.type == "cpu" and q.requires_grad and q.dtype == torch.bfloat16 and longest <= LONGEST


@lru_cache(maxsize=64)
def resolve(device_type: str, dtype: torch.dtype = torch.bfloat16, head_size: int = 64) -> VarlenAttention:
    """The kernel for a device: flash-attention where installed, torch's varlen kernel on CUDA, per-document SDPA.

    What falls back to another one says so, once for a dtype and head size.
    """
    if device_type != "cuda":
        return split_attention
    if dtype not in (torch.bfloat16, torch.float16):
        return _instead(split_attention, f"the variable-length kernels of GPUs compute in half precision, not {dtype}")
    if head_size % 8 or head_size > LARGEST_HEAD:
        return _instead(split_attention, f"no variable-length kernel has heads of {head_size}")
    if importlib.util.find_spec("flash_attn") is None:
        return _instead(torch_varlen_attention, "flash-attn is not installed")
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func


def _instead(kernel: VarlenAttention, reason: str) -> VarlenAttention:
    used = {torch_varlen_attention: "torch's own variable-length kernel", split_attention: "one call per document"}
    warnings.warn(f"attention: {reason}; {used[kernel]} is used instead", stacklevel=4)
    return kernel


def torch_varlen_attention(
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
    window_size: tuple[int, int] = (-1, -1),
) -> Tensor:
    """torch's own variable-length kernel (CUDA, half precision), with the options that this torch gives it.

    torch 2.11 knows no grouped heads: keys and values are then repeated, which costs their memory H / G times.
    """
    assert dropout_p == 0.0, "torch's varlen kernel has no dropout"
    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"window_size": (window_size[0], 0) if causal else window_size}
    if softmax_scale is not None:
        options["scale"] = softmax_scale
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in varlen_options(varlen_attn):
            options["enable_gqa"] = True
        else:
            k, v = (one.repeat_interleave(q.shape[1] // k.shape[1], 1) for one in (k, v))
    out = varlen_attn(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options)
    assert isinstance(out, Tensor)  # a pair only where auxiliary outputs are asked for
    return out


@lru_cache(maxsize=4)
def varlen_options(kernel: Callable[..., object]) -> frozenset[str]:
    """Names of what torch's variable-length kernel takes; they differ from release to release."""
    return frozenset(inspect.signature(kernel).parameters)


def split_attention(
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
    lengths_q: HostLengths | None = None,
    lengths_k: HostLengths | None = None,
    window: int | None = None,
) -> Tensor:
    """A causal SDPA per document. `split` and not slices: a slice's backward fills the whole tensor with zeros.

    Training on short documents in bfloat16 goes through `dense_attention`, which is twice as fast there. A document
    that is longer than the window goes through `windowed_attention`, piece by piece.
    """
    itself = causal and dropout_p == 0.0 and cu_seqlens_q is cu_seqlens_k and window is None
    if itself and _dense_pays(q, max_seqlen_q):
        return padded_attention(
            q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal
        )
    q_lengths = (lengths_q or HostLengths(cu_seqlens_q)).values
    k_lengths = q_lengths if cu_seqlens_k is cu_seqlens_q else (lengths_k or HostLengths(cu_seqlens_k)).values
    gqa = q.shape[1] != k.shape[1]
    outputs = []
    for one_q, one_k, one_v in zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths)):
        if not len(one_q):
            continue
        if window is not None and window < len(one_k):
            outputs.append(windowed_attention(one_q, one_k, one_v, window, dropout_p, softmax_scale))
            continue
        square = len(one_q) == len(one_k)
        mask = None if square or not causal else _bottom_right(len(one_q), len(one_k), q.device)
        out = functional.scaled_dot_product_attention(
            one_q.transpose(0, 1)[None],  # (1, H, T, D)
            one_k.transpose(0, 1)[None],
            one_v.transpose(0, 1)[None],
            attn_mask=mask,
            dropout_p=dropout_p,
            is_causal=causal and square,
            scale=softmax_scale,
            enable_gqa=gqa,
        )
        outputs.append(out[0].transpose(0, 1))  # (T, H, D)
    return torch.cat(outputs) if outputs else q.clone()


def _bottom_right(queries: int, keys: int, device: torch.device) -> Tensor:
    """(queries, keys) bool, the last query seeing every key."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def windowed_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int, dropout_p: float = 0.0, softmax_scale: float | None = None
) -> Tensor:
    """Causal attention of the last T of T' positions of one document, of which each sees `window`, itself the last.

    q (T, H, D), k and v (T', G, D) → (T, H, D). Piece by piece of about the window, each against the keys that one of
    its queries sees: time and memory are those of a band, not of a square.
    """
    queries, behind = len(q), len(k) - len(q)
    piece = max(window, LEAST_PIECE)
    outputs = []
    for start in range(0, queries, piece):
        stop = min(start + piece, queries)
        first = max(0, behind + start - window + 1)
        seen = torch.arange(first, behind + stop, device=q.device)
        own = torch.arange(behind + start, behind + stop, device=q.device)[:, None]
        out = functional.scaled_dot_product_attention(
            q[start:stop].transpose(0, 1)[None],  # (1, H, T, D)
            k[first : behind + stop].transpose(0, 1)[None],
            v[first : behind + stop].transpose(0, 1)[None],
            attn_mask=(seen <= own) & (seen > own - window),
            dropout_p=dropout_p,
            scale=softmax_scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outputs.append(out[0].transpose(0, 1))
    return torch.cat(outputs)


def reference_varlen_attention(
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
    prefix: Prefix | None = None,
    window: int | None = None,
) -> Tensor:
    """The oracle: asserts the contract and computes one dense masked softmax. Slow; for tests only."""
    assert q.ndim == k.ndim == v.ndim == 3 and k.shape == v.shape, (q.shape, k.shape, v.shape)
    assert q.dtype == k.dtype == v.dtype and q.shape[2] == k.shape[2] and q.shape[1] % k.shape[1] == 0
    for cu_seqlens, total, longest in ((cu_seqlens_q, len(q), max_seqlen_q), (cu_seqlens_k, len(k), max_seqlen_k)):
        assert cu_seqlens.dtype == torch.int32 and int(cu_seqlens[0]) == 0 and int(cu_seqlens[-1]) == total
        assert int(cu_seqlens.diff().max()) <= longest
    assert len(cu_seqlens_q) == len(cu_seqlens_k) and dropout_p == 0.0
    documents_q, ends_q = _documents(cu_seqlens_q)
    documents_k, ends_k = _documents(cu_seqlens_k)
    allowed = documents_q[:, None] == documents_k[None, :]
    if causal:
        before = ends_k[None, :] >= ends_q[:, None]
        if prefix is not None:  # written anew from the lengths: nothing that `Prefix` derives is trusted here
            last = (cu_seqlens_k.diff() - prefix.lengths)[documents_k]  # remaining positions where the beginning ends
            before |= (ends_k > last)[None, :]
        if window is not None:
            before &= ends_k[None, :] < ends_q[:, None] + window
        allowed &= before
    repeat = q.shape[1] // k.shape[1]
    scores = torch.einsum("qhd,khd->hqk", q.float(), k.float().repeat_interleave(repeat, 1))
    scores = scores * (softmax_scale or 1.0 / math.sqrt(q.shape[2]))
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hqk,khd->qhd", weights, v.float().repeat_interleave(repeat, 1)).to(q.dtype)


def _documents(cu_seqlens: Tensor) -> tuple[Tensor, Tensor]:
    """Per position: its document, and how many positions remain to the document's end."""
    lengths = cu_seqlens.diff().long()
    document = torch.repeat_interleave(torch.arange(len(lengths), device=cu_seqlens.device), lengths)
    return document, cu_seqlens[1:].long()[document] - torch.arange(len(document), device=cu_seqlens.device)
