"""Speech both ways, frame by frame: what the other side says goes in, an id of text and one's own codes come out.

The layout has an id at every frame and all codes beside it (`layouts.step_depth`, as Moshi): its predicted slots are
one's own, its forced ones the other side's. A frame that is heard completes the newest position; the decoder reads that
position, and its state says the next one's id and own codes. Positions grow, and with a window what is kept does not.

S slots, U of them forced, Q codebooks of one's own, V ids, C width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.kv_cache import KVCache
from unitok.generation.allowed_ids import rows_of
from unitok.generation.engine import Engine
from unitok.generation.framed import (
    FramedSteps,
    FrameIds,
    FrameTrack,
    SlotOptions,
    check_codes,
    pattern_of,
    prompt_inputs,
)
from unitok.generation.prefill import decode_step, prefill
from unitok.generation.sampling import GREEDY, Sampling, choose
from unitok.generation.token_request import draws_of
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.output_slots import Ranges
from unitok_tokenizers.grammar.positions import Frames

UNLIMITED = 1 << 62
"""Positions of a decoder with a window: its cache has as many as the window."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DuplexStep:
    """What was said at one position."""

    text: int
    """Its id."""
    slots: np.ndarray
    """(S,) codes that stand there, one's own; the forced ones are -1: what is heard meanwhile comes next."""
    codes: np.ndarray | None
    """(Q,) one's own codes of the newest frame that is whole, as many frames back as the largest delay; None at first,
    until delays have passed."""
    logprob: float
    """Log-probability of the id, before temperature and filters."""
    slot_logprobs: np.ndarray
    """(S,) float32 of the codes."""


