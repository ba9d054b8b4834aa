"""Pseudo-log-likelihood: how well every token fits what stands on both sides of it.

PLL(Y) = Σ_t log P(y_t | Y without t) (Salazar et al. 2020), for a decoder that was trained to fill in `<mask>` with
attention in both directions. One forward per token, many of them packed together.

T packed positions, N tokens of a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.attention import HostLengths, varlen_attention
from unitok.decoder.model import Decoder, pack_documents
from unitok.model import Model
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span

PACK = 4096
"""Positions that are computed together."""


@dataclass(frozen=True)
class BothWays:
    """Every position of a document sees the whole document."""

    cu_seqlens: Tensor
    max_seqlen: int

    @cached_property
    def lengths(self) -> HostLengths:
        """The documents' lengths for all layers, asked for at most once."""
        return HostLengths(self.cu_seqlens)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, D), k and v (T, G, D) → (T, H, D)."""
        bounds, longest, own = self.cu_seqlens, self.max_seqlen, self.lengths
        return varlen_attention(q, k, v, bounds, bounds, longest, longest, causal=False, lengths_q=own, lengths_k=own)


def hidden_both_ways(decoder: Decoder, documents: Sequence[np.ndarray]) -> Tensor:
    """Hidden states (T, C) of documents laid one after another, attention in both directions."""
    packed = pack_documents(list(documents), decoder.embedding.device)
    return decoder.run(decoder.embed(packed.ids), packed.positions, BothWays(packed.cu_seqlens, packed.max_seqlen))


def cloze(model: Model, text: str, lang: str) -> tuple[np.ndarray, np.ndarray]:
    """(ids of the `<lm>` line, (N + 1,) places of its text ids and of what closes them), as `<mask>` models read it:
    without the closer an empty text would be the likeliest of all."""
    span = Span("text", np.asarray(model.tokenizers.text.encode(text)))
    ids = render(SequenceSpec("lm", lang, outputs=(span,)), model.vocabulary).ids
    return ids, np.arange(len(ids) - 2 - len(span), len(ids) - 1)  # the end follows


@torch.inference_mode()
def pseudo_logprobs(model: Model, texts: Sequence[str], *, lang: str) -> list[tuple[float, int]]:
    """(PLL, tokens) of texts, what closes them included."""
    mask = model.vocabulary.control("<mask>")
    jobs: list[tuple[int, np.ndarray, int, int]] = []
    for index, text in enumerate(texts):
        ids, places = cloze(model, text, lang)
        for place in places.tolist():
            masked = ids.copy()
            masked[place] = mask
            jobs.append((index, masked, place, int(ids[place])))
    sums, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
    start = 0
    while start < len(jobs):
        stop = start + max(1, PACK // max(len(jobs[start][1]), 1))
        part = jobs[start:stop]
        hidden = hidden_both_ways(model.decoder, [masked for _, masked, _, _ in part])
        lengths = np.asarray([len(masked) for _, masked, _, _ in part])
        rows = np.cumsum(lengths) - lengths + np.asarray([place for _, _, place, _ in part])
        logits = model.decoder.logits(hidden[torch.from_numpy(rows).to(hidden.device)])
        wanted = torch.tensor([token for _, _, _, token in part], device=hidden.device)
        found = logits.float().log_softmax(-1).gather(1, wanted[:, None])[:, 0].tolist()
        for (index, _, _, _), value in zip(part, found):
            sums[index] += value
            counts[index] += 1
        start = stop
    return list(zip(sums.tolist(), counts.tolist()))
