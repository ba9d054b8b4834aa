"""A scalar score of a sentence on the decoder's last state (RescoreBERT, Xu et al. 2022).

H hypotheses, C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from unitok.decoder.model import pack_documents
from unitok.model import Model
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span


class RescoringHead(nn.Module):
    """Last hidden state, with the language model's own score beside it → a score to add to the first pass's."""

    def __init__(self, width: int, inner: int = 64) -> None:
        super().__init__()
        self.inner = nn.Linear(width + 1, inner)
        self.outer = nn.Linear(inner, 1)
        nn.init.zeros_(self.outer.weight)  # at first it says nothing: the first pass decides
        nn.init.zeros_(self.outer.bias)
        self.lm = nn.Parameter(torch.zeros(()))

    def forward(self, states: Tensor, lm: Tensor) -> Tensor:
        """states (H, C) and log p(text) lm (H,) → (H,)."""
        both = torch.cat([states, lm[:, None] / 10], dim=-1)
        return self.lm * lm + self.outer(torch.tanh(self.inner(both)))[:, 0]


@torch.no_grad()
def last_states(model: Model, texts: Sequence[str], *, lang: str, batch: int = 64) -> Tensor:
    """(H, C) hidden state at the end of each text, read as the `<lm>` line."""
    found = []
    for start in range(0, len(texts), batch):
        documents = [
            render(
                SequenceSpec("lm", lang, outputs=(Span("text", np.asarray(model.tokenizers.text.encode(text))),)),
                model.vocabulary,
            ).ids
            for text in texts[start : start + batch]
        ]
        packed = pack_documents(documents, model.decoder.embedding.device)
        lengths = torch.tensor(packed.lengths, device=packed.ids.device)
        hidden = model.decoder(
            packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=torch.zeros_like(lengths)
        )
        found.append(hidden[packed.cu_seqlens[1:].long() - 1])
    return torch.cat(found).clone()
