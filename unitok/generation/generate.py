"""Generation: prefill the prompts, then decode one id per sequence and step until the grammar or the limit ends it.

B sequences, V vocabulary, C width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.kv_cache import KVCache, PrefillAttend, StepAttend
from unitok.decoder.model import Decoder, pack_documents
from unitok.frontends.prompt_vectors import PromptVectors, first_place, joined
from unitok.generation.allowed_ids import MaskTable, rows_of
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.fast_step import Stepper, steppable
from unitok.generation.sampling import GREEDY, Sampling, choose, masked_log_softmax
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.seeds import check_seed

LEAST_SHARED = 16
"""Positions that prompts must have in common before they are computed once for all of them."""


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


class Generation:
    """A batch on its way: `step` gives one id to every sequence that still runs.

    Arguments and errors are those of `generate`.
    """

    @torch.inference_mode()
    def __init__(
        self,
        decoder: Decoder,
        prompts: Sequence[np.ndarray],
        *,
        automata: Sequence[Automaton] | None = None,
        sampling: Sampling = GREEDY,
        max_new_tokens: int | Sequence[int],
        seed: int | Sequence[int] = 0,
        eos: int | None = None,
        stepper: Stepper | None = None,
        vectors: Sequence[PromptVectors | None] | None = None,
        graphs: CudaGraphs | None = None,
    ) -> None:
        count = len(prompts)
        self.limits = [max_new_tokens] * count if isinstance(max_new_tokens, int) else list(max_new_tokens)
        capacity = max(len(prompt) + limit for prompt, limit in zip(prompts, self.limits))
        if capacity > decoder.config.max_positions:
            raise InputError(
                f"prompt and output take up to {capacity} positions, the model has {decoder.config.max_positions}; "
                "shorten the input or max_new_tokens"
            )
        self.decoder, self.automata, self.sampling, self.eos = decoder, automata, sampling, eos
        self.stepper = stepper or stepper_of(decoder)
        self.masks = MaskTable(decoder.config.vocab_size, decoder.embedding.device)
        self.alive = list(range(count))
        """Sequences that still run, in the order of the cache's rows."""
        self.ids: list[list[int]] = [[] for _ in range(count)]
        self.logprobs: list[list[float]] = [[] for _ in range(count)]
        self.reasons = ["length"] * count
        self.random = draws_of(seed, prompts) if sampling.temperature > 0 else []
        """Uniform numbers of each sequence: two for every step, counted from its first."""
        self.graphs = graphs if graphs is not None and graphs.fit(decoder, count, capacity, sampling) else None
        self.cache, self.hidden = prefill(
            decoder, prompts, capacity, given_lengths(prompts, automata), vectors,
            cache=None if self.graphs is None else self.graphs.fresh_cache(count),
        )  # fmt: skip
        self.prompts = [len(prompt) for prompt in prompts]
        self.longest = max(self.prompts)
        """Largest length in the cache."""
        self._next: Tensor | None = None

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int]]:
        """(sequence, id) of every sequence that runs; empty when all have ended.

        The ids of the step before enter the decoder only now: whoever streams has them while this is computed.
        """
        if not self.alive:
            return []
        allowed = None if self.automata is None else self.masks([self.automata[index] for index in self.alive])
        uniform = None
        if self.sampling.temperature > 0:
            uniform = torch.from_numpy(np.stack([self.random[index].random(2) for index in self.alive]))
            uniform = uniform.to(self.hidden.device)
        if self._next is not None:
            self.longest += 1
        if self._next is not None and self.graphs is not None:
            ids, chosen = self.graphs.step(self._next, allowed, uniform)
        else:
            if self._next is not None:
                self.hidden = decode_step(self.decoder, self._next, self.cache, self.longest, self.stepper)
            logits = self.decoder.logits(self.hidden) if self.stepper is None else self.stepper.logits(self.hidden)
            ids, chosen = choose(logits, allowed, self.sampling, uniform, [self.ids[index] for index in self.alive])
        # One copy of both: the host waits for the device once a step. Ids are exact in float64.
        drawn, logprobs = torch.stack([ids.double(), chosen.double()]).tolist()
        made = [(index, int(token)) for index, token in zip(self.alive, drawn)]
        ended = self._record(made, logprobs)
        if ended and len(ended) < len(self.alive):
            order = self.cache.drop(ended)
            ids = ids[torch.tensor(order, device=ids.device)]
            self.alive = [self.alive[row] for row in order]
            # What is read shrinks with the longest; a single row's length is taken from this number.
            self.longest = max(self.prompts[index] + len(self.ids[index]) for index in self.alive) - 1
        elif ended:
            self.alive = []
        self._next = ids
        return made

    def _record(self, made: Sequence[tuple[int, int]], logprobs: Sequence[float]) -> list[int]:
        """Append one id per running sequence; returns the rows that have ended."""
        ended = []
        for row, ((index, token), logprob) in enumerate(zip(made, logprobs)):
            self.ids[index].append(token)
            self.logprobs[index].append(logprob)
            if self.automata is not None:
                self.automata[index].advance(token)
                done = self.automata[index].finished
            else:
                done = token == self.eos
            if done:
                self.reasons[index] = "eos"
            if done or len(self.ids[index]) >= self.limits[index]:
                ended.append(row)
        return ended

    def results(self) -> list[Generated]:
        """What every sequence has produced so far."""
        return [
            Generated(np.asarray(ids, dtype=np.int64), np.asarray(logprobs, dtype=np.float32), reason)
            for ids, logprobs, reason in zip(self.ids, self.logprobs, self.reasons)
        ]


