"""The decoder: Llama-shaped, over packed documents.

T packed positions, C width, H query heads, G key/value heads, D head size, I feed-forward size, V vocabulary.

Unusual: no batch axis and no padding; documents lie one after another and `cu_seqlens` says where they end. Each block
is two pure functions of tensors (before and after attention), so that they compile once for all layers while attention
stays a plain call. What comes later enters at four seams: vectors in place of embedding rows, the `Attend` object that
decides who sees whom, the feed-forward factory, and a hook after attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, noop_context_fn

from unitok.decoder.activation_checkpointing import keep_products
from unitok.decoder.attention import HostLengths, Prefix, varlen_attention
from unitok.decoder.lora import updated
from unitok.decoder.products import Matrix, gated_linear, linear, normed_linear, product_type, rms_norm
from unitok.decoder.rotary import rotary_frequencies
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.float32_buffers import Float32Buffers

INITIAL_SCALE = 0.02


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Shape of a decoder."""

    vocab_size: int
    """Rows of the embedding."""
    width: int = 256
    """C."""
    layers: int = 6
    """Blocks."""
    heads: int = 4
    """H."""
    kv_heads: int = 2
    """G; H must be a multiple."""
    head_size: int | None = None
    """D; width ÷ heads by default."""
    ffn: int | None = None
    """I; 8/3 of the width, rounded up to a multiple of 64, by default."""
    rope_theta: float = 10000.0
    """Base of the rotary positions."""
    rope_scaling: Mapping[str, Any] | None = None
    """Hugging Face's `rope_scaling`: type `linear` or `llama3`."""
    norm_eps: float = 1e-6
    """ε of the norms."""
    qk_norm: bool = False
    """Normalize queries and keys per head (Qwen3)."""
    attention_bias: bool = False
    """Biases on queries, keys and values (Qwen2)."""
    tied: bool = True
    """One matrix for embedding and head."""
    max_positions: int = 4096
    """Longest document."""
    prefix_lm: bool = False
    """What is given (header and conditions) sees each other in both directions."""
    window: int | None = None
    """Positions that one sees, itself the last of them (Mistral, Moshi); all before it where None."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "kv_heads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: a decoder has 1 or more")
        if self.heads % self.kv_heads:
            raise InputError(f"heads is {self.heads}: it must be a multiple of kv_heads, which is {self.kv_heads}")
        if self.head_size is None and self.width % self.heads:
            raise InputError(f"width is {self.width}: it must be a multiple of heads ({self.heads}), or give head_size")
        if self.head_dim % 2:
            raise InputError(f"head_size is {self.head_dim}: rotary positions need an even one")
        if self.window is not None and (self.window < 1 or self.prefix_lm):
            raise InputError(f"window is {self.window}: it must be 1 or more, and goes with no prefix_lm")

    @property
    def head_dim(self) -> int:
        """D, resolved."""
        return self.head_size or self.width // self.heads

    @property
    def ffn_dim(self) -> int:
        """I, resolved."""
        return self.ffn or math.ceil(self.width * 8 / 3 / 64) * 64


class Attend(Protocol):
    """Who sees whom: training packs, prefill and decoding each are one of these."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, D), k and v (T, G, D) of the new positions → (T, H, D)."""


@dataclass(frozen=True)
class PackedAttend:
    """Causal attention within packed documents, both ways in their `prefix`, or no farther back than `window`."""

    cu_seqlens: Tensor
    max_seqlen: int
    prefix: Prefix | None = None
    window: int | None = None

    @cached_property
    def lengths(self) -> HostLengths:
        """The documents' lengths for all layers, asked for at most once."""
        return HostLengths(self.cu_seqlens)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bounds, longest = self.cu_seqlens, self.max_seqlen
        return varlen_attention(
            q, k, v, bounds, bounds, longest, longest, causal=True, prefix=self.prefix,
            lengths_q=self.lengths, lengths_k=self.lengths, window=self.window,
        )  # fmt: skip


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021), halves paired as in Llama: x (T, H, D), cosine and sine (T, 1, D)."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine


