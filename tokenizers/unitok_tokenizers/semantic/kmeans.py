"""k-means, deterministic for a seed.

N points, D width, K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError

ASSIGN_BLOCK = 16384


def assign(points: Tensor, centroids: Tensor) -> Tensor:
    """Index (N,) of the nearest centroid (K, D) of each point (N, D)."""
    half_norms = 0.5 * (centroids * centroids).sum(1)
    blocks = [torch.argmax(block @ centroids.T - half_norms, dim=1) for block in points.split(ASSIGN_BLOCK)]
    return torch.cat(blocks) if blocks else torch.zeros(0, dtype=torch.int64, device=points.device)


def fit_kmeans(points: Tensor, clusters: int, *, seed: int, iterations: int = 25) -> Tensor:
    """Centroids (K, D) by Lloyd's algorithm from a k-means++ start on a sample; empty clusters restart at a point.

    All draws are the processor's, wherever the points lie: a seed gives the same ones on every device.

    Raises:
        InputError: fewer points than clusters.
    """
    if len(points) < clusters:
        raise InputError(f"{clusters} clusters from only {len(points)} frames; give more audio or fewer clusters")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(points), generator=generator, device="cpu")[: max(clusters * 20, 2000)]
    sample = points[order.to(points.device)]
    centroids = _plus_plus(sample, clusters, generator)
    for _ in range(iterations):
        labels = assign(points, centroids)
        counts = torch.bincount(labels, minlength=clusters)
        sums = torch.zeros_like(centroids).index_add_(0, labels, points)
        moved = sums / counts.clamp(min=1)[:, None]
        empty = counts == 0
        if empty.any():
            picks = torch.randint(len(points), (int(empty.sum()),), generator=generator, device="cpu")
            moved[empty] = points[picks.to(points.device)]
        if torch.allclose(moved, centroids, atol=1e-5):
            return moved
        centroids = moved
    return centroids


def _plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ seeding (Arthur & Vassilvitskii 2007): draw in proportion to the squared distance."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator, device="cpu"))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    for _ in range(clusters - 1):
        weight = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weight.cpu(), 1, generator=generator)))
        distance = torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen].clone()
