"""Samplers: pure functions from logits and uniform numbers to ids.

B sequences, V vocabulary.
Each sequence brings its own uniform numbers, so that what it draws does not depend on its neighbors in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError

TEMPERATURES = (1e-6, 1e6)
"""Beyond these, logits divided by them leave float32."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next id is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable id."""
    top_k: int = 0
    """Keep this many most probable ids; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of ids with at least this probability."""
    repetition_window: int = 0
    """Repetition-aware sampling: generated ids that are looked back at; 0 switches it off."""
    repetition_share: float = 0.1
    """Share of the window that an id may fill before it is drawn again from the whole distribution."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "repetition_share"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int | float):
                raise InputError(f"{name} is {value!r}: give a number")
        for name in ("top_k", "repetition_window"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int):
                raise InputError(f"{name} is {value!r}: give a whole number")
        low, high = TEMPERATURES
        if self.temperature != 0 and not low <= self.temperature <= high:
            raise InputError(f"temperature is {self.temperature}: it must be 0 (greedy), or from {low:g} to {high:g}")
        if not 0 <= self.repetition_share <= 1:
            raise InputError(f"repetition_share is {self.repetition_share}: a share lies between 0 and 1")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it lies in (0, 1]")
        if self.top_k < 0 or self.repetition_window < 0:
            raise InputError(f"top_k is {self.top_k}, repetition_window {self.repetition_window}: neither below 0")


GREEDY = Sampling(temperature=0.0)


def masked_log_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """(B, V) log-probabilities in float32 among the allowed ids, -inf elsewhere."""
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return logits.log_softmax(-1)


def filter_logits(logits: Tensor, sampling: Sampling) -> Tensor:
    """Temperature, top-k and top-p: (B, V) → (B, V) with -inf where an id is excluded."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        kth = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if sampling.top_p < 1.0:
        ordered, order = logits.sort(dim=-1, descending=True)
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        # Keep an id while what stands before it is short of top_p: the first always stays.
        logits = torch.empty_like(logits).scatter_(-1, order, ordered.masked_fill(before >= sampling.top_p, -torch.inf))
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-transform sampling: logits (B, V), uniform (B,) in [0, 1) → ids (B,)."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    # Scaled by the total so that rounding never runs past the last id with a probability.
    ids = torch.searchsorted(cumulative, uniform.double()[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return ids.clamp(max=logits.shape[-1] - 1)


def sample(logits: Tensor, sampling: Sampling, uniform: Tensor | None, history: Sequence[Sequence[int]]) -> Tensor:
    """Next ids (B,).

    Args:
        logits: (B, V) float, -inf where an id is not allowed.
        sampling: how to choose.
        uniform: (B, 2) in [0, 1): the first number draws, the second draws again where a repetition was found; None
            where nothing is drawn, at temperature 0.
        history: generated ids of each sequence so far.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    assert uniform is not None
    ids = draw(filter_logits(logits, sampling), uniform[:, 0])
    if not sampling.repetition_window:
        return ids
    # Repetition-aware sampling (Chen et al. 2024, VALL-E 2): redraw from the unfiltered distribution.
    again = []
    for row, (past, token) in enumerate(zip(history, ids.tolist())):
        window = past[-sampling.repetition_window :]
        if window and sum(one == token for one in window) / sampling.repetition_window >= sampling.repetition_share:
            again.append(row)
    if again:
        rows = torch.tensor(again, device=ids.device)
        ids[rows] = draw(logits[rows] / sampling.temperature, uniform[rows, 1])
    return ids


def choose(
    logits: Tensor, allowed: Tensor | None, sampling: Sampling, uniform: Tensor | None,
    history: Sequence[Sequence[int]] = (),
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Next ids (B,) among those `allowed` (B, V), and their log-probabilities (B,); the rest as in `sample`."""
    logprobs = masked_log_softmax(logits, allowed)
    ids = sample(logprobs, sampling, uniform, history)
    return ids, logprobs.gather(1, ids[:, None])[:, 0]
