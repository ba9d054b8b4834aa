"""The engine: a decoder with everything that makes it quick, between ids and ids.

It owns the device, the steps (compiled, packed or int8, captured as CUDA graphs) and the sequences that run. Whoever
has ids to continue asks it: tasks, pipelines, n-best lists, a server. Texts and recordings are none of its business.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from unitok.decoder.fast_step import Stepper, steppable
from unitok.decoder.model import Decoder
from unitok.generation.batch import Batch
from unitok.generation.beam_search import BeamBatch, Hypothesis, SearchRequest, search_together
from unitok.generation.cuda_graphs import SIZES, CudaGraphs
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import Generated, TokenRequest
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError

ROWS = 64
"""Sequences that run together; others wait until some have ended."""


class Engine:
    """Continues ids: one batch from beginning to end (`run`), or requests that come and go (`add`, `step`, `cancel`).

    Args:
        decoder: the model; it may move, and its weights may change, between requests.
        int8: round the weights of decoding steps to int8, one scale per row.
        compiled: step single sequences through one C++ function.
        rows: most sequences that run together after `add`.
        layout: gives the codes beside ids, where the decoder was trained with any.
    """

    def __init__(
        self, decoder: Decoder, *, int8: bool = False, compiled: bool = False, rows: int = ROWS,
        layout: CodebookLayout | None = None,
    ) -> None:  # fmt: skip
        if rows < 1:
            raise InputError(f"rows is {rows}: give 1 or more")
        self.decoder, self.int8, self.compiled, self.rows = decoder, int8, compiled, rows
        self.layout = layout
        self.stepper: Stepper | None = self._made_stepper() if int8 or compiled else None
        """Takes the decoding steps; made from the decoder at its first use where None."""
        self.graphs: CudaGraphs | None = None
        """Steps that `capture` made, for what they fit."""
        self._shared: Batch | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.decoder.embedding.device

    # -- the steps ----------------------------------------------------------------------------------------------

    def steps(self) -> Stepper | None:
        """What takes the decoding steps: made once, and again if the weights have changed since."""
        if self.stepper is None or not self.stepper.fits(self.decoder):
            self.stepper = self._made_stepper()
        return self.stepper

    def _made_stepper(self) -> Stepper | None:
        if not steppable(self.decoder):
            if self.int8 or self.compiled:
                raise InputError(
                    "steps with int8 weights or in one C++ function are of decoders with plain blocks of one type: "
                    "this one has experts, or parts in several types; leave int8 and compiled out"
                )
            return None
        return Stepper(self.decoder, packed=True, int8=self.int8, compiled=self.compiled)

    def capture(self, *, capacity: int, sizes: Sequence[int] = SIZES, sampling: Sampling = GREEDY) -> None:
        """Capture the decoding steps of these batch sizes as CUDA graphs: seconds now, once, for quicker answers.

        Generations that take up to `capacity` positions, prompt and answer together, and choose ids as `sampling` says
        are stepped by them, in batches of up to the largest size; others go on as before.
        """
        self.graphs = CudaGraphs(self.decoder, capacity=capacity, sizes=sizes, sampling=sampling)

    def moved(self) -> None:
        """The decoder lies elsewhere or in another type: steps are made again, captured ones are forgotten."""
        assert self._shared is None or not self._shared.busy, "sequences run while the decoder moves"
        self._shared, self.graphs = None, None
        self.stepper = None if self.stepper is None else self._made_stepper()

    # -- a batch from beginning to end --------------------------------------------------------------------------

    def batch(self) -> Batch:
        """An empty batch of one's own."""
        return Batch(self.decoder, self.steps(), graphs=self.graphs, layout=self.layout)

    def run(self, requests: Sequence[TokenRequest]) -> list[Generated]:
        """Continue all requests, together; each result is the same alone, up to the rounding of sums.

        Raises:
            InputError: a prompt with its limit does not fit the decoder's positions.
        """
        batch = self.batch()
        numbers = [batch.add(request) for request in requests]
        while batch.step():
            pass
        return [batch.take(number) for number in numbers]

    def search(
        self, request: TokenRequest, *, beams: int, n_best: int | None = None, length_penalty: float = 1.0
    ) -> list[Hypothesis]:
        """The best outputs that a beam search finds, best first: as many as beams, or `n_best`."""
        return self.search_all([request], beams=beams, n_best=n_best, length_penalty=length_penalty)[0]

    def search_all(
        self, requests: Sequence[TokenRequest], *, beams: int, n_best: int | None = None, length_penalty: float = 1.0
    ) -> list[list[Hypothesis]]:
        """`search` of all requests, together; each list is the same alone, up to the rounding of sums.

        Raises:
            InputError: a request without an automaton or with codes beside the ids of its answer, or fewer than one
                beam.
        """
        searches = [search_of(one, beams=beams, n_best=n_best, length_penalty=length_penalty) for one in requests]
        return search_together(self.decoder, searches, stepper=self.steps(), layout=self.layout)

    def beam_batch(self) -> BeamBatch:
        """An empty batch of searches of one's own."""
        return BeamBatch(self.decoder, self.steps(), layout=self.layout)

    # -- requests that come and go ------------------------------------------------------------------------------

    def add(self, request: TokenRequest) -> int:
        """Take in a request, which runs from the next step on beside those that run already; returns its number.

        Raises:
            InputError: a prompt with its limit does not fit the decoder's positions.
        """
        if self._shared is None:
            self._shared = Batch(self.decoder, self.steps(), rows=self.rows, layout=self.layout)
        elif not self._shared.busy:
            self._shared.stepper = self.steps()  # the weights may have changed meanwhile
        return self._shared.add(request)

    def step(self) -> list[tuple[int, int]]:
        """(number, id) of every request that runs; empty when nothing does. Codes beside them: `slots_of`."""
        return [] if self._shared is None else self._shared.step()

    def slots_of(self, number: int) -> np.ndarray | None:
        """(S,) codes beside the newest id of a request, chosen in the same step; None where its position has none.

        Raises:
            InputError: no such request, or one that was taken already.
        """
        return self._holding(number).slots_of(number)

    def cancel(self, number: int) -> None:
        """Stop a request; what it has produced stays to be taken. One that has ended stays as it is."""
        if self._shared is not None and number in self._shared.sequences:
            self._shared.cancel(number)

    def take(self, number: int) -> Generated:
        """What a request has produced, which is forgotten here; one that still runs is cancelled.

        Raises:
            InputError: no such request, or one that was taken already.
        """
        return self._holding(number).take(number)

    def _holding(self, number: int) -> Batch:
        if self._shared is None or number not in self._shared.sequences:
            raise InputError(f"no request {number} is here: it was never added, or taken already")
        return self._shared

    @property
    def busy(self) -> bool:
        """Whether requests run or wait."""
        return self._shared is not None and self._shared.busy


def search_of(
    request: TokenRequest, *, beams: int, n_best: int | None = None, length_penalty: float = 1.0
) -> SearchRequest:
    """A request as a search; InputError where it has no automaton, guidance, or codes beside the ids of its answer."""
    if request.slots is not None:
        raise InputError("beams search among ids, and this answer has codes beside them; take 1 beam, or draw several")
    if request.automaton is None:
        raise InputError("a search is among outputs that end: give an automaton")
    if request.sampling.guides:
        raise InputError("beams search without guidance; leave one out")
    return SearchRequest(
        prompt=request.prompt, automaton=request.automaton, beams=beams, n_best=n_best or beams,
        length_penalty=length_penalty, vectors=request.vectors, frames=request.frames,
    )  # fmt: skip
