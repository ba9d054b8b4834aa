"""Sequences on their way: they come and go between steps, each with its own sampling, seed and limit.

B sequences, V vocabulary, T ids of a prompt, C width.
"""

from __future__ import annotations

import zlib
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
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.framed import (
    FramedSteps,
    FrameTrack,
    SlotOptions,
    ask_all,
    check_slots,
    pattern_of,
    prompt_inputs,
)
from unitok.generation.prefill import decode_step, prefill
from unitok.generation.sampling import GREEDY, Sampling, choose
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.seeds import check_seed


@dataclass(frozen=True)
class Generated:
    """What one sequence produced after its prompt."""

    ids: np.ndarray
    """(N,) int64, the end of sequence included where it was reached."""
    logprobs: np.ndarray
    """(N,) float32 log-probability of each id among the allowed ones, before temperature and filters."""
    finish_reason: str
    """eos; length where the limit cut it short; cancelled where it was taken back."""
    slots: np.ndarray | None = None
    """(N, S) int64 codes beside each id, -1 where there is none; None where the answer has no slots."""
    slot_logprobs: np.ndarray | None = None
    """(N, S) float32 log-probability of each code that a layout predicted, before temperature and filters; 0 beside."""
    framed: np.ndarray | None = None
    """(N,) bool: ids at positions with slots, be it that these hold nothing there."""

    @property
    def frames(self) -> Frames | None:
        """The codes beside those ids; None where the answer has no slots."""
        if self.slots is None or self.framed is None:
            return None
        return Frames(np.flatnonzero(self.framed), self.slots[self.framed])

    @property
    def score(self) -> float:
        """Sum of the log-probabilities, those of codes beside ids included."""
        return float(self.logprobs.sum()) + (0.0 if self.slot_logprobs is None else float(self.slot_logprobs.sum()))


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenRequest:
    """One sequence to continue, in ids. What it becomes depends on nothing that runs beside it."""

    prompt: np.ndarray
    """(T,) ids."""
    limit: int
    """Most ids that follow."""
    automaton: Automaton | None = None
    """Says which ids may follow, and follows them; None leaves every id allowed."""
    sampling: Sampling = GREEDY
    """How ids are chosen."""
    seed: int = 0
    """Of the draws: what is drawn at a step is a function of it, the prompt and the step."""
    vectors: PromptVectors | None = None
    """Those that stand in for embedding rows of the prompt."""
    eos: int | None = None
    """Id that ends it where there is no automaton."""
    frames: Frames | None = None
    """Codes beside ids of the prompt."""
    slots: SlotOptions | None = None
    """How codes come to stand beside ids of the answer; None where they do not."""