class DuplexSession:
    """One conversation: `step` for each frame that is heard, `finish` when there are no more.

    Args:
        engine: of a model whose layout has all codes beside the ids.
        prompt: (T,) ids before the first frame. The last of them stands beside the first frame that is heard, and has
            no own codes; those before have no codes.
        said: half-open ranges of the ids that may be said.
        sampling: how ids are chosen.
        code_sampling: how codes are, one for each slot; as the ids where empty.
        seed: of the draws.

    Raises:
        InputError: no layout, one with codes among the ids, or ids that the model does not have.
    """

    def __init__(
        self, engine: Engine, prompt: np.ndarray, *, said: Ranges, sampling: Sampling = GREEDY,
        code_sampling: Sequence[Sampling] = (), seed: int = 0,
    ) -> None:  # fmt: skip
        self.decoder, self.layout, self.pattern = engine.decoder, engine.layout, _checked(pattern_of(engine.layout))
        assert self.layout is not None
        size = self.decoder.config.vocab_size
        self.prompt = np.asarray(prompt, dtype=np.int64)
        ends = [*self.prompt.tolist(), *(stop - 1 for _, stop in said), *(start for start, _ in said)]
        if not len(self.prompt) or not said or min(ends) < 0 or max(ends) >= size:
            raise InputError(f"a prompt of {len(self.prompt)} ids, said {said!r}: give 1 or more ids of the {size}")
        ways = tuple(code_sampling)
        if len(ways) not in (0, len(self.pattern.slots)):
            raise InputError(f"{len(ways)} ways of sampling codes for {len(self.pattern.slots)} slots: one for each")
        self.forced = [i for i, slot in enumerate(self.pattern.slots) if slot.role == "forced"]
        self.own = [i for i, slot in enumerate(self.pattern.slots) if slot.role == "predicted"]
        self.sampling, self.steps = sampling, FramedSteps(self.decoder, self.layout)
        self.allowed = rows_of([said], size, self.decoder.embedding.device)
        options = SlotOptions(ids=FrameIds(held=said), sampling=ways)
        nothing = np.zeros(0, np.int64)
        random = draws_of(seed, self.prompt, of=1)
        self.track = FrameTrack(self.pattern, options, sampling, nothing, random)
        self.track.place = 1  # delays count from the prompt's last id
        self.random = draws_of(seed, self.prompt) if sampling.temperature > 0 else None
        late = self.pattern.flush + 1
        self.heard: deque[np.ndarray] = deque(maxlen=late)
        """Newest frames that were heard, (U,) each."""
        self.rows: deque[np.ndarray] = deque([np.full(len(self.pattern.slots), ABSENT)], maxlen=late)
        """Newest positions' codes, (S,) each."""
        self.past: deque[int] = deque(maxlen=max(1, sampling.repetition_window))
        """Newest ids."""
        self.kept = max([late, *(way.repetition_window for way in ways), sampling.repetition_window])
        self.count = 0
        """Positions that were said."""
        self.finished = False
        self.cache: KVCache | None = None
        self._next: Tensor | None = None
        """(1,) the newest id, whose position the decoder has not read."""

    def step(self, heard: np.ndarray | Sequence[int]) -> DuplexStep:
        """One frame: codes (U,) that were heard, in the order of the forced slots, -1 for none → what is said next.

        Raises:
            InputError: codes of another number or out of their codebooks, a session that was finished, or no position
                left where the decoder has no window. Nothing has changed then.
        """
        codes = np.asarray(heard, dtype=np.int64)
        if codes.shape != (len(self.forced),):
            raise InputError(f"codes of shape {codes.shape} were heard, not ({len(self.forced)},)")
        for column, slot in enumerate(self.forced):
            check_codes(codes[column : column + 1], slot, self.pattern.slots[slot].size)
        if self.finished:
            raise InputError("the session has been finished; begin another one")
        return self._step(codes)

    def finish(self) -> list[DuplexStep]:
        """The steps that delays need until every own frame is whole; while they pass, nothing more is heard."""
        found = [] if self.finished else [self._step(None) for _ in range(self.pattern.flush)]
        self.finished = True
        return found

    @torch.inference_mode()
    def _step(self, heard: np.ndarray | None) -> DuplexStep:
        config = self.decoder.config
        if config.window is None and len(self.prompt) + self.count > config.max_positions:
            raise InputError(
                f"the session has taken all {config.max_positions} positions of the model: begin another one, "
                "or train with `decoder.window`"
            )
        self.heard.append(np.full(len(self.forced), ABSENT) if heard is None else heard)
        for column, slot in enumerate(self.forced):
            delay = self.pattern.slots[slot].delay
            if delay < len(self.heard):
                self.rows[-1][slot] = self.heard[-1 - delay][column]
        hidden = self._hidden()
        uniform = None
        if self.random is not None:
            uniform = torch.from_numpy(self.random.random((1, 2))).to(hidden.device)
        logits = self.decoder.logits(hidden)
        ids, logprobs = choose(logits, self.allowed, self.sampling, uniform, [list(self.past)])
        token = int(ids)
        self.steps.choose(hidden, ids, [token], [self.track])
        self._next, self.count = ids, self.count + 1
        self.past.append(token)
        self.rows.append(np.asarray(self.track.slots[-1], np.int64))
        said = self.rows[-1].copy()
        scores = np.asarray(self.track.logprobs[-1], np.float32)
        for one in (self.track.slots, self.track.logprobs, self.track.there):
            del one[: -self.kept]  # what the next choice looks back at
        return DuplexStep(text=token, slots=said, codes=self._whole(), logprob=float(logprobs), slot_logprobs=scores)

    def _hidden(self) -> Tensor:
        """State (1, C) behind the newest position."""
        device = self.decoder.embedding.device
        if self._next is None or self.cache is None:
            beside = Frames(np.array([len(self.prompt) - 1]), self.rows[-1][None])
            config = self.decoder.config
            capacity = UNLIMITED if config.window is not None else config.max_positions
            vectors = prompt_inputs(self.decoder, self.layout, self.prompt, None, beside)
            self.cache, hidden = prefill(self.decoder, [self.prompt], capacity, None, [vectors])
            return hidden
        x = self.decoder.embed(self._next)
        x = x + self.steps.layout.vectors(torch.from_numpy(self.rows[-1][None]).to(device)).to(x.dtype)
        return decode_step(self.decoder, self._next, self.cache, len(self.prompt) + self.count, None, x)

    def _whole(self) -> np.ndarray | None:
        """(Q,) own codes of the newest frame whose last delay has passed."""
        late = self.pattern.flush
        if len(self.rows) <= late:
            return None
        found = np.array([self.rows[self.pattern.slots[i].delay][i] for i in self.own])
        return None if (found == ABSENT).any() else found


def _checked(pattern: FramePattern) -> FramePattern:
    """InputError where a pattern has not an id and all codes beside it at each frame."""
    roles = {slot.role for slot in pattern.slots}
    if pattern.inline or pattern.frames > 1 or "predicted" not in roles or not roles <= {"predicted", "forced"}:
        raise InputError(
            f"layout {pattern.layout!r} has no id of text and all codes beside it at every frame; take a model that "
            "speaks while it listens (Moshi's layout)"
        )
    return pattern
