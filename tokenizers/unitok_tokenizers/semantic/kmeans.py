"""k-means, deterministic for a seed.

N points, D width, K clusters.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError

ASSIGN_BLOCK = 16384
STARVED = 0.02
"""Share of an even share below which a cluster of a stream begins anew."""


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


class StreamedKmeans:
    """k-means of points that come by and by, of which memory never holds more than the start (Sculley 2010).

    The first points wait until they are enough for `fit_kmeans`; after it every cluster is the mean of all points that
    fell to it. A cluster that gets less than `STARVED` of an even share begins anew at a point of the last batch.

    Args:
        clusters: K.
        seed: of every draw.
        start: points that are clustered at once before the rest is looked at.
    """

    def __init__(self, clusters: int, *, seed: int, start: int | None = None) -> None:
        self.clusters, self.seed = clusters, seed
        self.start = max(clusters * 40, 20_000) if start is None else start
        self._waiting: list[Tensor] = []
        self._centroids: Tensor | None = None
        self._counts = torch.zeros(clusters)
        self._generator = torch.Generator().manual_seed(seed)

    def add(self, points: Tensor) -> None:
        """Take in points (N, D)."""
        if self._centroids is not None:
            self._follow(points)
            return
        self._waiting.append(points)
        if sum(map(len, self._waiting)) >= self.start:
            self._begin()

    def centroids(self) -> Tensor:
        """(K, D). InputError where fewer points than clusters came."""
        if self._centroids is None:
            self._begin()
        assert self._centroids is not None
        return self._centroids

    def _begin(self) -> None:
        points = torch.cat(self._waiting) if self._waiting else torch.zeros(0, 1)
        self._waiting.clear()
        self._centroids = fit_kmeans(points, self.clusters, seed=self.seed)
        self._counts = torch.bincount(assign(points, self._centroids), minlength=self.clusters).float()

    def _follow(self, points: Tensor) -> None:
        assert self._centroids is not None
        labels = assign(points, self._centroids)
        counts = torch.bincount(labels, minlength=self.clusters).float()
        sums = torch.zeros_like(self._centroids).index_add_(0, labels, points)
        self._counts = self._counts.to(points.device) + counts
        step = (sums - counts[:, None] * self._centroids) / self._counts.clamp(min=1)[:, None]
        self._centroids = self._centroids + step
        starved = self._counts < STARVED * self._counts.sum() / self.clusters
        if len(points) and bool(starved.any()):
            picks = torch.randint(len(points), (int(starved.sum()),), generator=self._generator, device="cpu")
            self._centroids[starved] = points[picks.to(points.device)]
            self._counts[starved] = STARVED * self._counts.sum() / self.clusters


def stream_kmeans(batches: Iterable[Tensor], clusters: int, *, seed: int) -> Tensor:
    """Centroids (K, D) of batches of points (N, D); see `StreamedKmeans`."""
    found = StreamedKmeans(clusters, seed=seed)
    for points in batches:
        found.add(points)
    return found.centroids()


def _plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ seeding (Arthur & Vassilvitskii 2007): draw in proportion to the squared distance."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator, device="cpu"))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    for _ in range(clusters - 1):
        weight = distance if float(distance.sum()) > 0 else torch.ones_like(distance)
        chosen.append(int(torch.multinomial(weight.cpu(), 1, generator=generator)))
        distance = torch.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen].clone()
