"""Generation: prefill the prompts, then decode one id per sequence and step until the grammar or the limit ends it.

B sequences, V vocabulary, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitok.cache import KVCache, PrefillAttend, StepAttend
from unitok.decoder import Decoder, pack_documents
from unitok.sampling import GREEDY, Sampling, sample
from unitok_tokenizers.automaton import Automaton
from unitok_tokenizers.errors import InputError


@dataclass(frozen=True)
class Generated:
    """What one sequence produced after its prompt."""

    ids: np.ndarray
    """(N,) int64, the end of sequence included where it was reached."""
    logprobs: np.ndarray
    """(N,) float32 log-probability of each id among the allowed ones, before temperature and filters."""
    finish_reason: str
    """eos, or length where the limit cut it short."""

    @property
    def score(self) -> float:
        """Sum of the log-probabilities."""
        return float(self.logprobs.sum())


class MaskTable:
    """Allowed-id masks of automaton states, one row per distinct state, on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.rows: dict[object, int] = {}
        self.table = torch.zeros(0, size, dtype=torch.bool, device=device)

    def __call__(self, automata: Sequence[Automaton]) -> Tensor:
        """(B, V) bool, True where an id is allowed."""
        fresh = []
        index = []
        for automaton in automata:
            key = automaton.state_key
            if key not in self.rows:
                self.rows[key] = len(self.rows)
                fresh.append(torch.from_numpy(automaton.mask(self.size)))
            index.append(self.rows[key])
        if fresh:
            self.table = torch.cat([self.table, torch.stack(fresh).to(self.device)])
        return self.table[torch.tensor(index, device=self.device)]


def masked_log_softmax(logits: Tensor, allowed: Tensor | None) -> Tensor:
    """(B, V) log-probabilities in float32 among the allowed ids, -inf elsewhere."""
    logits = logits.float()
    if allowed is not None:
        logits = logits.masked_fill(~allowed, -torch.inf)
    return logits.log_softmax(-1)


class _Batch:
    """The sequences that still run, and where they came from."""

    def __init__(self, count: int, seed: int) -> None:
        self.alive = list(range(count))
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.logprobs: list[list[float]] = [[] for _ in range(count)]
        self.reasons = ["length"] * count
        self.random = [np.random.default_rng([seed, index]) for index in range(count)]


@torch.inference_mode()
def generate(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    *,
    automata: Sequence[Automaton] | None = None,
    sampling: Sampling = GREEDY,
    max_new_tokens: int | Sequence[int],
    seed: int = 0,
    eos: int | None = None,
) -> list[Generated]:
    """Continue prompts; each result is the same alone as in a batch.

    Args:
        decoder: the model; its weights' type is the precision.
        prompts: ids, (T_i,) each.
        automata: one per prompt; None leaves every id allowed.
        sampling: how ids are chosen.
        max_new_tokens: most ids per sequence.
        seed: with the sequence's index, seeds its draws.
        eos: id that ends a sequence where there is no automaton.

    Raises:
        InputError: a prompt with its limit does not fit the decoder's positions.
    """
    if not prompts:
        return []
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    capacity = max(len(prompt) + limit for prompt, limit in zip(prompts, limits))
    if capacity > decoder.config.max_positions:
        raise InputError(
            f"prompt and output take up to {capacity} positions, the model has {decoder.config.max_positions}; "
            "shorten the input or max_new_tokens"
        )
    device = decoder.embedding.device
    masks = MaskTable(decoder.config.vocab_size, device)
    running = list(automata) if automata is not None else None
    batch = _Batch(len(prompts), seed)
    cache, hidden = prefill(decoder, prompts, capacity)
    longest = max(len(prompt) for prompt in prompts)
    while True:
        allowed = None if running is None else masks([running[index] for index in batch.alive])
        logprobs = masked_log_softmax(decoder.logits(hidden), allowed)
        uniform = torch.from_numpy(np.stack([batch.random[index].random(2) for index in batch.alive]))
        ids = sample(logprobs, sampling, uniform.to(device), [batch.ids[index] for index in batch.alive])
        chosen = logprobs.gather(1, ids[:, None])[:, 0]
        kept = _record(batch, ids.tolist(), chosen.tolist(), running, limits, eos)
        if not kept:
            break
        if len(kept) < len(batch.alive):
            rows = torch.tensor(kept, device=device)
            cache.select(rows)
            ids = ids[rows]
            batch.alive = [batch.alive[row] for row in kept]
        longest += 1
        hidden = decode_step(decoder, ids, cache, longest)
    return [
        Generated(np.asarray(ids, dtype=np.int64), np.asarray(logprobs, dtype=np.float32), reason)
        for ids, logprobs, reason in zip(batch.ids, batch.logprobs, batch.reasons)
    ]