def before_attention(
    x: Tensor, norm: Tensor, qkv: Matrix, bias: Tensor | None, qk_norms: tuple[Tensor, Tensor] | None,
    cosine: Tensor, sine: Tensor, heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """x (T, C) → q (T, H, D), k and v (T, G, D), positions applied."""
    dtype = product_type(x)
    joint = normed_linear(x, norm, eps, qkv, bias).unflatten(-1, (heads + 2 * kv_heads, -1))  # (T, H + 2G, D)
    q, k, v = joint.split([heads, kv_heads, kv_heads], dim=1)
    if qk_norms is not None:
        q, k = rms_norm(q, qk_norms[0], eps), rms_norm(k, qk_norms[1], eps)
    cosine, sine = cosine.to(dtype), sine.to(dtype)
    return rotate(q, cosine, sine), rotate(k, cosine, sine), v.contiguous()


def after_attention(x: Tensor, mixed: Tensor, out: Matrix, bias: Tensor | None) -> Tensor:
    """Residual of the attention output: mixed (T, H, D) → (T, C)."""
    return x + linear(mixed.flatten(1), out, bias)


def swiglu(x: Tensor, norm: Tensor, gate_up: Matrix, down: Matrix, eps: float) -> Tensor:
    """The feed-forward (Shazeer 2020) behind its norm, without the residual: (T, C) → (T, C)."""
    return gated_linear(normed_linear(x, norm, eps, gate_up), down)


def finish_block(
    x: Tensor, mixed: Tensor, out: Matrix, bias: Tensor | None, norm: Tensor, gate_up: Matrix, down: Matrix, eps: float
) -> Tensor:
    """`after_attention` and `swiglu` as one function: one compiled kernel sequence per block."""
    x = after_attention(x, mixed, out, bias)
    return x + swiglu(x, norm, gate_up, down, eps)


class FeedForward(nn.Module):
    """SwiGLU with the gate and up matrices joined."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.eps, self.inner = config.norm_eps, config.ffn_dim
        self.norm = nn.Parameter(torch.ones(config.width))
        self.gate_up = nn.Parameter(torch.empty(2 * config.ffn_dim, config.width))
        self.down = nn.Parameter(torch.empty(config.width, config.ffn_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) → (T, C), residual included."""
        return x + self.update(x)

    def update(self, x: Tensor) -> Tensor:
        """(T, C) → (T, C), what is added to x: in half precision the difference of `forward` and x has lost its end."""
        return swiglu(x, self.norm, updated(self, "gate_up"), updated(self, "down"), self.eps)

    def bands(self) -> dict[str, list[tuple[str, int]]]:
        """Names and rows of what each matrix joins, as `LoraConfig.targets` calls them."""
        width, inner = self.norm.shape[0], self.inner
        return {"gate_up": [("gate", inner), ("up", inner)], "down": [("down", width)]}


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and a residual."""

    def __init__(
        self, config: DecoderConfig, index: int, make_feed_forward: Callable[[DecoderConfig], nn.Module]
    ) -> None:
        super().__init__()
        self.config, self.index = config, index
        total = (config.heads + 2 * config.kv_heads) * config.head_dim
        inner = config.heads * config.head_dim
        self.norm = nn.Parameter(torch.ones(config.width))
        self.qkv = nn.Parameter(torch.empty(total, config.width))
        self.qkv_bias = nn.Parameter(torch.zeros(total)) if config.attention_bias else None
        self.q_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.k_norm = nn.Parameter(torch.ones(config.head_dim)) if config.qk_norm else None
        self.out = nn.Parameter(torch.empty(config.width, inner))
        self.out_bias: nn.Parameter | None = None
        self.feed_forward = make_feed_forward(config)
        self.after_hook: Callable[[int, Tensor], Tensor] | None = None
        """Seam for gated cross-attention: (layer, x (T, C)) → (T, C), called after attention."""
        self.recompute = False
        """Keep only the input for the backward pass, which computes the block again."""
        self.keep_products = False
        """Keep what matrix products and attention kernels yield as well: the backward pass repeats only the rest."""

    def bands(self) -> dict[str, list[tuple[str, int]]]:
        """Names and rows of what each matrix joins, as `LoraConfig.targets` calls them."""
        config = self.config
        queries, keys = config.heads * config.head_dim, config.kv_heads * config.head_dim
        return {"qkv": [("q", queries), ("k", keys), ("v", keys)], "out": [("out", config.width)]}

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend, pieces: CompiledBlocks) -> Tensor:
        """(T, C) → (T, C); `attend` mixes positions, by packed documents or against the cache."""
        if self.recompute and torch.is_grad_enabled():
            # Nothing in a block is random, so that there is no random state to put back.
            contexts = keep_products if self.keep_products else noop_context_fn
            kept: Tensor = checkpoint(
                self._compute, x, cosine, sine, attend, pieces,
                use_reentrant=False, preserve_rng_state=False, context_fn=contexts,
            )  # fmt: skip
            return kept
        return self._compute(x, cosine, sine, attend, pieces)

    def _compute(self, x: Tensor, cosine: Tensor, sine: Tensor, attend: Attend, pieces: CompiledBlocks) -> Tensor:
        config = self.config
        norms = None if self.q_norm is None or self.k_norm is None else (self.q_norm, self.k_norm)
        q, k, v = pieces.before(
            x, self.norm, updated(self, "qkv"), self.qkv_bias, norms, cosine, sine,
            config.heads, config.kv_heads, config.norm_eps,
        )  # fmt: skip
        mixed, out = attend(self.index, q, k, v), updated(self, "out")
        feed = self.feed_forward
        if self.after_hook is None and isinstance(feed, FeedForward):
            gate_up, down = updated(feed, "gate_up"), updated(feed, "down")
            return pieces.finish(x, mixed, out, self.out_bias, feed.norm, gate_up, down, feed.eps)
        x = after_attention(x, mixed, out, self.out_bias)
        if self.after_hook is not None:
            x = self.after_hook(self.index, x)
        return feed(x)


@dataclass
class CompiledBlocks:
    """The two functions of a block, plain or compiled."""

    before: Callable[..., tuple[Tensor, Tensor, Tensor]] = before_attention
    finish: Callable[..., Tensor] = finish_block


class Decoder(Float32Buffers):
    """Ids → hidden states → logits. Rotary frequencies and angles are float32 whatever the weights are.

    Args:
        config: the shape.
        generator: draws the initial weights; torch's default generator where None.
        feed_forward: makes a block's feed-forward module, residual included.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        generator: torch.Generator | None = None,
        feed_forward: Callable[[DecoderConfig], nn.Module] = FeedForward,
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.width))
        self.blocks = nn.ModuleList(Block(config, index, feed_forward) for index in range(config.layers))
        self.norm = nn.Parameter(torch.ones(config.width))
        self.head = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.width))
        frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor
        self.pieces = CompiledBlocks()
        self._initialize(generator)

    @torch.no_grad()
    def _initialize(self, generator: torch.Generator | None) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and not parameter.is_meta:
                parameter.normal_(0.0, initial_scale(name, self.config), generator=generator)

    @property
    def head_weight(self) -> Tensor:
        """(V, C) matrix that turns hidden states into logits."""
        return self.embedding if self.head is None else self.head

    def compile_blocks(self) -> None:
        """Compile the two pieces of a block, once for all layers; pack sizes must stay fixed to avoid recompiling."""
        self.pieces = CompiledBlocks(
            torch.compile(before_attention, dynamic=False), torch.compile(finish_block, dynamic=False)
        )

    def recompute_blocks(self, count: int, *, keep_products: bool = False) -> None:
        """Let the first `count` blocks keep only their inputs and compute the rest again in the backward pass.

        With `keep_products` they keep what takes long to compute as well. InputError where there are fewer.
        """
        if count > len(self.blocks):
            raise InputError(f"train.recompute_blocks is {count}: the decoder has {len(self.blocks)} blocks")
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            block.recompute, block.keep_products = index < count, keep_products

    def embed(self, ids: Tensor, vectors: Tensor | None = None, vector_index: Tensor | None = None) -> Tensor:
        """Embedding rows (T, C) of ids (T,), `vectors` (N, C) standing in at the positions `vector_index` (N,)."""
        x = functional.embedding(ids, self.embedding)
        if vectors is not None:
            assert vector_index is not None
            x = x.index_copy(0, vector_index, vectors.to(x.dtype))
        return x

    def run(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Input vectors (T, C) at positions (T,) → final hidden states (T, C), normalized."""
        return rms_norm(self.through(self.blocks, x, positions, attend), self.norm, self.config.norm_eps)

    def through(self, blocks: Iterable[nn.Module], x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Vectors (T, C) behind blocks, of its own or of its shape, one after another: not normalized (T, C)."""
        angles = positions.float()[:, None] * self.frequencies  # (T, D / 2)
        cosine = torch.cat([angles.cos()] * 2, dim=-1)[:, None]  # (T, 1, D)
        sine = torch.cat([angles.sin()] * 2, dim=-1)[:, None]
        for block in blocks:
            x = block(x, cosine, sine, attend, self.pieces)
        return x

    def forward(
        self,
        ids: Tensor,
        positions: Tensor,
        cu_seqlens: Tensor,
        max_seqlen: int,
        *,
        prefix_lengths: Tensor | None = None,
        vectors: Tensor | None = None,
        vector_index: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (T, C) of packed documents: ids (T,), positions (T,) within documents, cu_seqlens (N + 1,).

        `prefix_lengths` (N,) count where the configuration says `prefix_lm`.
        """
        prefix = self.prefix(cu_seqlens, prefix_lengths, len(ids))
        attend = PackedAttend(cu_seqlens, max_seqlen, prefix, self.config.window)
        return self.run(self.embed(ids, vectors, vector_index), positions, attend)

    def prefix(self, cu_seqlens: Tensor, lengths: Tensor | None, positions: int) -> Prefix | None:
        """Who sees what comes later: None unless the configuration says `prefix_lm`, which takes `lengths` (N,)."""
        if not self.config.prefix_lm:
            return None
        assert lengths is not None, "a decoder with prefix_lm is told what is given"
        return Prefix.of(cu_seqlens, lengths, positions)

    def logits(self, hidden: Tensor) -> Tensor:
        """(T, C) → (T, V)."""
        return functional.linear(hidden, self.head_weight.to(hidden.dtype))


def initial_scale(name: str, config: DecoderConfig) -> float:
    """Standard deviation of a matrix's initial weights: what writes into the residual is scaled down by depth (Radford
    et al. 2019)."""
    return INITIAL_SCALE / math.sqrt(2 * config.layers) if name.endswith((".out", ".down")) else INITIAL_SCALE


@dataclass(frozen=True)
class Documents:
    """Packed ids of whole documents with everything `Decoder.forward` takes."""

    ids: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    lengths: list[int] = field(default_factory=list)


def pack_documents(documents: list[Any], device: torch.device | str = "cpu") -> Documents:
    """Lay id sequences one after another."""
    lengths = [len(document) for document in documents]
    ids = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    positions = np.concatenate([np.arange(length) for length in lengths])
    bounds = np.cumsum([0, *lengths]).astype(np.int32)
    packed, places, ends = (torch.from_numpy(array).to(device) for array in (ids, positions, bounds))
    return Documents(packed, places, ends, max(lengths), lengths)