@dataclass(eq=False)
class _Sequence:
    """A request on its way."""

    request: TokenRequest
    random: np.random.Generator | None
    """Uniform numbers: two for every step, counted from its first; None where nothing is drawn."""
    track: FrameTrack | None = None
    """Codes beside its ids."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str = "length"

    def take(self, token: int, logprob: float) -> bool:
        """Append an id; returns whether it was the last."""
        request = self.request
        self.ids.append(token)
        self.logprobs.append(logprob)
        if request.automaton is not None:
            request.automaton.advance(token)
            done = request.automaton.finished
            if self.track is not None and self.track.last:
                request.automaton.end_span()
        else:
            done = token == request.eos
        if done:
            self.reason = "eos"
        return done or len(self.ids) >= request.limit

    @property
    def length(self) -> int:
        """Positions in the cache once its ids have entered it."""
        return len(self.request.prompt) + len(self.ids)


class Batch:
    """Sequences that are stepped together: `add` and `cancel` at any time, `step` gives an id to each that runs.

    Args:
        decoder: the model.
        stepper: takes the steps; None for decoders with parts that only `Decoder.run` knows.
        graphs: take the steps of sequences that were all added before the first, where they fit.
        rows: most sequences that run; others wait until some have ended. 0 for any number.
        layout: gives the codes beside ids.
    """

    def __init__(
        self, decoder: Decoder, stepper: Stepper | None, *, graphs: CudaGraphs | None = None, rows: int = 0,
        layout: CodebookLayout | None = None,
    ) -> None:  # fmt: skip
        self.decoder, self.stepper, self.graphs, self.rows = decoder, stepper, graphs, rows
        compiled = stepper is not None and stepper.compiled
        self.framed = None if layout is None else FramedSteps(decoder, layout, compiled=compiled)
        self.masks = MaskTable(decoder.config.vocab_size, decoder.embedding.device)
        self.sequences: dict[int, _Sequence] = {}
        self.waiting: list[int] = []
        """Numbers of those whose prompts have not been read."""
        self.alive: list[int] = []
        """Numbers of those that run, in the order of the cache's rows."""
        self._added = 0
        self._cache: KVCache | None = None
        self._longest = 0
        """Largest length in the cache."""
        self._next: Tensor | None = None
        """(B,) ids that have been chosen and not entered the decoder."""
        self._captured = False
        """Whether `graphs` take the steps."""

    # -- coming and going ---------------------------------------------------------------------------------------

    def add(self, request: TokenRequest) -> int:
        """Take in a sequence, which runs from the next step on; returns its number.

        Raises:
            InputError: a prompt with its limit does not fit the decoder's positions, a seed that is none, or codes
                beside ids where no layout has any, of another shape, or in steps of int8 weights.
        """
        prompt, config = np.asarray(request.prompt), self.decoder.config
        if request.limit < 1 or not len(prompt):
            raise InputError(f"limit is {request.limit}, the prompt has {len(prompt)} ids: give 1 or more of both")
        if int(prompt.min()) < 0 or int(prompt.max()) >= config.vocab_size:
            wrong = int(prompt.max()) if int(prompt.min()) >= 0 else int(prompt.min())
            raise InputError(f"the prompt holds id {wrong}, the model has {config.vocab_size}; give ids of this model")
        size, most = len(prompt) + request.limit, config.max_positions
        if size > most:
            raise InputError(
                f"prompt and output take up to {size} positions, the model has {most}; "
                "shorten the input or max_new_tokens"
            )
        check_seed(request.seed)
        random = draws_of(request.seed, request.prompt, request.frames) if request.sampling.temperature > 0 else None
        track = self._track(request)
        number, self._added = self._added, self._added + 1
        self.sequences[number] = _Sequence(request, random, track)
        self.waiting.append(number)
        return number

    def _track(self, request: TokenRequest) -> FrameTrack | None:
        """What follows the codes beside a request's ids; InputError for codes that cannot be."""
        layout = None if self.framed is None else self.framed.layout
        if request.frames is not None:
            check_slots(request.frames, layout, len(request.prompt))
        if request.slots is None:
            return None
        pattern = pattern_of(layout)
        if self.stepper is not None and self.stepper.int8:
            raise InputError(f"int8 steps take ids alone, {pattern.layout!r} has codes beside them: leave int8 out")
        random = draws_of(request.seed, request.prompt, request.frames, of=1)
        return FrameTrack(pattern, request.slots, request.sampling, request.prompt, random, request.automaton)

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """Stop a sequence; what it has produced stays to be taken. One that has ended stays as it is."""
        if number in self.waiting:
            self.waiting.remove(number)
        elif number in self.alive:
            self._drop([self.alive.index(number)])
        else:
            return
        self.sequences[number].reason = "cancelled"

    def result(self, number: int) -> Generated:
        """What a sequence has produced so far."""
        one = self.sequences[number]
        ids, logprobs = np.asarray(one.ids, dtype=np.int64), np.asarray(one.logprobs, dtype=np.float32)
        if one.track is None:
            return Generated(ids, logprobs, one.reason)
        return Generated(ids, logprobs, one.reason, *one.track.made())

    def slots_of(self, number: int) -> np.ndarray | None:
        """(S,) codes beside the newest id of a sequence; None where it stands at no position with slots."""
        track = self.sequences[number].track
        return None if track is None else track.newest()

    def take(self, number: int) -> Generated:
        """What a sequence has produced, which is forgotten here."""
        found = self.result(number)
        self.cancel(number)
        del self.sequences[number]
        return found

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return bool(self.alive or self.waiting)

    # -- steps --------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int]]:
        """(number, id) of every sequence that runs; empty when all have ended. Codes beside ids: `slots_of`.

        The ids of the step before enter the decoder only now: whoever streams has them while this is computed.

        Raises:
            InputError: what a request is given at a position is none of its codes; all stand where they stood.
        """
        if not self.busy:
            return []
        if self.framed is not None:
            ask_all(self.sequences[number].track for number in (*self.alive, *self._next_to_read()))
        if self._captured and self._next is not None and not self.waiting:
            assert self.graphs is not None
            self._longest += 1
            running = [self.sequences[number] for number in self.alive]
            return self._record(*self.graphs.step(self._next, self._allowed(running), self._uniform(running)), None)
        hidden = self._hidden()
        logits = self.decoder.logits(hidden) if self.stepper is None else self.stepper.logits(hidden)
        return self._record(*self._choose(logits, [self.sequences[number] for number in self.alive]), hidden)

    def _next_to_read(self) -> list[int]:
        """Numbers of those that wait and find room."""
        return self.waiting[: self.rows - len(self.alive)] if self.rows else self.waiting

    def _hidden(self) -> Tensor:
        """Last hidden state (B, C) of each sequence: of those that run after their next id, of new ones after the
        prompt; new rows stand behind the others."""
        found: list[Tensor] = []
        if self._next is not None:
            assert self._cache is not None
            self._longest += 1
            x = None if self.framed is None else self.framed.inputs(self._next, self._tracks())
            found.append(decode_step(self.decoder, self._next, self._cache, self._longest, self.stepper, x))
        if new := self._next_to_read():
            self.waiting = self.waiting[len(new) :]
            found.append(self._read(new))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _read(self, new: Sequence[int]) -> Tensor:
        """Run prompts into the cache; returns their last hidden states (N, C)."""
        requests = [self.sequences[number].request for number in new]
        prompts = [request.prompt for request in requests]
        capacity = max(len(request.prompt) + request.limit for request in requests)
        first = self._cache is None
        self._captured = first and self.graphs is not None and self._fit(self.graphs, requests, capacity)
        # Without an automaton nothing is known of an answer's beginning: the whole prompt is given.
        given = [len(one.prompt) if one.automaton is None else one.automaton.given for one in requests]
        layout = None if self.framed is None else self.framed.layout
        vectors = [prompt_inputs(self.decoder, layout, one.prompt, one.vectors, one.frames) for one in requests]
        cache, hidden = prefill(
            self.decoder, prompts, capacity, given, vectors if any(one is not None for one in vectors) else None,
            cache=self.graphs.fresh_cache(len(new)) if self._captured and self.graphs is not None else None,
        )  # fmt: skip
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache, self._longest)
        self._longest = max(self._longest, *map(len, prompts))
        self.alive += new
        return hidden

    def _fit(self, graphs: CudaGraphs, requests: Sequence[TokenRequest], capacity: int) -> bool:
        """Whether captured steps are these requests' steps."""
        if any(request.slots is not None for request in requests):
            return False
        ways = {request.sampling for request in requests}
        return len(ways) == 1 and graphs.fit(self.decoder, len(requests), capacity, ways.pop())

    # -- choosing -----------------------------------------------------------------------------------------------

    def _allowed(self, running: Sequence[_Sequence]) -> Tensor | None:
        """(B, V) or (1, V) ids that automata allow; None where nothing restricts any of them."""
        automata = [one.request.automaton for one in running]
        known = [one for one in automata if one is not None]
        if len(known) < len(automata):
            if not known:
                return None
            allowed = self.masks.table.new_ones(len(running), self.masks.size)
            allowed[[row for row, one in enumerate(automata) if one is not None]] = self.masks(known)
            return allowed
        return self.masks(known)

    def _uniform(self, running: Sequence[_Sequence]) -> Tensor | None:
        """(B, 2) numbers in [0, 1) of sequences that draw; None where none does."""
        if all(one.random is None for one in running):
            return None
        drawn = [np.zeros(2) if one.random is None else one.random.random(2) for one in running]
        return torch.from_numpy(np.stack(drawn)).to(self.decoder.embedding.device)

    def _choose(self, logits: Tensor, running: Sequence[_Sequence]) -> tuple[Tensor, Tensor]:
        """Next ids (B,) and their log-probabilities (B,), each as its own request says."""
        allowed, uniform = self._allowed(running), self._uniform(running)
        ways = {one.request.sampling for one in running}
        if len(ways) == 1:
            return choose(logits, allowed, ways.pop(), uniform, [one.ids for one in running])
        ids = torch.zeros(len(running), dtype=torch.int64, device=logits.device)
        logprobs = torch.zeros(len(running), device=logits.device)
        for sampling in ways:
            rows = [row for row, one in enumerate(running) if one.request.sampling == sampling]
            own = torch.tensor(rows, device=logits.device)
            ids[own], logprobs[own] = choose(
                logits[own],
                allowed if allowed is None or len(allowed) == 1 else allowed[own],
                sampling,
                None if uniform is None or not sampling.temperature else uniform[own],
                [running[row].ids for row in rows],
            )
        return ids, logprobs

    def _tracks(self) -> list[FrameTrack | None]:
        return [self.sequences[number].track for number in self.alive]

    def _record(self, ids: Tensor, logprobs: Tensor, hidden: Tensor | None) -> list[tuple[int, int]]:
        """Append one id to every running sequence, and let go those that have ended.

        `hidden` (B, C) chose the ids; None where no sequence has codes beside them.
        """
        # One copy of both: the host waits for the device once a step. Ids are exact in float64.
        drawn, chosen = torch.stack([ids.double(), logprobs.double()]).tolist()
        made = [(number, int(token)) for number, token in zip(self.alive, drawn)]
        if self.framed is not None and hidden is not None:
            self.framed.choose(hidden, ids, [token for _, token in made], self._tracks())
        takes = [self.sequences[number].take(token, logprob) for (number, token), logprob in zip(made, chosen)]
        self._next = ids
        if ended := [row for row, done in enumerate(takes) if done]:
            self._drop(ended)
        return made

    def _drop(self, rows: list[int]) -> None:
        """Let rows go: the last ones take their places."""
        if len(rows) == len(self.alive):
            self.alive, self._cache, self._next, self._longest, self._captured = [], None, None, 0, False
            return
        assert self._cache is not None
        order = self._cache.drop(rows)
        self.alive = [self.alive[row] for row in order]
        if self._next is not None:
            self._next = self._next[torch.tensor(order, device=self._next.device)]
        # What is read shrinks with the longest; a single row's length is taken from this number.
        self._longest = max(self.sequences[number].length for number in self.alive) - 1


def draws_of(
    seed: int, prompt: np.ndarray, frames: Frames | None = None, *, of: int | None = None
) -> np.random.Generator:
    """Random numbers of a sequence: of its own seed and prompt, whatever stands beside it in the batch.

    The prompt is among them so that unlike prompts with one seed have nothing to do with each other. `of` tells several
    rows of numbers of one sequence apart.
    """
    mark = zlib.crc32(np.asarray(prompt).astype("<i8").tobytes())
    if frames is not None:
        mark = zlib.crc32(np.asarray(frames.slots).astype("<i8").tobytes(), mark)
    return np.random.default_rng([check_seed(seed), mark, *(() if of is None else (of,))])