def generate(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    *,
    automata: Sequence[Automaton] | None = None,
    sampling: Sampling = GREEDY,
    max_new_tokens: int | Sequence[int],
    seed: int | Sequence[int] = 0,
    eos: int | None = None,
    stepper: Stepper | None = None,
    vectors: Sequence[PromptVectors | None] | None = None,
    graphs: CudaGraphs | None = None,
) -> list[Generated]:
    """Continue prompts; each result is the same alone as in a batch.

    Args:
        decoder: the model; its weights' type is the precision.
        prompts: ids, (T_i,) each; what all of them begin with is computed once.
        automata: one per prompt; None leaves every id allowed.
        sampling: how ids are chosen.
        max_new_tokens: most ids per sequence.
        seed: of the draws, one for all or one for each. What a sequence draws at a step is a function of its seed, its
            prompt and the step; equal prompts with equal seeds give equal answers.
        eos: id that ends a sequence where there is no automaton.
        stepper: takes the steps, for instance with int8 weights; made from the decoder where None.
        vectors: those that stand in for embedding rows in each prompt.
        graphs: take the steps instead where they fit the decoder, the batch and the sampling.

    Raises:
        InputError: a prompt with its limit does not fit the decoder's positions.
    """
    if not prompts:
        return []
    running = Generation(
        decoder, prompts, automata=automata, sampling=sampling, max_new_tokens=max_new_tokens, seed=seed, eos=eos,
        stepper=stepper, vectors=vectors, graphs=graphs,
    )  # fmt: skip
    while running.step():
        pass
    return running.results()


def draws_of(seed: int | Sequence[int], prompts: Sequence[np.ndarray]) -> list[np.random.Generator]:
    """Random numbers of each sequence: of its own seed and prompt, whatever stands beside it in the batch.

    The prompt is among them so that unlike prompts with one seed have nothing to do with each other.
    """
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * len(prompts)
    if len(seeds) != len(prompts):
        raise InputError(f"{len(seeds)} seeds for {len(prompts)} sequences; give one for all, or one for each")
    marks = [zlib.crc32(np.asarray(prompt).astype("<i8").tobytes()) for prompt in prompts]
    return [np.random.default_rng([check_seed(one), mark]) for one, mark in zip(seeds, marks)]


def stepper_of(decoder: Decoder) -> Stepper | None:
    """The quick way to take steps, or None where a decoder has parts that only `Decoder.run` knows."""
    return Stepper(decoder) if steppable(decoder) else None


