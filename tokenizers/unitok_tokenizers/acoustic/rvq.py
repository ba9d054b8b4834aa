"""Residual vector quantization (Zeghidour et al. 2021): each codebook quantizes what the ones before left over.

N vectors, D width, Q codebooks, K codes a codebook.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unitok_tokenizers.float32_buffers import Float32Buffers
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans

DECAY = 0.98
REVIVE_BELOW = 0.05
"""Codes used less than this share of the even share start again at a random residual."""


class ResidualVq(Float32Buffers):
    """Codebooks learned by moving averages; gradients pass straight through."""

    def __init__(self, width: int, codebooks: int, cardinality: int) -> None:
        super().__init__()
        self.register_buffer("codebooks", torch.zeros(codebooks, cardinality, width))
        self.register_buffer("counts", torch.ones(codebooks, cardinality), persistent=False)
        self.register_buffer("sums", torch.zeros(codebooks, cardinality, width), persistent=False)
        self.codebooks: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.revive_below = REVIVE_BELOW
        """Share of the even share of use below which a code starts again; 0 for never. Of training alone."""
        self.gathered: Callable[[Tensor], Tensor] | None = None
        """Rows (n, …) of vectors that this process was given → (N, …) of all processes that train together, whose
        vectors codebooks then follow. None where there is one. Of training alone."""

    @torch.no_grad()
    def initialize(self, vectors: Tensor, seed: int) -> None:
        """k-means on vectors (N, D), codebook by codebook."""
        residual = vectors
        for q in range(len(self.codebooks)):
            self.codebooks[q] = fit_kmeans(residual, self.codebooks.shape[1], seed=seed + q, iterations=10)
            residual = residual - self.codebooks[q][assign(residual, self.codebooks[q])]
        self.placed(len(vectors))

    def placed(self, vectors: int) -> None:
        """All codes are where they are to be, for steps of so many vectors."""
        count = self._first_count(vectors)
        self.counts.fill_(count)
        self.sums.copy_(self.codebooks * count)

    def _first_count(self, vectors: int) -> float:
        """How often a code that is placed counts as chosen: twice as often as an idle one. With fewer it would be drawn
        anew at the next step of many vectors."""
        return max(1.0, 2 * self.revive_below * vectors / self.codebooks.shape[1])

    @torch.no_grad()
    def encode(self, vectors: Tensor) -> Tensor:
        """(N, D) → codes (N, Q)."""
        codes, residual = [], vectors.float()
        for book in self.codebooks:
            codes.append(assign(residual, book))
            residual = residual - book[codes[-1]]
        return torch.stack(codes, dim=-1) if codes else vectors.new_zeros(len(vectors), 0, dtype=torch.int64)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, Q') of the first Q' codebooks → vectors (N, D)."""
        total = self.codebooks.new_zeros(len(codes), self.codebooks.shape[2])
        for q, book in enumerate(self.codebooks[: codes.shape[1]]):
            total = total + book[codes[:, q]]
        return total

    def forward(
        self, vectors: Tensor, generator: torch.Generator | None = None, depths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantize (N, D) with straight-through gradients; returns (N, D) and the commitment loss.

        In training the codebooks follow their members by moving averages; `generator` draws restarts. Of each vector
        the first `depths` (N,) codebooks are used, where given (quantizer dropout); all of them learn all the same.
        """
        detached = vectors.detach()
        codes = self.encode(detached)
        if self.training:
            self._update(detached, codes, generator)
        quantized = self.decode(codes) if depths is None else self._decode_to(codes, depths)
        commitment = (vectors - quantized).pow(2).mean()
        return vectors + (quantized - vectors).detach(), commitment

    def _decode_to(self, codes: Tensor, depths: Tensor) -> Tensor:
        """Codes (N, Q), of which the first `depths` (N,) are used → vectors (N, D)."""
        total = self.codebooks.new_zeros(len(codes), self.codebooks.shape[2])
        for q, book in enumerate(self.codebooks):
            total = total + book[codes[:, q]] * (depths > q)[:, None]
        return total

    @torch.no_grad()
    def _update(self, vectors: Tensor, codes: Tensor, generator: torch.Generator | None) -> None:
        residual = vectors.float()
        for q, book in enumerate(self.codebooks):
            used, residual = residual, residual - book[codes[:, q]]
            self._follow(q, used, codes[:, q], generator)

    @torch.no_grad()
    def _follow(self, q: int, used: Tensor, chosen: Tensor, generator: torch.Generator | None) -> None:
        """Move codebook `q` toward what (N, D) chose its codes (N,); restart the codes that nothing chooses."""
        book = self.codebooks[q]
        if self.gathered is not None:
            used, chosen = self.gathered(used), self.gathered(chosen)
        counts = torch.bincount(chosen, minlength=len(book)).float()
        self.counts[q].mul_(DECAY).add_(counts, alpha=1 - DECAY)
        self.sums[q].mul_(DECAY).add_(torch.zeros_like(book).index_add_(0, chosen, used), alpha=1 - DECAY)
        book.copy_(self.sums[q] / self.counts[q].clamp(min=1e-4)[:, None])
        idle = self.counts[q] < self.revive_below * len(used) / len(book)
        if bool(idle.any()):
            picks = torch.randint(len(used), (int(idle.sum()),), generator=generator, device="cpu").to(used.device)
            book[idle] = used[picks]
            count = self._first_count(len(used))
            self.sums[q][idle] = used[picks] * count
            self.counts[q][idle] = count
