"""Samplers: pure functions from logits and uniform numbers to ids.

B sequences, V vocabulary.
Each sequence brings its own uniform numbers, so that what it draws does not depend on its neighbors in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS, MODALITIES, PROSODY_KINDS, SPEECH_KINDS

TEMPERATURES = (1e-6, 1e6)
"""Beyond these, logits divided by them leave float32."""
SPOKEN_KINDS = (*SPEECH_KINDS, *PROSODY_KINDS)
"""Kinds of spans that `speech_temperature` is of."""
MOST_GUIDANCE = 100.0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next id is chosen."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the most probable id."""
    speech_temperature: float | None = None
    """The same of units, codes and prosody, as far as an automaton tells them from text; None takes `temperature`."""
    top_k: int = 0
    """Keep this many most probable ids; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of ids with at least this probability."""
    repetition_window: int = 0
    """Repetition-aware sampling: generated ids that are looked back at; 0 switches it off."""
    repetition_share: float = 0.1
    """Share of the window that an id may fill; beyond it, it is drawn again from the whole distribution."""
    guidance: float = 1.0
    """Classifier-free guidance γ: logits become without + γ · (with − without), where "without" are those of the same
    prompt without its conditions. 1 switches it off; more follows the conditions more closely."""
    guidance_drop: tuple[str, ...] = ()
    """Kinds of the conditions that "without" lacks, such as voice; none named lacks all."""
    ban: tuple[str, ...] = ()
    """Of text and units: what an interleaved answer does not write."""
    loop_guard: bool = True
    """Close units and codes that go round in a cycle for longer than speech does (`unitok.generation.guards`)."""

    def __post_init__(self) -> None:
        for name in ("temperature", "speech_temperature", "top_p", "repetition_share", "guidance"):
            value = getattr(self, name)
            if name == "speech_temperature" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"{name} is {value!r}: give a number")
        for name in ("top_k", "repetition_window"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int):
                raise InputError(f"{name} is {value!r}: give a whole number")
        low, high = TEMPERATURES
        for name in ("temperature", "speech_temperature"):
            if (value := getattr(self, name)) and not low <= value <= high:
                raise InputError(f"{name} is {value}: it must be 0 (greedy), or from {low:g} to {high:g}")
        if not 0 <= self.repetition_share <= 1:
            raise InputError(f"repetition_share is {self.repetition_share}: a share lies between 0 and 1")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: it lies in (0, 1]")
        if self.top_k < 0 or self.repetition_window < 0:
            raise InputError(f"top_k is {self.top_k}, repetition_window {self.repetition_window}: neither below 0")
        if not 0 <= self.guidance <= MOST_GUIDANCE:  # not a number is neither
            raise InputError(f"guidance is {self.guidance}: give a number from 0 to {MOST_GUIDANCE:g}")
        if not isinstance(self.loop_guard, bool):
            raise InputError(f"loop_guard is {self.loop_guard!r}: give True or False")
        for name, known in (("guidance_drop", CONDITION_KINDS), ("ban", MODALITIES)):
            given = getattr(self, name)
            if not isinstance(given, tuple | list) or not set(given) <= set(known):
                raise InputError(f"{name} is {given!r}: give a tuple of {', '.join(known)}")
            object.__setattr__(self, name, tuple(given))  # a list, as JSON has it, would have no hash

    @property
    def draws(self) -> bool:
        """Whether anything is drawn."""
        return bool(self.temperature or self.speech_temperature)

    @property
    def guides(self) -> bool:
        """Whether a second row, of the prompt without its conditions, is computed beside each."""
        return self.guidance != 1.0

    @cached_property
    def of_speech(self) -> Sampling:
        """How the ids of speech are chosen."""
        if self.speech_temperature is None:
            return self
        return replace(self, temperature=self.speech_temperature, speech_temperature=None)


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
        out = before >= sampling.top_p
        out[..., 0] = False  # a share so small that float32 has none for it
        logits = torch.empty_like(logits).scatter_(-1, order, ordered.masked_fill(out, -torch.inf))
    return logits


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-transform sampling: logits (B, V), uniform (B,) in [0, 1) → ids (B,)."""
    cumulative = logits.double().softmax(-1).cumsum(-1)
    # Scaled by the total so that rounding never runs past the last id with a probability.
    ids = torch.searchsorted(cumulative, uniform.double()[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return ids.clamp(max=logits.shape[-1] - 1)


def guided(given: Tensor, without: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): logits (B, V) with and without the conditions, scales (B,) γ →
    (B, V) float32, without + γ · (with − without). A row that is both stays as it is."""
    without = without.float()
    return without + scale[:, None] * (given.float() - without)


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
    # Repetition-aware sampling (Chen et al. 2024, VALL-E 2, algorithm 1): redraw from the unfiltered distribution an
    # id whose share of the last K exceeds the threshold. Public code redraws from the threshold on.
    again = []
    for row, (past, token) in enumerate(zip(history, ids.tolist())):
        window = past[-sampling.repetition_window :]
        if window and sum(one == token for one in window) / sampling.repetition_window > sampling.repetition_share:
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
