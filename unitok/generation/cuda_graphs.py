"""Decoding steps replayed from CUDA graphs, one per batch size, captured by hand before the first request.

B sequences, V vocabulary.

On a GPU a step of a small batch is bound by starting its hundreds of kernels. A graph starts them all at once, if every
step does the same to the same memory: so the cache, the ids and what is allowed are buffers that stay where they are,
attention reads the whole capacity behind a mask, and the id is drawn inside and is the next step's input. Without a GPU
the same steps run as they are, which is what tests compare.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from unitok.decoder.fast_step import Stepper, fingerprint
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder
from unitok.generation.sampling import GREEDY, Sampling, choose
from unitok_tokenizers.errors import InputError

SIZES = (1, 2, 4, 8, 16, 32, 64)
WARM_UPS = 2
"""Steps before a capture: libraries set themselves up in their first calls, which a graph must not contain."""


class StaticStep:
    """One step of B rows of a cache over buffers of its own: ids in, next ids and their log-probabilities out."""

    def __init__(self, stepper: Stepper, cache: KVCache, sampling: Sampling) -> None:
        rows, device = len(cache.lengths), cache.lengths.device
        self.stepper, self.cache, self.sampling = stepper, cache, sampling
        self.ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self.allowed = torch.ones(rows, stepper.config.vocab_size, dtype=torch.bool, device=device)
        self.uniform = torch.zeros(rows, 2, dtype=torch.float64, device=device)
        self.logprobs = torch.zeros(rows, device=device)

    def __call__(self) -> None:
        """Take the step: the chosen ids replace those that came in."""
        hidden = self.stepper(self.ids, self.cache, self.cache.capacity, fixed=True)
        uniform = self.uniform if self.sampling.temperature > 0 else None
        ids, logprobs = choose(self.stepper.logits(hidden), self.allowed, self.sampling, uniform)
        self.ids.copy_(ids)
        self.logprobs.copy_(logprobs)


class User(Protocol):
    """Whoever takes captured steps."""

    @property
    def running(self) -> bool:
        """Whether it goes on with the cache."""


class CudaGraphs:
    """Steps of several batch sizes over one cache, captured here where the decoder lies on a GPU.

    A batch takes the smallest size that holds it. One at a time has the cache: others that run meanwhile take ordinary
    steps.

    Args:
        decoder: what is to be computed; its weights may change in place afterwards, unless it has low-rank updates,
            which were added to copies of them.
        capacity: positions of a prompt with its answer; every step reads that many.
        sizes: batch sizes.
        sampling: how ids are chosen; without what looks outside: a repetition window, guidance, a temperature of
            speech.
    """

    @torch.inference_mode()
    def __init__(
        self, decoder: Decoder, *, capacity: int, sizes: Sequence[int] = SIZES, sampling: Sampling = GREEDY
    ) -> None:
        if sampling.repetition_window or sampling.guides or sampling.speech_temperature is not None:
            raise InputError(
                f"sampling is {sampling}: captured steps choose ids without a repetition window, guidance or a "
                "temperature of speech; leave them out, or do not capture"
            )
        self.user: weakref.ref[User] | None = None
        """Who has, or had, the cache."""
        self.sampling, self.stepper = sampling, Stepper(decoder)
        self.addresses = _addresses(decoder)
        device, dtype = decoder.embedding.device, decoder.embedding.dtype
        self.cache = KVCache(decoder.config, max(sizes), capacity, dtype=dtype, device=device)
        self.steps: dict[int, tuple[StaticStep, Callable[[], None]]] = {}
        pool = None
        for size in sorted(sizes, reverse=True):  # the largest first: the others find room in its memory
            step = StaticStep(self.stepper, self.cache.first(size), sampling)
            replay: Callable[[], None] = step
            if device.type == "cuda":
                graph = capture(step, self.cache, pool)
                pool, replay = graph.pool(), graph.replay
            self.steps[size] = step, replay

    def free_for(self, user: User) -> bool:
        """Whether nobody else goes on with the cache."""
        other = None if self.user is None else self.user()
        return other is None or other is user or not other.running

    def fit(self, decoder: Decoder, count: int, capacity: int, sampling: Sampling) -> bool:
        """Whether these are steps of this decoder, for this many sequences and positions, choosing like that."""
        holds = count <= max(self.steps) and capacity <= self.cache.capacity
        same = self.addresses == _addresses(decoder) and self.stepper.fits(decoder)
        return holds and sampling == self.sampling and same

    def fresh_cache(self, count: int, user: User) -> KVCache:
        """The cache, empty, as one of `count` rows, and in use from now on."""
        assert self.free_for(user)
        self.user = weakref.ref(user)
        self.cache.lengths.zero_()
        return self.cache.first(count)

    @torch.inference_mode()
    def step(self, ids: Tensor, allowed: Tensor | None, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append ids (B,) to the first rows of the cache; returns (next ids (B,), their log-probabilities (B,)).

        What comes back is overwritten by the next step. `allowed` is (B, V) or (1, V), `uniform` (B, 2).
        """
        count = len(ids)
        step, replay = self.steps[min(size for size in self.steps if size >= count)]
        if ids.data_ptr() != step.ids.data_ptr():  # else they are there already, left by the step before
            step.ids[:count] = ids
        step.allowed[:count] = True if allowed is None else allowed
        if uniform is not None:
            step.uniform[:count] = uniform
        replay()
        return step.ids[:count], step.logprobs[:count]


def capture(step: StaticStep, cache: KVCache, pool: Any = None) -> torch.cuda.CUDAGraph:
    """A graph of a step, in a pool of memory that graphs share; leaves the cache empty."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(cache.lengths.device):  # streams are those of the current device
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(beside)
        with torch.cuda.graph(graph, pool=pool):
            step()
    cache.lengths.zero_()
    return graph


def _addresses(decoder: Decoder) -> list[int]:
    return [address for address, _ in fingerprint(decoder)]
