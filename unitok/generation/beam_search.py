"""Beam search with n-best lists: searches that are stepped together, each as it is alone.

N searches, K beams of a search, R rows (the beams of all searches, one search after another), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.fast_step import Stepper
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.allowed_ids import MaskTable
from unitok.generation.framed import check_slots, prompt_inputs
from unitok.generation.prefill import decode_step, prefill, stepper_of
from unitok.generation.sampling import masked_log_softmax
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.positions import Frames


@dataclass(frozen=True)
class Hypothesis:
    """One finished output."""

    ids: np.ndarray
    """(N,) int64, the end of sequence included."""
    logprob: float
    """Sum of the log-probabilities; teacher forcing reproduces it."""
    score: float
    """logprob ÷ length ** length_penalty: what the list is sorted by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest:
    """One search, in ids. What it finds depends on nothing that runs beside it."""

    prompt: np.ndarray
    """(T,) ids."""
    automaton: Automaton
    """Says which ids may follow; its limit bounds the length, so that every hypothesis is well formed and finished."""
    beams: int = 5
    """Beams that go on from step to step."""
    n_best: int = 1
    """Most hypotheses of the result."""
    length_penalty: float = 1.0
    """Power of the length that sums are divided by; 0 leaves them as they are."""
    vectors: PromptVectors | None = None
    """Those that stand in for embedding rows of the prompt."""
    frames: Frames | None = None
    """Codes beside ids of the prompt."""


@dataclass
class _Beam:
    ids: list[int]
    logprob: float
    automaton: Automaton


@dataclass(eq=False)
class _Search:
    """A request on its way."""

    request: SearchRequest
    alive: list[_Beam]
    finished: list[Hypothesis] = field(default_factory=list)

    def grow(self, candidates: Sequence[tuple[float, int]], vocabulary: int) -> list[int]:
        """Go on with the best of (sum, beam · V + id), best first; returns the beam that each new one comes from."""
        request = self.request
        grown: list[_Beam] = []
        parents: list[int] = []
        for value, index in candidates:
            if value == -np.inf or len(grown) == request.beams:
                continue
            parent, token = divmod(index, vocabulary)
            follower = self.alive[parent].automaton.copy()
            follower.advance(token)
            ids = [*self.alive[parent].ids, token]
            if follower.finished:
                score = value / len(ids) ** request.length_penalty
                self.finished.append(Hypothesis(np.asarray(ids), value, score))
            else:
                grown.append(_Beam(ids, value, follower))
                parents.append(parent)
        best = sorted(self.finished, key=lambda one: -one.score)
        self.finished = best[: max(request.n_best, request.beams)]
        self.alive = grown
        if grown and self._settled():
            self.alive, parents = [], []
        return parents

    def _settled(self) -> bool:
        """True where no running beam can still enter a full list: sums only fall, lengths are at most the limit."""
        request = self.request
        if len(self.finished) < max(request.n_best, request.beams):
            return False
        power = max(request.length_penalty, 0.0)
        best = max(beam.logprob / (len(beam.ids) + max(beam.automaton.remaining, 1)) ** power for beam in self.alive)
        return best < self.finished[-1].score