def shared_prefix(prompts: Sequence[np.ndarray]) -> int:
    """Positions that all prompts begin with, if it pays to compute them once; one of each is left to end on."""
    if len(prompts) < 2:
        return 0
    most = min(len(prompt) for prompt in prompts) - 1
    first = np.asarray(prompts[0])[:most]
    same = np.logical_and.reduce([np.asarray(prompt)[:most] == first for prompt in prompts[1:]])
    shared = most if same.all() else int(same.argmin())
    return shared if shared >= LEAST_SHARED else 0


def given_lengths(prompts: Sequence[np.ndarray], automata: Sequence[Automaton] | None) -> list[int]:
    """Positions of each prompt that a decoder with `prefix_lm` reads both ways: not the beginning of an answer.

    Without automata nothing is known of such a beginning, and the whole prompt is meant.
    """
    return [len(prompt) for prompt in prompts] if automata is None else [automaton.given for automaton in automata]


def prefill(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    capacity: int,
    given: Sequence[int] | None = None,
    vectors: Sequence[PromptVectors | None] | None = None,
    *,
    cache: KVCache | None = None,
) -> tuple[KVCache, Tensor]:
    """Run prompts once; returns the filled cache and the last hidden state (B, C) of each.

    `given` are their leading positions that see each other where the decoder has `prefix_lm`, all where None; `vectors`
    stand in for embedding rows. `cache` is an empty one to fill, for these prompts.
    """
    device, dtype = decoder.embedding.device, decoder.embedding.dtype
    if cache is None:
        cache = KVCache(decoder.config, len(prompts), capacity, dtype=dtype, device=device)
    shared = 0 if decoder.config.prefix_lm else shared_prefix(prompts)  # else it would see what follows it
    before = first_place(vectors)
    if before is not None and shared > before:
        shared = before if before >= LEAST_SHARED else 0  # equal placeholders hold different vectors
    if shared:
        first, _ = prefill(decoder, [prompts[0][:shared]], shared)
        cache.kv[:, :, :, :shared] = first.kv
    packed = pack_documents([prompt[shared:] for prompt in prompts], device)
    both_ways = decoder.prefix(
        packed.cu_seqlens, torch.tensor(given or given_lengths(prompts, None), device=device), len(packed.ids)
    )
    attend = PrefillAttend(cache, packed.cu_seqlens, packed.max_seqlen, shared, both_ways, packed.lengths)
    starts = [start - shared for start in np.cumsum([0, *packed.lengths[:-1]]).tolist()]
    x = decoder.embed(packed.ids, *joined(vectors, starts, device))
    hidden = decoder.run(x, packed.positions + shared, attend)
    return cache, hidden[packed.cu_seqlens[1:].long() - 1]


def decode_step(decoder: Decoder, ids: Tensor, cache: KVCache, longest: int, stepper: Stepper | None = None) -> Tensor:
    """Append ids (B,) to the sequences in the cache; returns their hidden states (B, C)."""
    if stepper is not None:
        return stepper(ids, cache, longest)
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
    given: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Teacher-forced log-probability of each id of each continuation, (N_i,) float32.

    With automata, among the ids that each state allows: what generation reports as `logprobs`. `given` as in `prefill`.
    """
    documents = [np.concatenate([prompt, rest]) for prompt, rest in zip(prompts, continuations)]
    packed = pack_documents(documents, decoder.embedding.device)
    lengths = torch.tensor(given or given_lengths(prompts, automata), device=packed.ids.device)
    hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=lengths)
    results = []
    start = 0
    for row, (prompt, rest) in enumerate(zip(prompts, continuations)):
        first = start + len(prompt) - 1
        logits = decoder.logits(hidden[first : first + len(rest)])
        allowed = None
        if automata is not None:
            automaton = automata[row].copy()
            states = []
            for token in rest.tolist():
                states.append(automaton.allowed())
                automaton.advance(token)
            allowed = rows_of(states, decoder.config.vocab_size, logits.device)
        logprobs = masked_log_softmax(logits, allowed)
        target = torch.as_tensor(rest, dtype=torch.int64, device=logits.device)
        results.append(logprobs.gather(1, target[:, None])[:, 0].cpu().numpy())
        start += len(prompt) + len(rest)
    return results
