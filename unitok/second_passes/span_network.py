"""The network of second passes: the decoder's blocks over whole spans, every position seeing all of its span.

A span is laid as its conditions, its prompt, its frames. A frame enters as the sum of the table rows of those of its
codes that are known; of the prompt that is all of them. With stages, each norm is followed by a scale and a shift of
the stage (VALL-E's adaptive layer norm, Wang et al. 2023, here behind the blocks' root-mean-square norms).

B spans, T packed positions, N packed frames, Q codebooks, C width, J stages, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.attention import HostLengths, varlen_attention
from unitok.decoder.model import (
    CompiledBlocks,
    Decoder,
    DecoderConfig,
    after_attention,
    rotate,
)
from unitok.decoder.products import Matrix, gated_linear, linear, product_type, rms_norm
from unitok.layouts.slots import drawn
from unitok.second_passes.base import SpanBatch, owners


@dataclass(frozen=True)
class SpanAttend:
    """Attention within packed spans, in both directions."""

    bounds: Tensor
    """(B + 1,) int32."""
    longest: int
    """Positions of the longest span."""

    @cached_property
    def lengths(self) -> HostLengths:
        """The spans' lengths for all layers, asked for at most once."""
        return HostLengths(self.bounds)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return varlen_attention(
            q, k, v, self.bounds, self.bounds, self.longest, self.longest, causal=False,
            lengths_q=self.lengths, lengths_k=self.lengths,
        )  # fmt: skip


@dataclass(frozen=True)
class Adapted:
    """A norm's output scaled and shifted by stage."""

    scale: Tensor
    """(T, C); 0 leaves it as it is."""
    shift: Tensor
    """(T, C)."""

    def __call__(self, x: Tensor, norm: Tensor, eps: float) -> Tensor:
        """(T, C) → (T, C), in the type in which it is multiplied."""
        dtype = product_type(x)
        return (rms_norm(x, norm, eps) * (1 + self.scale).to(x.dtype) + self.shift.to(x.dtype)).to(dtype)