class BeamBatch:
    """Searches that are stepped together: `add` at any time, `step` gives an id to each beam of those that run.

    Args:
        decoder: the model.
        stepper: takes the steps; None for decoders with parts that only `Decoder.run` knows.
        layout: reads the codes beside ids of prompts.
    """

    def __init__(self, decoder: Decoder, stepper: Stepper | None, *, layout: CodebookLayout | None = None) -> None:
        self.decoder, self.stepper, self.layout = decoder, stepper, layout
        self.masks = MaskTable(decoder.config.vocab_size, decoder.embedding.device)
        self.searches: dict[int, _Search] = {}
        self.waiting: list[int] = []
        """Numbers of those whose prompts have not been read."""
        self.running: list[int] = []
        """Numbers of those that run, in the order of the cache's rows."""
        self._added = 0
        self._cache: KVCache | None = None

    def add(self, request: SearchRequest) -> int:
        """Take in a search, which runs from the next step on; returns its number.

        Raises:
            InputError: fewer than one beam, or codes beside ids of a prompt where no layout has any.
        """
        if request.beams < 1:
            raise InputError(f"beams is {request.beams}: give 1 or more")
        if request.frames is not None:
            check_slots(request.frames, self.layout, len(request.prompt))
        number, self._added = self._added, self._added + 1
        self.searches[number] = _Search(request, [_Beam([], 0.0, request.automaton.copy())])
        self.waiting.append(number)
        return number

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self.running or self.waiting)

    def take(self, number: int) -> list[Hypothesis]:
        """The `n_best` best outputs of a search that has ended, best first; it is forgotten here."""
        assert number not in self.running and number not in self.waiting
        search = self.searches.pop(number)
        return search.finished[: search.request.n_best]

    @torch.inference_mode()
    def step(self) -> list[int]:
        """One more id for every beam; returns the numbers of the searches that have ended with it."""
        if not self.busy:
            return []
        hidden = self._hidden()
        logits = self.decoder.logits(hidden) if self.stepper is None else self.stepper.logits(hidden)
        beams = [beam for number in self.running for beam in self.searches[number].alive]
        logprobs = masked_log_softmax(logits, self.masks([beam.automaton for beam in beams]))
        so_far = torch.tensor([beam.logprob for beam in beams], dtype=torch.float64, device=logits.device)
        candidates = self._candidates(logprobs.double() + so_far[:, None])
        kept: list[int] = []
        first = 0
        for number, best in zip(self.running, candidates):
            search = self.searches[number]
            rows = len(search.alive)
            kept += [first + parent for parent in search.grow(best, logprobs.shape[1])]
            first += rows
        filled = self._longest(self.running) - 1 if kept else 0  # the new ids have not entered it
        ended = [number for number in self.running if not self.searches[number].alive]
        self.running = [number for number in self.running if self.searches[number].alive]
        if not kept:
            self._cache = None
        else:
            assert self._cache is not None
            self._cache.select(torch.tensor(kept, device=logits.device), filled)
        return ended

    def _candidates(self, sums: Tensor) -> list[list[tuple[float, int]]]:
        """The best (sum, beam · V + id) of each search, best first, from (R, V) sums of all.

        Twice as many candidates as beams: however many of them end, enough are left to go on with.
        """
        running = [self.searches[number] for number in self.running]
        counts, vocabulary = [len(search.alive) for search in running], sums.shape[1]
        most = max(counts)
        if min(counts) < most:  # after the prompt a search has one beam
            rows = [index * most + row for index, count in enumerate(counts) for row in range(count)]
            padded = sums.new_full((len(counts) * most, vocabulary), -torch.inf)
            padded[torch.tensor(rows, device=sums.device)] = sums
            sums = padded
        wanted = 2 * max(search.request.beams for search in running)
        values, places = sums.view(len(counts), -1).topk(min(wanted, most * vocabulary))
        return [
            list(zip(value, place))[: 2 * search.request.beams]
            for search, value, place in zip(running, values.tolist(), places.tolist())
        ]

    def _hidden(self) -> Tensor:
        """Last hidden state (R, C) of each beam: of those that run after their next id, of new ones after the prompt;
        new rows stand behind the others."""
        found: list[Tensor] = []
        if self._cache is not None:
            beams = [beam for number in self.running for beam in self.searches[number].alive]
            last = torch.tensor([beam.ids[-1] for beam in beams], device=self.decoder.embedding.device)
            longest = self._longest(self.running)
            found.append(decode_step(self.decoder, last, self._cache, longest, self.stepper))
        if new := self.waiting:
            self.waiting = []
            requests = [self.searches[number].request for number in new]
            prompts = [one.prompt for one in requests]
            vectors = [
                prompt_inputs(self.decoder, self.layout, one.prompt, one.vectors, one.frames) for one in requests
            ]
            cache, hidden = prefill(
                self.decoder, prompts, max(len(one.prompt) + one.automaton.remaining for one in requests),
                [one.automaton.given for one in requests],
                vectors if any(one is not None for one in vectors) else None,
            )  # fmt: skip
            if self._cache is None:
                self._cache = cache
            else:
                self._cache.join(cache, self._longest(self.running))
            self.running += new
            found.append(hidden)
        return found[0] if len(found) == 1 else torch.cat(found)

    def _longest(self, numbers: Sequence[int]) -> int:
        """Largest length of these searches once the ids that their beams end with have entered the cache."""
        running = [self.searches[number] for number in numbers]
        return max(len(one.request.prompt) + len(one.alive[0].ids) for one in running if one.alive)


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
    request = SearchRequest(
        prompt=prompt, automaton=automaton, beams=beams, n_best=n_best, length_penalty=length_penalty, vectors=vectors
    )
    return search_together(decoder, [request], stepper=stepper or stepper_of(decoder))[0]


def search_together(
    decoder: Decoder, requests: Sequence[SearchRequest], *, stepper: Stepper | None,
    layout: CodebookLayout | None = None,
) -> list[list[Hypothesis]]:  # fmt: skip
    """`beam_search` of several requests at once: each list is the same alone, up to the rounding of sums."""
    batch = BeamBatch(decoder, stepper, layout=layout)
    numbers = [batch.add(request) for request in requests]
    while batch.busy:
        batch.step()
    return [batch.take(number) for number in numbers]
