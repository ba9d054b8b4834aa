"""The key/value cache: preallocated, for sequences of different lengths.

B sequences, S cache positions, T packed positions, L layers, H query heads, G key/value heads, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unitok.attention import varlen_attention
from unitok.decoder import DecoderConfig


class KVCache:
    """Keys and values of B sequences, (L, B, G, S, D) each; `lengths` (B,) says how much of a row is filled."""

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.layers, batch, config.kv_heads, capacity, config.head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(batch, dtype=torch.int64, device=device)

    def select(self, rows: Tensor) -> None:
        """Keep these rows (in this order, repeats allowed): finished sequences leave, beams are reordered."""
        self.k = self.k.index_select(1, rows)
        self.v = self.v.index_select(1, rows)
        self.lengths = self.lengths.index_select(0, rows)


class PrefillAttend:
    """Packed causal attention over prompts that also fills the cache."""

    def __init__(self, cache: KVCache, cu_seqlens: Tensor, max_seqlen: int) -> None:
        self.cache, self.cu_seqlens, self.max_seqlen = cache, cu_seqlens, max_seqlen
        lengths = cu_seqlens.diff().long()
        self.row = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)  # (T,)
        self.column = torch.arange(len(self.row), device=lengths.device) - cu_seqlens[:-1].long()[self.row]
        cache.lengths.copy_(lengths)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.cache.k[layer][self.row, :, self.column] = k.to(self.cache.k.dtype)
        self.cache.v[layer][self.row, :, self.column] = v.to(self.cache.v.dtype)
        bounds, longest = self.cu_seqlens, self.max_seqlen
        return varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=True)


class StepAttend:
    """One new position per sequence against the cache, which grows by it. `longest` bounds what is read."""

    def __init__(self, cache: KVCache, longest: int) -> None:
        self.cache, self.longest = cache, longest
        self.rows = torch.arange(len(cache.lengths), device=cache.lengths.device)
        columns = torch.arange(longest, device=cache.lengths.device)
        self.mask = (columns <= cache.lengths[:, None])[:, None, None]  # (B, 1, 1, S)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.k[layer], self.cache.v[layer]
        keys[self.rows, :, self.cache.lengths] = k.to(keys.dtype)
        values[self.rows, :, self.cache.lengths] = v.to(values.dtype)
        repeat = q.shape[1] // k.shape[1]
        # Query heads of one key/value head become query positions: no key is copied for grouped heads.
        grouped = q.unflatten(1, (k.shape[1], repeat))  # (B, G, R, D)
        out = functional.scaled_dot_product_attention(
            grouped,
            keys[:, :, : self.longest].to(q.dtype),
            values[:, :, : self.longest].to(q.dtype),
            attn_mask=self.mask,
        )  # (B, G, R, D)
        return out.flatten(1, 2)  # (B, H, D)
