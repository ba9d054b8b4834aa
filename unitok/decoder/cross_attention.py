"""Gated cross-attention to a recording inside every block (Whispering-LLaMA, Radhakrishnan et al. 2023).

The decoder reads the n-best list as text and, behind every block's attention, looks at the encoder's frames. The gate
is tanh of a scalar that starts at 0, so that a new adapter leaves every logit as it is, bit for bit.

T packed positions, F frames of all recordings, E their width, C width of the decoder, H heads, D head size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import Block, Decoder, DecoderConfig
from unitok.decoder.products import rms_norm


@dataclass(frozen=True, kw_only=True)
class CrossAttentionConfig:
    """Shape of the adapter."""

    frames: int
    """E: width of what the encoder gives."""
    size: int = 64
    """Width of queries, keys and values together."""
    heads: int = 2
    """H."""


class GatedCrossAttention(nn.Module):
    """One block's adapter."""

    def __init__(self, config: CrossAttentionConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        self.heads, self.eps = config.heads, decoder.norm_eps
        self.norm = nn.Parameter(torch.ones(decoder.width))
        self.query = nn.Linear(decoder.width, config.size, bias=False)
        self.key = nn.Linear(config.frames, config.size, bias=False)
        self.value = nn.Linear(config.frames, config.size, bias=False)
        self.out = nn.Linear(config.size, decoder.width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, frames: Sequence[Tensor], lengths: Sequence[int]) -> Tensor:
        """x (T, C) of documents of these lengths, each with its frames (F, E) → (T, C)."""
        mixed = []
        for part, memory in zip(x.split(list(lengths)), frames):
            memory = memory.to(part)
            q, k, v = self.query(rms_norm(part, self.norm, self.eps)), self.key(memory), self.value(memory)
            q, k, v = (one.unflatten(-1, (self.heads, -1)).transpose(0, 1)[None] for one in (q, k, v))  # (1, H, T, D)
            mixed.append(functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1))
        return x + self.gate.tanh() * self.out(torch.cat(mixed))


class CrossAttentionAdapter(nn.Module):
    """An adapter per block; `attend` puts them into a decoder while recordings are looked at."""

    def __init__(self, config: CrossAttentionConfig, decoder: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(GatedCrossAttention(config, decoder) for _ in range(decoder.layers))

    @contextmanager
    def attend(
        self, decoder: Decoder, frames: Sequence[Tensor], lengths: Sequence[int] | None = None
    ) -> Iterator[None]:
        """While this lasts the decoder's blocks look at recordings.

        Args:
            decoder: its blocks' hooks must be free.
            frames: (F, E) of each document.
            lengths: positions of each packed document; None where there is one recording and every position, of the
                prompt and of the steps after it, looks at it.
        """
        assert lengths is not None or len(frames) == 1, "several recordings need the documents' lengths"
        blocks = [block for block in decoder.blocks if isinstance(block, Block)]
        assert len(blocks) == len(self.layers) and all(block.after_hook is None for block in blocks)

        def hook(layer: int, x: Tensor) -> Tensor:
            return self.layers[layer](x, frames, [len(x)] if lengths is None else lengths)

        try:
            for block in blocks:
                block.after_hook = hook
            yield
        finally:
            for block in blocks:
                block.after_hook = None
