"""One thing to answer in local ids: its prompt, and how the answer is looked for and spoken.

S samples, F frames, Q codebooks, N vectors, C width of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from unitok.generation.sampling import Sampling
from unitok.inputs import Audio, check_tokens
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.seeds import check_seed, spread

Voice = Audio | None
"""A known speaker's name or a recording; None leaves the choice to the model."""


@dataclass(frozen=True, eq=False)
class SpokenChunk:
    """A piece that a `Listener` has cut: it is read as it is."""

    samples: np.ndarray
    """(S,) float32 at the rate of what reads it."""


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """One thing to generate, in tokens."""

    plan: SequenceSpec
    voice: str | np.ndarray | None = None
    """Voice of the unit vocoder: a known speaker or a voice vector."""
    speak: bool = False
    """Turn the units or codes into a waveform."""
    vectors: torch.Tensor | None = None
    """(N, C) of the plan's `lat` spans, in their order."""
    seed: int | None = None
    """Of its draws; None takes the one that all requests of a call are given."""
    sampling: Sampling | None = None
    """How its ids are chosen; None takes what all requests of a call are given."""
    limit: int | None = None
    """Most ids of its answer, marks and the end included; None takes what the model has learned of lengths."""

    def drawn_with(self, seed: int) -> int:
        """Its own seed, or the one that all are given; InputError for what is no seed."""
        return check_seed(seed if self.seed is None else self.seed)


def check_codes(codes: np.ndarray, stream: StreamInfo) -> np.ndarray:
    """(F, Q) int64 codes of a stream; InputError for another shape, or ids that it does not have."""
    if len(stream.cardinalities) == 1 and codes.ndim == 2 and codes.shape[1] == 1:
        codes = codes[:, 0]
    return check_tokens(codes, stream.cardinalities, stream.name).reshape(len(codes), -1)


def without_conditions(plan: SequenceSpec, kinds: Sequence[str]) -> SequenceSpec:
    """A plan without its conditions of these kinds, or without any where none is named: what guidance compares with.

    InputError where it has none of a kind.
    """
    given = list(dict.fromkeys(span.kind for span in plan.conditions))
    if not given or not set(kinds) <= set(given):
        wanted, there = ", ".join(kinds) or "conditions", ", ".join(given) or "no conditions"
        raise InputError(f"guidance compares with the prompt without its {wanted}; this one has {there}")
    kept = tuple(span for span in plan.conditions if kinds and span.kind not in kinds)
    return replace(plan, conditions=kept)


def seeded(requests: Sequence[PromptRequest], seed: int) -> list[PromptRequest]:
    """The same requests with a seed each, made of one and of their numbers: several draws of one, or of many apart."""
    return [replace(request, seed=one) for request, one in zip(requests, spread(seed, len(requests)))]
