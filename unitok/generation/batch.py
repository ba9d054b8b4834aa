"""Sequences on their way: they come and go between steps, each with its own sampling, seed and limit.

B sequences, V vocabulary, T ids of a prompt, C width.

A sequence with guidance has a second row of the cache: its prompt without conditions, which is given the same ids. In
`alive` that row is the number's complement, `~number`.
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
from unitok.generation.allowed_ids import MaskTable
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.framed import (
    FramedSteps,
    FrameTrack,
    ask_all,
    check_slots,
    pattern_of,
    prompt_inputs,
)
from unitok.generation.guards import LoopGuard
from unitok.generation.prefill import decode_step, prefill
from unitok.generation.sampling import SPOKEN_KINDS, Sampling, choose, guided
from unitok.generation.token_request import Generated, TokenRequest, draws_of
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed


@dataclass(eq=False)
class _Sequence:
    """A request on its way."""

    request: TokenRequest
    random: np.random.Generator | None
    """Uniform numbers: two for every step, counted from its first; None where nothing is drawn."""
    track: FrameTrack | None = None
    """Codes beside its ids."""
    guard: LoopGuard | None = None
    """Ends speech that goes round in a cycle."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: str = "length"
    looped: bool = False
    """The guard has closed something."""

    @property
    def sampling(self) -> Sampling:
        """How its next id is chosen."""
        request = self.request
        spoken = request.automaton is not None and request.automaton.kind in SPOKEN_KINDS
        return request.sampling.of_speech if spoken else request.sampling

    @property
    def rows(self) -> int:
        """Rows of the cache that it takes."""
        return 2 if self.request.sampling.guides else 1

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
            beside = self.track.slots[-1] if self.track is not None and self.track.framed else None
            if self.guard is not None and self.guard.push(token, request.automaton, beside):
                request.automaton.close()
                self.looped = True
        else:
            done = token == request.eos
        if done:
            self.reason = "loop" if self.looped else "eos"
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
        """Numbers of those that run, in the order of the cache's rows, and complements of those that are guided."""
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
            InputError: a prompt with its limit does not fit the decoder's positions, a seed that is none, guidance
                without a prompt to compare with, or codes beside ids where no layout has any, of another shape, in
                steps of int8 weights or under guidance.
        """
        prompt, config = np.asarray(request.prompt), self.decoder.config
        if request.limit < 1 or not len(prompt):
            raise InputError(f"limit is {request.limit}, the prompt has {len(prompt)} ids: give 1 or more of both")
        if int(prompt.min()) < 0 or int(prompt.max()) >= config.vocab_size:
            wrong = int(prompt.max()) if int(prompt.min()) >= 0 else int(prompt.min())
            raise InputError(f"the prompt holds id {wrong}, the model has {config.vocab_size}; give ids of this model")
        size, most = len(prompt) + request.limit, config.max_positions
        if config.window is None and size > most:  # else what is kept does not grow
            raise InputError(
                f"prompt and output take up to {size} positions, the model has {most}; "
                "shorten the input or max_new_tokens"
            )
        check_seed(request.seed)
        sampling, automaton, without = request.sampling, request.automaton, request.without
        if sampling.guides and not (without is not None and 0 < len(without.ids) <= len(prompt)):
            raise InputError("guidance compares with the prompt without its conditions: give one, no longer than it")
        random = draws_of(request.seed, request.prompt, request.frames) if sampling.draws else None
        guard = LoopGuard(automaton.vocabulary) if sampling.loop_guard and automaton is not None else None
        track = self._track(request)
        number, self._added = self._added, self._added + 1
        self.sequences[number] = _Sequence(request, random, track, guard)
        self.waiting.append(number)
        return number

    def _track(self, request: TokenRequest) -> FrameTrack | None:
        """What follows the codes beside a request's ids; InputError for codes that cannot be."""
        layout = None if self.framed is None else self.framed.layout
        if request.frames is not None:
            check_slots(request.frames, layout, len(request.prompt))
        if request.sampling.guides and (
            request.slots is not None or (request.frames is not None and len(request.frames))
        ):
            raise InputError("guidance is about ids alone, and codes stand beside them here; leave guidance out")
        if request.slots is None:
            return None
        pattern = pattern_of(layout)
        if self.stepper is not None and self.stepper.int8:
            raise InputError(f"int8 steps take ids alone, {pattern.layout!r} has codes beside them: leave int8 out")
        random = draws_of(request.seed, request.prompt, request.frames, of=1)
        return FrameTrack(pattern, request.slots, request.sampling.of_speech, request.prompt, random, request.automaton)

    @torch.inference_mode()
    def cancel(self, number: int) -> None:
        """Stop a sequence; what it has produced stays to be taken. One that has ended stays as it is."""
        if number in self.waiting:
            self.waiting.remove(number)
        elif number in self.alive:
            self._drop([row for row, one in enumerate(self.alive) if one in (number, ~number)])
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
            ask_all(self.sequences[number].track for number in (*self.alive, *self._next_to_read()) if number >= 0)
        if self._captured and self._next is not None and not self.waiting:
            assert self.graphs is not None
            self._longest += 1
            running = self._running()
            return self._record(*self.graphs.step(self._next, self._allowed(running), self._uniform(running)), None)
        hidden = self._hidden()
        logits = self.decoder.logits(hidden) if self.stepper is None else self.stepper.logits(hidden)
        return self._record(*self._choose(self._guided(logits), self._running()), hidden)

    def _next_to_read(self) -> list[int]:
        """Numbers of those that wait and find room."""
        new, used = list[int](), len(self.alive)
        for number in self.waiting:
            used += self.sequences[number].rows
            if self.rows and used > max(self.rows, self.sequences[number].rows):
                break
            new.append(number)
        return new

    @property
    def running(self) -> bool:
        """Whether it goes on with a cache."""
        return self._cache is not None

    def _running(self) -> list[_Sequence]:
        """Those that run, in the order of their rows."""
        return [self.sequences[number] for number in self.alive if number >= 0]

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
        guiding = [place for place, one in enumerate(requests) if one.sampling.guides]
        for place in guiding:
            without = requests[place].without
            assert without is not None
            given.append(given[place] + len(without.ids) - len(prompts[place]))  # what follows them is the same
            prompts.append(without.ids)
            vectors.append(without.vectors)
        cache, hidden = prefill(
            self.decoder, prompts, capacity, given, vectors if any(one is not None for one in vectors) else None,
            cache=self.graphs.fresh_cache(len(new), self) if self._captured and self.graphs is not None else None,
        )  # fmt: skip
        if self._cache is None:
            self._cache = cache
        else:
            self._cache.join(cache, self._longest)
        self._longest = max(self._longest, *map(len, prompts))
        self.alive += [*new, *(~new[place] for place in guiding)]
        return hidden

    def _fit(self, graphs: CudaGraphs, requests: Sequence[TokenRequest], capacity: int) -> bool:
        """Whether captured steps are these requests' steps."""
        if any(request.slots is not None for request in requests):
            return False
        ways = {request.sampling for request in requests}
        return graphs.free_for(self) and len(ways) == 1 and graphs.fit(self.decoder, len(requests), capacity, *ways)

    # -- choosing -----------------------------------------------------------------------------------------------

    def _guided(self, logits: Tensor) -> Tensor:
        """Logits of all rows → (B, V) of the sequences, each guided by its second row where it has one."""
        place = {number: row for row, number in enumerate(self.alive)}
        numbers = [number for number in self.alive if number >= 0]
        if len(numbers) == len(place):
            return logits
        rows = torch.tensor([place[number] for number in numbers], device=logits.device)
        beside = torch.tensor([place.get(~number, place[number]) for number in numbers], device=logits.device)
        scale = torch.tensor([self.sequences[number].request.sampling.guidance for number in numbers])
        return guided(logits[rows], logits[beside], scale.to(logits.device))

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
        chosen = [one.sampling for one in running]
        ways = set(chosen)
        if len(ways) == 1:
            return choose(logits, allowed, ways.pop(), uniform, [one.ids for one in running])
        ids = torch.zeros(len(running), dtype=torch.int64, device=logits.device)
        logprobs = torch.zeros(len(running), device=logits.device)
        for sampling in ways:
            rows = [row for row, one in enumerate(chosen) if one == sampling]
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
        return [self.sequences[number if number >= 0 else ~number].track for number in self.alive]

    def _record(self, ids: Tensor, logprobs: Tensor, hidden: Tensor | None) -> list[tuple[int, int]]:
        """Append one id to every running sequence, and let go those that have ended.

        `hidden` (B, C) chose the ids; None where no sequence has codes beside them.
        """
        # One copy of both: the host waits for the device once a step. Ids are exact in float64.
        drawn, chosen = torch.stack([ids.double(), logprobs.double()]).tolist()
        numbers = [number for number in self.alive if number >= 0]
        made = [(number, int(token)) for number, token in zip(numbers, drawn)]
        if self.framed is not None and hidden is not None:
            own = [row for row, number in enumerate(self.alive) if number >= 0]
            states = hidden if len(own) == len(hidden) else hidden[torch.tensor(own, device=hidden.device)]
            tracks = [self.sequences[number].track for number in numbers]
            self.framed.choose(states, ids, [token for _, token in made], tracks)
        takes = [self.sequences[number].take(token, logprob) for (number, token), logprob in zip(made, chosen)]
        places = {number: place for place, number in enumerate(numbers)}
        owners = [places[number if number >= 0 else ~number] for number in self.alive]
        self._next = ids if len(owners) == len(numbers) else ids[torch.tensor(owners, device=ids.device)]
        if ended := [row for row, place in enumerate(owners) if takes[place]]:
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
        self._longest = max(one.length for one in self._running()) - 1
