"""Vectors that stand in for embedding rows in a prompt: where they stand, and how several prompts' are joined.

N vectors, C width, T packed positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PromptVectors:
    """The vectors of one prompt."""

    vectors: Tensor
    """(N, C) in the order of their places."""
    places: np.ndarray
    """(N,) rising positions in the prompt."""


def placed(prompt: np.ndarray, placeholder: int, vectors: Tensor) -> PromptVectors:
    """Vectors (N, C) at the N positions of a prompt that hold the id `placeholder`."""
    places = np.flatnonzero(np.asarray(prompt) == placeholder)
    assert len(places) == len(vectors), f"{len(vectors)} vectors for {len(places)} places"
    return PromptVectors(vectors, places)


def first_place(given: Sequence[PromptVectors | None] | None) -> int | None:
    """The earliest position of any vector: what prompts share ends before it. None without vectors."""
    places = [int(one.places[0]) for one in given or () if one is not None and len(one.places)]
    return min(places) if places else None


def joined(
    given: Sequence[PromptVectors | None] | None, starts: Sequence[int], device: torch.device
) -> tuple[Tensor | None, Tensor | None]:
    """(vectors (N, C), their packed positions (N,)) of prompts that start at `starts`; None without vectors."""
    found = [(one, start) for one, start in zip(given or (), starts) if one is not None]
    if not found:
        return None, None
    index = np.concatenate([one.places + start for one, start in found])
    return torch.cat([one.vectors.to(device) for one, _ in found]), torch.from_numpy(index).to(device)
