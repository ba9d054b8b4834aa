"""Units of an encoder that somebody else has trained: its frames are clustered, or centroids come with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.pretrained import OWN, EncoderSource
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.centroids import read_centroids
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer


@dataclass(frozen=True, kw_only=True)
class ChosenUnits:
    """Which encoder stands behind units, and how its frames become them."""

    encoder: EncoderSource
    """Encoder and layer."""
    pool: int = 1
    """Frames whose mean becomes one unit."""
    centroids: Path | None = None
    """File of centroids; they are fitted where None."""

    def __post_init__(self) -> None:
        if self.pool < 1:
            raise InputError(f"--pool is {self.pool}: frames of a unit; give 1 or more")
        if self.encoder.layer is None and self.encoder.kind != OWN:
            raise InputError(
                f"--units {self.encoder.kind}:{self.encoder.folder} names no layer; add one, such as @6: units of the "
                "last layer are seldom the best"
            )


def fit_chosen_units(
    chosen: ChosenUnits,
    recordings: Callable[[int], Iterable[np.ndarray]],
    clusters: int,
    *,
    seed: int,
    compute: Compute,
) -> UnitTokenizer:
    """Units of an encoder.

    Args:
        chosen: what they are made of.
        recordings: samples a second → recordings (S,) float32 each, looked at once; the first of them a fair sample.
            Not asked for where the centroids are given.
        clusters: K; without meaning where centroids are given.
        seed: of every draw.
        compute: where frames are computed.

    Raises:
        InputError: a folder or a file that does not fit, or too few frames.
    """
    encoder = chosen.encoder.open().to(compute.device)
    layer, pool = chosen.encoder.layer, chosen.pool
    if chosen.centroids is None:
        given = recordings(encoder.sample_rate)
        return UnitTokenizer.fit_stream(encoder, given, clusters, seed=seed, layer=layer, pool=pool)
    centroids = read_centroids(chosen.centroids, width=encoder.width).to(compute.device)
    return UnitTokenizer(encoder, centroids, layer=layer, pool=pool)
