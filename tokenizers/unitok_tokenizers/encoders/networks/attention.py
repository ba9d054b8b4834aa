"""Attention layers over padded batches, shared by speech encoders and adapters.

B batch, T positions, S positions attended to, D width, H heads. A row's padding is neither attended to nor does it
reach other positions, so that a row gives the same alone as in a batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.encoders.networks.convolution import convolve

ROTARY_BASE = 10000.0


def inside(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool, True before each row's end."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def rotate_positions(x: Tensor) -> Tensor:
    """Rotary positions 0, 1, … (Su et al. 2021) on heads (B, H, T, E), halves paired."""
    half = x.shape[-1] // 2
    steps = torch.arange(half, device=x.device, dtype=torch.float32) / half
    angles = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)[:, None] * ROTARY_BASE**-steps
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)  # (T, E / 2)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions: of a sequence to itself, or to another one.

    Args:
        width: D of the queries and of the output.
        heads: H; the width must be a multiple of 2 H.
        context_width: D of what is attended to; the own width by default.
    """

    def __init__(self, width: int, heads: int, *, context_width: int | None = None) -> None:
        super().__init__()
        assert width % (2 * heads) == 0, (width, heads)
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(context_width or width, width)
        self.v_proj = nn.Linear(context_width or width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, T, D), context (B, S, D'), mask (B, S) False on padding → (B, T, D)."""
        q, k, v = (
            projection(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, E)
            for projection, source in ((self.q_proj, x), (self.k_proj, context), (self.v_proj, context))
        )
        allowed = None if mask is None else mask[:, None, None]
        mixed = mix(rotate_positions(q), rotate_positions(k), v, allowed)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


def mix(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Scaled dot-product attention of heads q (B, H, T, E), k and v (B, H, S, E), `allowed` (B, 1, 1, S) → as q."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    # Of a hundred frames in bfloat16, a CPU's fused kernel takes three times as long as its two products.
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


class ChannelDropout(nn.Module):
    """Dropout of whole channels of a row (Tompson et al. 2015): (B, T, D) → (B, T, D).

    A draw for every element takes a tenth of a training step on a CPU; one for every channel takes nothing.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Nothing outside of training."""
        if not self.training or not self.share:
            return x
        kept = torch.rand((x.shape[0], 1, x.shape[2]), device=x.device) >= self.share
        return x * (kept / (1 - self.share)).to(x.dtype)


class FeedForward(nn.Module):
    """Norm, expansion, SiLU, contraction."""

    def __init__(self, width: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, inner)
        self.contract = nn.Linear(inner, width)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D), without the residual."""
        return self.dropout(self.contract(functional.silu(self.expand(self.norm(x)))))


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward (Vaswani et al. 2017; Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = FeedForward(width, inner, dropout)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) → (B, T, D)."""
        normed = self.norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        return x + self.feed_forward(x)


class ConformerLayer(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward (Gulati et al. 2020).

    A layer norm stands where the paper has batch norm: statistics of a batch would make padding and neighbors matter.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float = 0.0, *, kernel: int = 15) -> None:
        super().__init__()
        self.first = FeedForward(width, inner, dropout)
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.conv_norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.depth_norm = nn.LayerNorm(width)
        self.pointwise = nn.Linear(width, width)
        self.second = FeedForward(width, inner, dropout)
        self.out_norm = nn.LayerNorm(width)
        self.dropout = ChannelDropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) → (B, T, D)."""
        x = x + 0.5 * self.first(x)
        normed = self.norm(x)
        x = x + self.dropout(self.attention(normed, normed, mask))
        gated = functional.glu(self.gate(self.conv_norm(x)), dim=-1) * mask[..., None]
        local = convolve(self.depthwise, gated)
        x = x + self.dropout(self.pointwise(functional.silu(self.depth_norm(local))))
        return self.out_norm(x + 0.5 * self.second(x))


class QueryLayer(nn.Module):
    """Learned queries attend to one another, then to a sequence (Li et al. 2023, Q-Former)."""

    def __init__(self, width: int, heads: int, inner: int, context_width: int) -> None:
        super().__init__()
        self.norm, self.cross_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.cross = Attention(width, heads, context_width=context_width)
        self.feed_forward = FeedForward(width, inner)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        """queries (B, N, D), context (B, S, D'), mask (B, S) → (B, N, D)."""
        normed = self.norm(queries)
        queries = queries + self.attention(normed, normed, None)
        queries = queries + self.cross(self.cross_norm(queries), context, mask)
        return queries + self.feed_forward(queries)
