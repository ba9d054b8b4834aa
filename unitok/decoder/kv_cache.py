"""The key/value cache: preallocated, for sequences of different lengths; a ring where the decoder has a window.

B sequences, S cache positions, T packed positions, P positions of a shared prefix, L layers, H query heads,
G key/value heads, D head size, W the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder.attention import HostLengths, Prefix, varlen_attention
from unitok.decoder.model import DecoderConfig


class KVCache:
    """Keys and values of B sequences; `lengths` (B,) says how much of a row is filled.

    They lie in one tensor (L, B, 2G, S, D), keys before values, so that a step writes both at once. With a window,
    position p lies in column p mod W: a row has W columns at most, however far its positions grow, and the newest takes
    the place of the one that none sees any more. Positions are in the keys already, so that their order is of no
    account.
    """

    def __init__(
        self,
        config: DecoderConfig,
        batch: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.kv_heads, self.window = config.kv_heads, config.window
        self.capacity = capacity = capacity if self.window is None else min(capacity, self.window)
        self._all = torch.zeros(config.layers, batch, 2 * config.kv_heads, capacity, config.head_dim, dtype=dtype,
                                device=device)  # fmt: skip
        self.columns = torch.arange(capacity, device=device)
        self._use(self._all, torch.zeros(batch, dtype=torch.int64, device=device))

    def _use(self, kv: Tensor, lengths: Tensor) -> None:
        self.kv, self.lengths = kv, lengths
        self.k, self.v = kv[:, :, : self.kv_heads], kv[:, :, self.kv_heads :]
        self.layers = kv.unbind(0)
        self.rows = torch.arange(len(lengths), device=lengths.device)

    def first(self, rows: int) -> KVCache:
        """The first rows as a cache of their own, in the same memory."""
        narrow = copy(self)
        narrow._use(self.kv[:, :rows], self.lengths[:rows])
        narrow._all = narrow.kv  # the other rows are not its own
        return narrow

    def places(self) -> Tensor:
        """(B,) columns that the next position of each sequence takes."""
        return self.lengths if self.window is None else self.lengths % self.window

    def wraps(self, longest: int) -> bool:
        """Whether a sequence of this length has gone round: its columns are no longer its positions."""
        return self.window is not None and longest > self.window

    @property
    def bytes(self) -> int:
        """What it takes of memory, rows without a sequence among them."""
        return self._all.nbytes

    def mask(self, longest: int, dtype: torch.dtype) -> Tensor:
        """(B, 1, 1, `longest`) added to scores of one new position each: -inf behind a sequence's end. Of a ring, no
        more than its columns."""
        behind = self.columns[:longest] > self.lengths[:, None]
        return torch.zeros(behind.shape, dtype=dtype, device=behind.device).masked_fill_(behind, -torch.inf)[
            :, None, None
        ]

    def select(self, rows: Tensor, filled: int) -> None:
        """Keep these rows, in this order, repeats allowed: beams are reordered. Copies the first `filled` positions.

        The caller knows the longest row; to ask the device would wait for it.
        """
        kv = torch.zeros(self.kv.shape[0], len(rows), *self.kv.shape[2:], dtype=self.kv.dtype, device=self.kv.device)
        kv[:, :, :, :filled] = self.kv[:, :, :, :filled].index_select(1, rows)
        self._all = kv
        self._use(kv, self.lengths.index_select(0, rows))

    def join(self, other: KVCache, filled: int) -> None:
        """Take in the rows of another cache behind one's own, of which at most `filled` positions are filled.

        Where rows that were dropped leave no room, or the other's are longer, all move to memory for twice as many.
        """
        own, rows = len(self.lengths), len(self.lengths) + len(other.lengths)
        if rows > self._all.shape[1] or other.capacity > self.capacity:
            spare = rows if rows <= self._all.shape[1] else 2 * rows
            self.capacity = max(self.capacity, other.capacity)
            shape = (self.kv.shape[0], spare, self.kv.shape[2], self.capacity, self.kv.shape[4])
            grown = torch.zeros(shape, dtype=self.kv.dtype, device=self.kv.device)
            filled = min(filled, self.kv.shape[3])
            grown[:, :own, :, :filled] = self.kv[:, :, :, :filled]
            self._all, self.columns = grown, torch.arange(self.capacity, device=self.kv.device)
        self._all[:, own:rows, :, : other.capacity] = other.kv
        self._use(self._all[:, :rows], torch.cat([self.lengths, other.lengths]))

    def drop(self, rows: list[int]) -> list[int]:
        """Let finished rows go: the last rows take their places, so that only these are copied.

        Returns the order (B',) of the rows that are left, as indices into the rows before.
        """
        gone = set(rows)
        order = list(range(len(self.lengths)))
        for row in sorted(gone, reverse=True):
            last = order.pop()
            if row < len(order):
                self.kv[:, row] = self.kv[:, len(order)]
                self.lengths[row] = self.lengths[len(order)]
                order[row] = last
        self.lengths[len(order) :] = 0  # a graph for more rows steps them on: they must not run out of positions
        self._use(self.kv[:, : len(order)], self.lengths[: len(order)])
        return order


class PrefillAttend:
    """Packed causal attention over prompts that also fills the cache, behind a prefix that is in it already.

    With a prefix of P positions, the same for all, the packed positions are what follows it. `both_ways` are beginnings
    of the prompts that see each other in both directions; then there is no shared prefix. `known` are the lengths of
    the packed documents, where the caller has them.
    """

    def __init__(
        self, cache: KVCache, cu_seqlens: Tensor, max_seqlen: int, prefix: int = 0, both_ways: Prefix | None = None,
        known: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        assert both_ways is None or not prefix
        self.cache, self.cu_seqlens, self.max_seqlen, self.prefix = cache, cu_seqlens, max_seqlen, prefix
        self.both_ways = both_ways
        lengths = cu_seqlens.diff().long()
        own = HostLengths(cu_seqlens, known)
        total = sum(own.values)
        steps = torch.arange(total, device=lengths.device)
        documents = torch.arange(len(lengths), device=lengths.device)
        self.row = torch.repeat_interleave(documents, lengths, output_size=total)  # (T,)
        self.column = steps - cu_seqlens[:-1].long()[self.row] + prefix
        cache.lengths.copy_(lengths + prefix)
        self.bounds, self.lengths_q, self.lengths_k = cu_seqlens, own, own
        if prefix:
            before = prefix * torch.arange(len(cu_seqlens), device=lengths.device)
            self.bounds = (cu_seqlens + before).to(cu_seqlens.dtype)
            self.lengths_k = HostLengths(self.bounds, [length + prefix for length in own.values])
            keys = total + prefix * len(lengths)
            self.key_row = torch.repeat_interleave(documents, lengths + prefix, output_size=keys)  # (T + N · P,)
            self.key_column = torch.arange(keys, device=lengths.device) - self.bounds[:-1].long()[self.key_row]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.k[layer], self.cache.v[layer]
        keys[self.row, :, self.column] = k.to(keys.dtype)
        values[self.row, :, self.column] = v.to(values.dtype)
        if self.prefix:
            k = keys[self.key_row, :, self.key_column].to(k.dtype)
            v = values[self.key_row, :, self.key_column].to(v.dtype)
        own, longest = self.cu_seqlens, self.max_seqlen
        return varlen_attention(
            q, k, v, own, self.bounds, longest, longest + self.prefix, causal=True, prefix=self.both_ways,
            lengths_q=self.lengths_q, lengths_k=self.lengths_k,
        )  # fmt: skip


class PieceAttend:
    """Pieces of prompts that are longer than the window, behind what of them a ring cache holds already.

    Args:
        cache: holds the last positions of those before; takes in the last of these.
        done: positions of each prompt that were read before.
        sizes: positions of each row's piece, 0 where a prompt has ended; rows with any have `done` positions before.
    """

    def __init__(self, cache: KVCache, done: int, sizes: Sequence[int]) -> None:
        assert cache.window is not None
        self.cache, self.window = cache, cache.window
        device, kept = cache.lengths.device, min(done, cache.window - 1)
        rows = [(row, size) for row, size in enumerate(sizes) if size]
        sized, total = [size for _, size in rows], sum(sizes)
        old = np.arange(done - kept, done)  # the positions before that the piece's first ones see
        starts = np.cumsum([0, *sized])
        late = [np.arange(max(start, stop - self.window), stop) for start, stop in zip(starts, starts[1:])]
        new = [done + size - len(one) + np.arange(len(one)) for size, one in zip(sized, late)]
        order = [
            np.concatenate([number * kept + np.arange(kept), kept * len(rows) + np.arange(start, start + size)])
            for number, (start, size) in enumerate(zip(starts, sized))
        ]

        def there(parts: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

        self.late = there(late)
        self.row = there([np.full(len(one), row) for (row, _), one in zip(rows, late)])
        self.column = there(new) % self.window
        self.old_row = there([np.full(kept, row) for row, _ in rows])
        self.old_column = there([old] * len(rows)) % self.window
        self.order = there(order)  # of a row's old keys and its new ones, among all old and then all new ones
        self.bounds = torch.from_numpy(starts.astype(np.int32)).to(device)
        self.key_bounds = torch.from_numpy((starts + kept * np.arange(len(starts))).astype(np.int32)).to(device)
        self.lengths = HostLengths(self.bounds, sized)
        self.key_lengths = HostLengths(self.key_bounds, [size + kept for size in sized])
        self.longest, self.kept = max(sized), kept
        assert len(self.order) == total + kept * len(rows)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = self._behind(self.cache.k[layer], k), self._behind(self.cache.v[layer], v)
        return varlen_attention(
            q, k, v, self.bounds, self.key_bounds, self.longest, self.longest + self.kept, causal=True,
            lengths_q=self.lengths, lengths_k=self.key_lengths, window=self.window,
        )  # fmt: skip

    def _behind(self, held: Tensor, fresh: Tensor) -> Tensor:
        """What rows hold and their new (T, G, D), row by row; the last of the new take their columns of `held`."""
        joint = torch.cat([held[self.old_row, :, self.old_column].to(fresh.dtype), fresh])[self.order]
        held[self.row, :, self.column] = fresh[self.late].to(held.dtype)
        return joint


class StepAttend:
    """One new position per sequence against the cache, which grows by it. `longest` bounds what is read.

    The general way, through `Decoder.run`; decoders without hooks go through `unitok.decoder.fast_step`.
    """

    def __init__(self, cache: KVCache, longest: int) -> None:
        self.cache, self.longest = cache, longest
        self.mask = cache.columns[:longest] <= cache.lengths[:, None]  # (B, S)
        self.places = cache.places()

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.k[layer], self.cache.v[layer]
        keys[self.cache.rows, :, self.places] = k.to(keys.dtype)
        values[self.cache.rows, :, self.places] = v.to(values.dtype)
        repeat = q.shape[1] // k.shape[1]
        # Query heads of one key/value head become query positions: no key is copied for grouped heads.
        grouped = q.unflatten(1, (k.shape[1], repeat))  # (B, G, R, D)
        out = functional.scaled_dot_product_attention(
            grouped,
            keys[:, :, : self.longest].to(q.dtype),
            values[:, :, : self.longest].to(q.dtype),
            attn_mask=self.mask[:, None, None],
        )  # (B, G, R, D)
        return out.flatten(1, 2)  # (B, H, D)
