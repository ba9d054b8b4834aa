"""RobustGER's language-space noise vector: how much and where the hypotheses of a list disagree (Hu et al. 2024).

The noisier a recording, the more its hypotheses differ. Two sets of differences are taken between embeddings of the
hypotheses: of whole utterances, and of tokens at equal places. A small network turns them into vectors that stand at
`<lat>` positions before the list. The paper embeds with SBERT and subtracts the result from the prompt; here the
decoder's own rows embed, and the network learns the sign.

H hypotheses, C width of the decoder, N vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from unitok.decoder.model import Decoder


@dataclass(frozen=True, kw_only=True)
class NoiseVectorConfig:
    """Shape of the adapter."""

    width: int
    """C: width of the decoder."""
    vectors: int = 2
    """N."""


def differences(decoder: Decoder, hypotheses: Sequence[np.ndarray]) -> Tensor:
    """(2 C,) mean difference of the hypotheses, pair by pair: of whole utterances, and of tokens at equal places.

    `hypotheses` are global ids (N,) each; a list of one, or of equal texts, gives zeros.
    """
    rows = decoder.embedding.detach().float()
    given = [torch.from_numpy(np.asarray(ids, dtype=np.int64)) for ids in hypotheses if len(ids)]
    embedded = [rows[ids.to(rows.device)] for ids in given]
    width = rows.shape[1]
    pairs = list(combinations(embedded, 2))
    if not pairs:
        return rows.new_zeros(2 * width)
    whole = torch.stack([(a.mean(0) - b.mean(0)).abs() for a, b in pairs]).mean(0)
    tokens = torch.stack([_places(a, b) for a, b in pairs]).mean(0)
    return torch.cat([whole, tokens])


def _places(a: Tensor, b: Tensor) -> Tensor:
    """(C,) mean difference at equal places; what one has more counts whole."""
    longest = max(len(a), len(b))
    padded = [torch.cat([one, one.new_zeros(longest - len(one), one.shape[1])]) for one in (a, b)]
    return (padded[0] - padded[1]).abs().mean(0)


class NoiseVector(nn.Module):
    """Differences → vectors."""

    def __init__(self, config: NoiseVectorConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(2 * config.width, config.width)
        self.outer = nn.Linear(config.width, config.vectors * config.width)

    def forward(self, found: Tensor) -> Tensor:
        """(B, 2 C) → (B, N, C)."""
        wide, dtype = found.float(), self.inner.weight.dtype  # differences are float32 whatever the decoder is
        size = wide.norm(dim=-1, keepdim=True)
        hidden = torch.tanh(self.inner((wide / size.clamp_min(1e-6)).to(dtype)) * size.to(dtype))
        return self.outer(hidden).unflatten(-1, (self.config.vectors, self.config.width))