def _record(
    batch: _Batch,
    ids: Sequence[int],
    logprobs: Sequence[float],
    automata: Sequence[Automaton] | None,
    limits: Sequence[int],
    eos: int | None,
) -> list[int]:
    """Append one id per running sequence; returns the rows that go on."""
    kept = []
    for row, (index, token, logprob) in enumerate(zip(batch.alive, ids, logprobs)):
        batch.ids[index].append(token)
        batch.logprobs[index].append(logprob)
        if automata is not None:
            automata[index].advance(token)
        done = automata[index].finished if automata is not None else token == eos
        if done:
            batch.reasons[index] = "eos"
        elif len(batch.ids[index]) < limits[index]:
            kept.append(row)
    return kept


def prefill(decoder: Decoder, prompts: Sequence[np.ndarray], capacity: int) -> tuple[KVCache, Tensor]:
    """Run prompts once; returns the filled cache and the last hidden state (B, C) of each."""
    device, dtype = decoder.embedding.device, decoder.embedding.dtype
    cache = KVCache(decoder.config, len(prompts), capacity, dtype=dtype, device=device)
    packed = pack_documents(list(prompts), device)
    attend = PrefillAttend(cache, packed.cu_seqlens, packed.max_seqlen)
    hidden = decoder.run(decoder.embed(packed.ids), packed.positions, attend)
    return cache, hidden[packed.cu_seqlens[1:].long() - 1]


def decode_step(decoder: Decoder, ids: Tensor, cache: KVCache, longest: int) -> Tensor:
    """Append ids (B,) to the sequences in the cache; returns their hidden states (B, C)."""
    hidden = decoder.run(decoder.embed(ids), cache.lengths, StepAttend(cache, longest))
    cache.lengths += 1
    return hidden


@torch.inference_mode()
def score(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    continuations: Sequence[np.ndarray],
    *,
    automata: Sequence[Automaton] | None = None,
) -> list[np.ndarray]:
    """Teacher-forced log-probability of each id of each continuation, (N_i,) float32.

    With automata, among the ids that each state allows: what generation reports as `logprobs`.
    """
    documents = [np.concatenate([prompt, rest]) for prompt, rest in zip(prompts, continuations)]
    packed = pack_documents(documents, decoder.embedding.device)
    hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
    results = []
    start = 0
    for row, (prompt, rest) in enumerate(zip(prompts, continuations)):
        first = start + len(prompt) - 1
        logits = decoder.logits(hidden[first : first + len(rest)])
        allowed = None
        if automata is not None:
            automaton = automata[row].copy()
            masks = []
            for token in rest.tolist():
                masks.append(automaton.mask(decoder.config.vocab_size))
                automaton.advance(token)
            allowed = torch.from_numpy(np.stack(masks)).to(logits.device)
        logprobs = masked_log_softmax(logits, allowed)
        target = torch.as_tensor(rest, dtype=torch.int64, device=logits.device)
        results.append(logprobs.gather(1, target[:, None])[:, 0].cpu().numpy())
        start += len(prompt) + len(rest)
    return results
