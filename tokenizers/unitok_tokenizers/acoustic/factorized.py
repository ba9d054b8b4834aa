"""Residual vector quantization in a space of few dimensions, looked up by direction (DAC: Kumar et al. 2023).

N vectors, D width, L width of a code, Q codebooks, K codes a codebook.

Every codebook has a projection into its own small space, where a code is chosen by the angle, and one back. Codes are
chosen by what distinguishes vectors most, so that more of them are used.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.acoustic.rvq import ResidualVq
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans


class FactorizedVq(ResidualVq):
    """Codebooks (Q, K, L) learned by moving averages behind projections that are learned by gradients."""

    def __init__(self, width: int, codebooks: int, cardinality: int, code_width: int) -> None:
        super().__init__(code_width, codebooks, cardinality)
        self.width = width
        self.down = nn.ModuleList(nn.Linear(width, code_width) for _ in range(codebooks))
        self.up = nn.ModuleList(nn.Linear(code_width, width) for _ in range(codebooks))

    def _projections(self) -> list[tuple[nn.Linear, nn.Linear]]:
        """Down and up, of each codebook."""
        return cast(list[tuple[nn.Linear, nn.Linear]], list(zip(self.down, self.up)))

    def _nearest(self, low: Tensor, book: Tensor) -> Tensor:
        """Codes (N,) of projected vectors (N, L), by angle."""
        return assign(functional.normalize(low.float(), dim=-1), functional.normalize(book, dim=-1))

    @torch.no_grad()
    def initialize(self, vectors: Tensor, seed: int) -> None:
        """Projections on the main directions of what is left over at each codebook, and k-means there."""
        residual = vectors.float()
        for q, (down, up) in enumerate(self._projections()):
            mean = residual.mean(0)
            directions = torch.linalg.svd(residual - mean, full_matrices=False)[2][: self.codebooks.shape[2]]  # (L, D)
            down.weight.copy_(directions)
            down.bias.copy_(-directions @ mean)
            up.weight.copy_(directions.T)
            up.bias.copy_(mean)
            low = down(residual)
            self.codebooks[q] = fit_kmeans(low, self.codebooks.shape[1], seed=seed + q, iterations=10)
            residual = residual - up(self.codebooks[q][self._nearest(low, self.codebooks[q])])
        self.placed(len(vectors))

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """(N, D) → codes (N, Q)."""
        codes, residual = [], vectors.float()
        for book, down, up in zip(self.codebooks, self.down, self.up):
            codes.append(self._nearest(down(residual), book))
            residual = residual - up(book[codes[-1]])
        return torch.stack(codes, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, Q') of the first Q' codebooks → vectors (N, D)."""
        total = self.codebooks.new_zeros(len(codes), self.width)
        for q, up in enumerate(list(self.up)[: codes.shape[1]]):
            total = total + up(self.codebooks[q][codes[:, q]])
        return total

    def forward(
        self, vectors: Tensor, generator: torch.Generator | None = None, depths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ResidualVq.forward`; the loss draws projected vectors and codes to each other."""
        residual, total = vectors.float(), torch.zeros_like(vectors, dtype=torch.float32)
        loss = residual.new_zeros(())
        for q, (down, up) in enumerate(zip(self.down, self.up)):
            low = down(residual)
            codes = self._nearest(low.detach(), self.codebooks[q])
            chosen = self.codebooks[q][codes]
            if self.training:
                self._follow(q, low.detach(), codes, generator)
            made = up(low + (chosen - low).detach())
            used = torch.ones_like(made[:, :1]) if depths is None else (depths > q)[:, None].to(made)
            loss = loss + (used * (low - chosen.detach()).pow(2)).mean() / len(self.codebooks)
            total = total + used * made
            residual = residual - made.detach()
        loss = loss + (vectors.detach() - total).pow(2).mean()
        return total, loss
