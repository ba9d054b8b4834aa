"""Decoding steps with as few operations as a step needs: what `Decoder.run` computes, one position per sequence.

B sequences, C width, H query heads, G key/value heads, R = H / G, D head size, S cache positions.

A step of one small sequence is bound by the cost of starting operations, and one of a large decoder by reading the
weights. So: queries and keys are rotated together and in place, keys and values are written to the cache together, no
operation has a twin per head group, and on processors weights may be copied into oneDNN's blocked layout, which reads
bfloat16 at more than twice the rate of a plain matrix, or be int8 with a scale per row (a quarter of float32's bytes).
A single sequence on a processor may go through `cpu_kernel`, which has no operations to start at all, and so may
the attention of a batch, which there reads of every sequence what it has filled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder import cpu_kernel as native
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.lora import updates
from unitok.decoder.model import Block, Decoder, FeedForward
from unitok_tokenizers.errors import InputError

Linear = Callable[[Tensor], Tensor]


def plain_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """x (B, I) → (B, O) with a weight (O, I)."""
    return lambda x: functional.linear(x, weight, bias)


def packed_linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The same with a copy of the weight in oneDNN's layout for few rows; plain where that is not to be had."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return plain_linear(weight, bias)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)
        apply = torch.ops.mkldnn._linear_pointwise
        apply(weight.new_zeros(1, weight.shape[1]), packed, bias, "none", [], "")
    except (RuntimeError, NotImplementedError, AttributeError):  # a build or a processor without it
        return plain_linear(weight, bias)
    return lambda x: apply(x, packed, bias, "none", [], "")


def int8_linear(quantized: Tensor, scales: Tensor, bias: Tensor | None = None) -> Linear:
    """The same with a weight of `quantize_rows`; activations stay bfloat16 or float32."""

    def apply(x: Tensor) -> Tensor:
        out = torch._weight_int8pack_mm(x, quantized, scales)
        return out if bias is None else out + bias

    return apply


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(O, I) → (O, I) int8 and (O,) scales in the weight's dtype, weight ≈ int8 · scale; symmetric, nearest."""
    wide = weight.detach().float()
    scales = (wide.abs().amax(1) / 127).clamp_min(1e-12).to(weight.dtype)
    return (wide / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


@dataclass(frozen=True)
class _Layer:
    norm: Tensor
    qkv: Linear
    qk_norms: tuple[Tensor, Tensor] | None
    out: Linear
    feed_norm: Tensor
    gate_up: Linear
    down: Linear


class Stepper:
    """The decoder's step, ready to be called many times.

    Plain weights are the decoder's own, so that a step always follows them; packed and int8 ones are copies, as are
    those with low-rank updates, which are added here. What a single compiled sequence does not need is made when the
    first batch does.

    Args:
        decoder: what is to be computed.
        packed: copy the weights into the layout that processors read quickest. Pays after some ten steps.
        int8: round the weights; changes what is computed.
        compiled: step single sequences through `cpu_kernel`, with float32 between the weights whatever these are,
            and the attention of batches, which then reads no more of the cache than each sequence has filled. Compiles
            for two seconds where no process on this machine has before. Where it cannot, a warning says so.
    """

    def __init__(self, decoder: Decoder, *, packed: bool = False, int8: bool = False, compiled: bool = False) -> None:
        assert steppable(decoder)
        self.packed, self.int8, self.compiled = packed, int8, compiled
        self.made_from = fingerprint(decoder) if packed or int8 or compiled or updates(decoder) else None
        if int8 and decoder.norm.device.type != "cpu":
            raise InputError("int8 weights speed up decoding on processors only; leave them out on this device")
        self.decoder, self.config = decoder, decoder.config
        self.embedding, self.norm = decoder.embedding.detach(), decoder.norm.detach()
        self.dtype = decoder.norm.dtype
        self.matrices: list[native.Weight] = [
            quantize_rows(value) if int8 else (value, None) for value in _matrices(decoder)
        ]
        self.alone = _native_step(decoder, self.matrices) if compiled else None
        self.frequencies = decoder.frequencies
        self.cosine = self.sine = self.norm.new_zeros(0, 1, decoder.config.head_dim)
        self.turns = torch.zeros(0, decoder.config.head_dim, device="cpu")

    @cached_property
    def layers(self) -> list[_Layer]:
        """The blocks in torch's operations."""
        each = iter(self.matrices)
        return [_layer(block, self._linear, each) for block in self.decoder.blocks if isinstance(block, Block)]

    @cached_property
    def head(self) -> Linear:
        """Hidden states → logits."""
        return self._linear(self.matrices[-1])

    def _linear(self, matrix: native.Weight, bias: Tensor | None = None) -> Linear:
        weight, scales = matrix
        if scales is not None:
            return int8_linear(weight, scales, bias)
        return packed_linear(weight, bias) if self.packed else plain_linear(weight, bias)

    def fits(self, decoder: Decoder) -> bool:
        """Whether the decoder is still what this computes: no hook was set since, and the weights are the same."""
        return steppable(decoder) and (self.made_from is None or self.made_from == fingerprint(decoder))

    def _rotations(self, cache: KVCache, longest: int, even: bool) -> tuple[Tensor, Tensor]:
        """Cosines and sines of the next positions, (B, 1, D): rows of tables, made anew where a ring has gone round."""
        if cache.wraps(longest):
            return self._turned(cache.lengths)
        if len(self.cosine) < cache.capacity:
            steps = torch.arange(cache.capacity, device=self.frequencies.device)
            self.cosine, self.sine = self._turned(steps)
        positions = slice(longest - 1, longest) if even else cache.lengths
        return self.cosine[positions], self.sine[positions]

    def _turned(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Of positions (B,): (B, 1, D); the first half of the sines is negated, as `rotate` pairs halves."""
        angles = positions.float()[:, None] * self.frequencies
        cosine, sine = angles.cos(), angles.sin()
        return (
            torch.cat([cosine, cosine], -1)[:, None].to(self.dtype),
            torch.cat([-sine, sine], -1)[:, None].to(self.dtype),
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, C) → (B, V)."""
        if self.alone is not None and len(hidden) == 1:
            return self.alone.logits(hidden)
        return self.head(hidden.to(self.dtype))  # a row that was alone comes in float32, and new ones join it

    def __call__(
        self, ids: Tensor, cache: KVCache, longest: int, *, fixed: bool = False, x: Tensor | None = None
    ) -> Tensor:
        """Append ids (B,) to the sequences in the cache; returns their hidden states (B, C).

        `longest` is the largest length after this step, or any larger one. The cache's lengths grow by one. `fixed`
        takes every position from the cache, so that the same operations on the same memory are the next step too. `x`
        (B, C) is read where what enters is not the embedding rows of the ids. Where a ring has gone round, no step is
        compiled.
        """
        alone, wraps = len(ids) == 1 and not fixed, cache.wraps(longest)
        if alone and self.alone is not None and not wraps:
            cache.lengths += 1
            return self.alone(int(ids) if x is None else x, cache, longest - 1)
        x = functional.embedding(ids, self.embedding) if x is None else x
        if self.alone is not None and not fixed and not wraps:
            x = self._batch(self.alone, x, cache)
        else:
            x = self._mixed(x, cache, longest, even=alone)
        cache.lengths += 1
        return x

    def frame(self, x: Tensor, cache: KVCache, place: int) -> Tensor:
        """Append x (B, C) at the same place of all sequences, which the cache's lengths need not say: (B, C)."""
        if self.alone is not None and len(x) == 1:
            return self.alone(x, cache, place)
        return self._mixed(x, cache, place + 1, even=True)

    def _mixed(self, x: Tensor, cache: KVCache, longest: int, *, even: bool) -> Tensor:
        """The step in torch's operations: `even` where all sequences stand at the same position."""
        config, size, count = self.config, self.config.head_dim, len(x)
        heads, turned, width, eps = config.heads, config.heads + config.kv_heads, config.width, config.norm_eps
        cosine, sine = self._rotations(cache, longest, even)  # (B, 1, D)
        last = (longest - 1) % cache.capacity
        rows, mask = (None, None) if even else (cache.rows, cache.mask(longest, self.dtype))
        places = cache.places()
        for layer, own in zip(self.layers, cache.layers):
            joint = layer.qkv(functional.rms_norm(x, (width,), layer.norm, eps)).view(count, -1, size)
            qk = joint[:, :turned]
            if layer.qk_norms is not None:
                _norm_heads(joint, layer.qk_norms, heads, turned, eps)
            halves = qk.roll(size // 2, -1)
            qk.mul_(cosine).addcmul_(halves, sine)
            if rows is None:
                own[:, :, last] = joint[:, heads:]
            else:
                own[rows, :, places] = joint[:, heads:]
            mixed = functional.scaled_dot_product_attention(
                joint[:, :heads].view(count, config.kv_heads, -1, size),  # query heads of one key head: positions
                own[:, : config.kv_heads, :longest],
                own[:, config.kv_heads :, :longest],
                attn_mask=mask,
            )
            x = x + layer.out(mixed.reshape(count, -1))
            gate, up = layer.gate_up(functional.rms_norm(x, (width,), layer.feed_norm, eps)).chunk(2, -1)
            x = x + layer.down(functional.silu(gate).mul_(up))
        return functional.rms_norm(x, (width,), self.norm, eps)

    def _batch(self, compiled: native.NativeStep, x: Tensor, cache: KVCache) -> Tensor:
        """The step of a batch with compiled attention."""
        config, width, eps = self.config, self.config.width, self.config.norm_eps
        if len(self.turns) < cache.capacity:
            angles = torch.arange(cache.capacity, device="cpu").float()[:, None] * self.frequencies.float()
            self.turns = torch.cat([angles.cos(), angles.sin()], -1)
        lengths = cache.lengths.contiguous()
        for index, (layer, own) in enumerate(zip(self.layers, cache.layers)):
            joint = layer.qkv(functional.rms_norm(x, (width,), layer.norm, eps)).view(len(x), -1, config.head_dim)
            x = x + layer.out(compiled.attend(index, joint, own, lengths, self.turns))
            gate, up = layer.gate_up(functional.rms_norm(x, (width,), layer.feed_norm, eps)).chunk(2, -1)
            x = x + layer.down(functional.silu(gate).mul_(up))
        return functional.rms_norm(x, (width,), self.norm, eps)


def _norm_heads(joint: Tensor, norms: tuple[Tensor, Tensor], heads: int, turned: int, eps: float) -> None:
    size = joint.shape[-1:]
    for part, weight in ((joint[:, :heads], norms[0]), (joint[:, heads:turned], norms[1])):
        part.copy_(functional.rms_norm(part, size, weight, eps))


def fingerprint(network: nn.Module) -> tuple[tuple[int, int], ...]:
    """Where every weight lies and how often it was written; and which low-rank updates are switched on."""
    values = list(network.parameters())
    weights = tuple((value.data_ptr(), 0 if value.is_inference() else value._version) for value in values)
    return (*weights, *((-1, int(one.on)) for one in updates(network).values()))


def steppable(decoder: Decoder) -> bool:
    """Whether a decoder has nothing but what a `Stepper` computes: no hooks, no other feed-forward, one dtype."""
    blocks = [block for block in decoder.blocks if isinstance(block, Block)]
    plain = all(block.after_hook is None and isinstance(block.feed_forward, FeedForward) for block in blocks)
    return plain and len({value.dtype for value in decoder.parameters()}) == 1


def _matrices(decoder: Decoder) -> Iterator[Tensor]:
    """The matrices in the order in which a step reads them."""
    for block in decoder.blocks:
        feed = block.feed_forward
        assert isinstance(block, Block) and isinstance(feed, FeedForward)
        yield from (block.qkv.detach(), block.out.detach(), feed.gate_up.detach(), feed.down.detach())
    yield decoder.head_weight.detach()


def _native_step(decoder: Decoder, matrices: list[native.Weight]) -> native.NativeStep | None:
    functions = native.library() if native.usable(decoder) else None
    if functions is None:
        reason = (
            "no C++ compiler with OpenMP"
            if native.usable(decoder)
            else "the weights are not float32 or bfloat16 on a processor"
        )
        warnings.warn(f"decoding: steps are not compiled, {reason}; torch's operations are used instead", stacklevel=4)
        return None
    return native.NativeStep(decoder, functions, matrices)


def _layer(block: Block, make: Callable[..., Linear], matrices: Iterator[native.Weight]) -> _Layer:
    def own(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.detach()

    feed = block.feed_forward
    assert isinstance(feed, FeedForward)
    norms = None if block.q_norm is None or block.k_norm is None else (block.q_norm.detach(), block.k_norm.detach())
    return _Layer(
        norm=block.norm.detach(),
        qkv=make(next(matrices), own(block.qkv_bias)),
        qk_norms=norms,
        out=make(next(matrices), own(block.out_bias)),
        feed_norm=feed.norm.detach(),
        gate_up=make(next(matrices)),
        down=make(next(matrices)),
    )
