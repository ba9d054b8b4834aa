"""Token mapping: what the CTC head reads, as embedding rows of text pieces (Tsunoo et al. 2024).

A recording becomes the tokens of its CTC best path: the greedy transcript as a prompt that the decoder mends. The path
is causal, so that blocks of frames can be mapped as they come.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unitok.frontends.adapters.base import BLANK, Adapter, AdapterSizes, at_least_one, compact


@dataclass(frozen=True, kw_only=True)
class TokenMappingConfig:
    """Options of `token_mapping`."""

    expected: bool = False
    """Take the expected row under the head's distribution, through which gradients reach the encoder, not the best."""


class TokenMappingAdapter(Adapter):
    """One vector per token of the best path; an all-blank recording gives one, the blank's row or the expected one."""

    name, Config = "token_mapping", TokenMappingConfig
    by_content, needs_labels = True, True

    def __init__(self, config: TokenMappingConfig, sizes: AdapterSizes) -> None:
        super().__init__(config, sizes)
        self.table = nn.Embedding(sizes.labels, sizes.vectors)
        nn.init.normal_(self.table.weight, std=0.02)

    @torch.no_grad()
    def initialize(self, embedding: Tensor) -> None:
        """Take the rows of the text pieces, which stand first in the vocabulary."""
        rows = min(len(embedding), self.sizes.labels - 1)
        self.table.weight[1 : rows + 1] = embedding[:rows]

    def length(self, frames: int) -> int:
        """At most all frames."""
        return frames

    def rows(self, ctc: Tensor) -> Tensor:
        """(…, V) log-probabilities → (…, C) rows."""
        rows = self.table.weight
        return ctc.exp().to(rows.dtype) @ rows if self.config.expected else rows[ctc.argmax(-1)]

    def adapt(self, frames: Tensor, lengths: Tensor, ctc: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `Adapter.forward`."""
        assert ctc is not None
        labels = ctc.argmax(-1)
        said = labels != BLANK
        said[:, 1:] &= labels[:, 1:] != labels[:, :-1]
        chosen, sizes = compact(ctc, at_least_one(said, -ctc[..., BLANK], lengths))
        return self.rows(chosen), sizes

    def stream(self) -> TokenStream:
        """A mapper of blocks as they come."""
        return TokenStream(self)


class TokenStream:
    """Blocks of one recording's CTC output in, vectors out; joined, they are those of the whole recording."""

    def __init__(self, adapter: TokenMappingAdapter) -> None:
        self.adapter = adapter
        self.last = BLANK
        self.said = 0
        """Vectors given so far."""
        self._least_blank: Tensor | None = None

    def push(self, ctc: Tensor) -> Tensor:
        """(T, V) log-probabilities of the next block → (N, C), N may be 0."""
        labels = ctc.argmax(-1)
        before = torch.cat([labels.new_tensor([self.last]), labels[:-1]])
        fresh = (labels != BLANK) & (labels != before)
        if len(labels):
            self.last = int(labels[-1])
            best = ctc[ctc[:, BLANK].argmin()]
            if self._least_blank is None or best[BLANK] < self._least_blank[BLANK]:
                self._least_blank = best
        self.said += int(fresh.sum())
        return self.adapter.scaled(self.adapter.rows(ctc[fresh]))

    def finish(self) -> Tensor:
        """(1, C) where nothing was said until the end, else (0, C)."""
        none = self.adapter.table.weight[:0]
        if self.said or self._least_blank is None:
            return none
        return self.adapter.scaled(self.adapter.rows(self._least_blank[None]))
