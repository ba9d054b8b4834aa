"""Muon's iteration, by whichever products: the published one, and what it makes of singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unitok_training.trainer.optimizer import orthogonalize


def published(matrix: Tensor, steps: int = 5) -> Tensor:
    """(R, C) by the formula of Jordan 2024, in float64."""
    x = matrix.double()
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def drawn(rows: int, columns: int, *, rank: int | None = None, decay: float = 0.0) -> Tensor:
    """(3, R, C) matrices, of a rank or with columns that become smaller by so many powers of ten."""
    generator = torch.Generator().manual_seed(rows + columns)
    made = torch.randn(3, rows, rank or columns, generator=generator)
    if rank:
        made = made @ torch.randn(3, rank, columns, generator=generator)
    return made * torch.logspace(0, -decay, columns)


@pytest.mark.parametrize(
    "matrices",
    [
        drawn(48, 48), drawn(48, 90), drawn(48, 96), drawn(32, 160), drawn(160, 32), drawn(1, 64), drawn(64, 1),
        drawn(48, 144, rank=3), drawn(48, 144, decay=6), 1e-12 * drawn(32, 96), torch.zeros(2, 16, 64),
    ],
    ids=["square", "near", "long", "longer", "tall", "row", "column", "low rank", "uneven", "tiny", "nothing"],
)  # fmt: skip
def test_every_shape_gives_the_published_iteration(matrices: Tensor) -> None:
    found = orthogonalize(matrices)
    assert found.shape == matrices.shape and bool(torch.isfinite(found).all())
    for one, before in zip(found, matrices):
        if float(before.norm()) > 1e-5:  # what is added to the norm is nothing beside it
            torch.testing.assert_close(one.double(), published(before), rtol=0, atol=2e-4)


def test_singular_values_come_near_one() -> None:
    found = torch.linalg.svdvals(orthogonalize(drawn(64, 256)))
    assert 0.6 < float(found.min()) and float(found.max()) < 1.3


def test_bfloat16_keeps_the_iteration_that_bears_it() -> None:
    matrices = drawn(48, 192)
    found = orthogonalize(matrices, torch.bfloat16)
    assert found.dtype == torch.float32
    for one, before in zip(found, matrices):
        torch.testing.assert_close(one.double(), published(before), rtol=0, atol=0.03)
