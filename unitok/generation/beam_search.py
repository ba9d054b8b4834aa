"""Beam search with n-best lists.

K beams, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.allowed_ids import MaskTable
from unitok.generation.fast_step import Stepper
from unitok.generation.prefill import decode_step, prefill, stepper_of
from unitok.generation.sampling import masked_log_softmax
from unitok_tokenizers.grammar.automaton import Automaton


@dataclass(frozen=True)
class Hypothesis:
    """One finished output."""

    ids: np.ndarray
    """(N,) int64, the end of sequence included."""
    logprob: float
    """Sum of the log-probabilities; teacher forcing reproduces it."""
    score: float
    """logprob ÷ length ** length_penalty: what the list is sorted by."""


@dataclass
class _Beam:
    ids: list[int]
    logprob: float
    automaton: Automaton


@torch.inference_mode()
def beam_search(
    decoder: Decoder,
    prompt: np.ndarray,
    automaton: Automaton,
    *,
    beams: int = 5,
    n_best: int = 1,
    length_penalty: float = 1.0,
    stepper: Stepper | None = None,
    vectors: PromptVectors | None = None,
) -> list[Hypothesis]:
    """The `n_best` highest-scoring outputs that the search found, best first.

    The automaton's limit bounds the length, so every hypothesis is well formed and finished. `vectors` stand in for
    embedding rows in the prompt.
    """
    capacity = len(prompt) + automaton.remaining
    cache, hidden = prefill(decoder, [prompt], capacity, [automaton.given], [vectors])
    stepper = stepper or stepper_of(decoder)
    device = hidden.device
    masks = MaskTable(decoder.config.vocab_size, device)
    alive = [_Beam([], 0.0, automaton.copy())]
    finished: list[Hypothesis] = []
    longest = len(prompt)
    while alive:
        logits = decoder.logits(hidden) if stepper is None else stepper.logits(hidden)
        logprobs = masked_log_softmax(logits, masks([beam.automaton for beam in alive]))
        so_far = torch.tensor([beam.logprob for beam in alive], dtype=torch.float64, device=device)
        sums = logprobs.double() + so_far[:, None]
        # Twice as many candidates as beams: however many of them end, enough are left to go on with.
        values, flat = sums.flatten().topk(min(2 * beams, sums.numel()))
        grown: list[_Beam] = []
        parents: list[int] = []
        for value, index in zip(values.tolist(), flat.tolist()):
            if value == -np.inf or len(grown) == beams:
                continue
            parent, token = divmod(index, logprobs.shape[1])
            follower = alive[parent].automaton.copy()
            follower.advance(token)
            ids = [*alive[parent].ids, token]
            if follower.finished:
                finished.append(Hypothesis(np.asarray(ids), value, value / len(ids) ** length_penalty))
            else:
                grown.append(_Beam(ids, value, follower))
                parents.append(parent)
        finished = sorted(finished, key=lambda one: -one.score)[: max(n_best, beams)]
        alive = grown
        if not alive or _settled(alive, finished, beams, length_penalty):
            break
        cache.select(torch.tensor(parents, device=device), longest)
        longest += 1
        last = torch.tensor([beam.ids[-1] for beam in alive], device=device)
        hidden = decode_step(decoder, last, cache, longest, stepper)
    return finished[:n_best]


def _settled(alive: list[_Beam], finished: list[Hypothesis], beams: int, length_penalty: float) -> bool:
    """True where no running beam can still enter a full list: sums only fall, lengths are at most the limit."""
    if len(finished) < beams:
        return False
    best = max(
        beam.logprob / (len(beam.ids) + max(beam.automaton.remaining, 1)) ** max(length_penalty, 0.0) for beam in alive
    )
    return best < finished[-1].score