def before_attention(
    adapted: Adapted, x: Tensor, norm: Tensor, qkv: Matrix, bias: Tensor | None,
    qk_norms: tuple[Tensor, Tensor] | None, cosine: Tensor, sine: Tensor, heads: int, kv_heads: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The decoder's function of this name behind an adapted norm."""
    entering = adapted(x, norm, eps)
    joint = linear(entering, qkv, bias)
    joint = joint.view(len(x), heads + 2 * kv_heads, joint.shape[1] // (heads + 2 * kv_heads))  # (T, H + 2G, D)
    q, k, v = joint.split([heads, kv_heads, kv_heads], dim=1)
    if qk_norms is not None:
        q, k = rms_norm(q, qk_norms[0], eps), rms_norm(k, qk_norms[1], eps)
    cosine, sine = cosine.to(entering.dtype), sine.to(entering.dtype)
    return rotate(q, cosine, sine), rotate(k, cosine, sine), v.contiguous()


def finish_block(
    adapted: Adapted, x: Tensor, mixed: Tensor, out: Matrix, bias: Tensor | None, norm: Tensor, gate_up: Matrix,
    down: Matrix, eps: float,
) -> Tensor:  # fmt: skip
    """The decoder's function of this name behind an adapted norm."""
    x = after_attention(x, mixed, out, bias)
    return x + gated_linear(linear(adapted(x, norm, eps), gate_up), down)


CONDITION, PROMPT, FRAME = range(3)
"""What a position is."""


class SpanNetwork(nn.Module):
    """Tables of all codebooks, an embedding of condition ids, and blocks.

    Args:
        cardinalities: sizes of the Q codebooks.
        config: shape of the blocks; `vocab_size` is how many ids conditions may have.
        stages: J, or 0 for one that has none, whose norms are plain.
        generator: draws the initial weights; torch's default generator where None.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        config: DecoderConfig,
        *,
        stages: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.decoder = Decoder(config, generator=generator)
        self.tables = nn.ParameterList(drawn(size, config.width, generator=generator) for size in cardinalities)
        self.kinds = drawn(3, config.width, generator=generator)
        shape = stages, 2 * config.layers + 1, config.width
        self.scale = drawn(*shape, generator=generator) if stages else None
        self.shift = drawn(*shape, generator=generator) if stages else None

    def row_names(self) -> list[str]:
        """Names of its parameters that are rows to be looked up, no matrix of a linear map."""
        own = ("tables.", "kinds", "scale", "shift")
        return [name for name, _ in self.named_parameters() if name.startswith(own)] + ["decoder.embedding"]

    def sums(self, codes: Tensor, read: Tensor | None = None) -> Tensor:
        """Codes (N, Q), of each frame the first `read` (N,) codebooks or all → sums of their table rows (N, C)."""
        total = self.kinds.new_zeros(len(codes), self.kinds.shape[1])
        for book, table in enumerate(self.tables):
            column = codes[:, book]
            there = column >= 0 if read is None else (column >= 0) & (book < read)
            total = total + functional.embedding(column.clamp(min=0), table) * there[:, None]
        return total

    def forward(self, batch: SpanBatch, read: Tensor, stages: Tensor | None = None) -> Tensor:
        """What the network says of every frame of spans.

        Args:
            batch: spans.
            read: (N,) int64 how many of each frame's codebooks are read.
            stages: (B,) int64 stage of each span, where there are stages.

        Returns:
            (N, C), normalized.
        """
        parts = (
            (CONDITION, batch.condition_bounds, self.decoder.embed(batch.conditions)),
            (PROMPT, batch.prompt_bounds, self.sums(batch.prompt)),
            (FRAME, batch.bounds, self.sums(batch.codes, read)),
        )
        joint = batch.condition_bounds + batch.prompt_bounds + batch.bounds  # (B + 1,) where whole spans start and end
        start, places, spans = joint[:-1].long(), list[Tensor](), list[Tensor]()
        for _, bounds, rows in parts:
            span = owners(bounds, len(rows))
            items = torch.arange(len(rows), device=rows.device)
            places.append(start[span] + items - bounds[:-1].long()[span])
            spans.append(span)
            start = start + bounds.diff().long()
        rows = torch.cat([rows + self.kinds[kind] for kind, _, rows in parts])
        place, span = torch.cat(places), torch.cat(spans)
        x = torch.zeros_like(rows).index_copy(0, place, rows)
        owner = torch.zeros_like(span).index_copy(0, place, span)
        positions = torch.arange(len(x), device=x.device) - joint[:-1].long()[owner]
        attend = SpanAttend(joint, int(joint.diff().max()))
        stage = None if stages is None else stages[owner]
        return self._run(x, positions, attend, stage)[places[FRAME]]

    def _run(self, x: Tensor, positions: Tensor, attend: SpanAttend, stage: Tensor | None) -> Tensor:
        """`Decoder.run` with norms adapted to the stage (T,) of each position."""
        decoder = self.decoder
        if self.scale is None or self.shift is None:
            return decoder.run(x, positions, attend)
        assert stage is not None, "a network of stages is told which"
        adapted = [Adapted(self.scale[stage, one], self.shift[stage, one]) for one in range(self.scale.shape[1])]
        angles = positions.float()[:, None] * decoder.frequencies
        cosine, sine = (torch.cat([one] * 2, dim=-1)[:, None] for one in (angles.cos(), angles.sin()))
        for index, block in enumerate(decoder.blocks):
            pieces = CompiledBlocks(
                partial(before_attention, adapted[2 * index]), partial(finish_block, adapted[2 * index + 1])
            )
            x = block(x, cosine, sine, attend, pieces)
        return adapted[-1](x, decoder.norm, decoder.config.norm_eps)
