"""Codes beside ids: what a layout of codebooks needs of the sequences that are generated with it.

Where a chosen id stands at a position with slots, the layout gives the position's codes at once; the decoder reads both
with its next step. What is chosen for a sequence depends on nothing beside it: random numbers are counted by its
request, the position and the slot, in whatever order the layout asks for slots.

R sequences whose newest id has slots, N ids of an answer, P positions with slots, S slots, C width, V codes of a slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.sampling import Sampling, choose
from unitok.layouts.base import CodebookLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.output_slots import Ranges
from unitok_tokenizers.grammar.positions import Frames

Given = Callable[[int], Sequence[int]]
"""What stands at the answer's position number n with slots: (S,) codes, delays heeded, -1 in slots of which it says
nothing. Asked for before the step that may reach the position, once for each and in their order; it may wait."""


@dataclass(frozen=True, kw_only=True)
class FrameIds:
    """Which ids stand at positions with slots, where no automaton knows."""

    held: Ranges
    """Ids of positions with slots; any other ends the span in which delays are counted."""
    inside: Ranges = ()
    """Ids of such a span whose positions have none: inline codebooks before a frame's last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SlotOptions:
    """How the codes beside an answer's ids come about."""

    ids: FrameIds | None = None
    """Where they stand; None asks the request's automaton."""
    flush: int | None = None
    """The id that stands behind the last frame, where what was delayed comes; None without delays."""
    sampling: tuple[Sampling, ...] = ()
    """How codes are chosen, one for each slot; where there is none, all as the ids."""
    given: Given | None = None
    """Codes that are not chosen. Slots of the roles forced and input-only hold nothing else; others may, too."""


def within(token: int, ranges: Ranges) -> bool:
    """Whether an id is in half-open ranges."""
    return any(start <= token < stop for start, stop in ranges)


def pattern_of(layout: CodebookLayout | None) -> FramePattern:
    """Where codes stand beside ids; InputError where there is no layout."""
    if layout is None:
        raise InputError("codes beside ids need the layout of the model that they are of; open it with `unitok.load`")
    return layout.pattern


def check_slots(given: Frames, layout: CodebookLayout | None, length: int) -> None:
    """InputError where codes beside a prompt of so many ids are not of a layout."""
    if not len(given):
        return
    index, slots, pattern = given.index, given.slots, pattern_of(layout)
    if slots.shape != (len(index), len(pattern.slots)):
        raise InputError(f"codes beside {len(index)} ids have shape {slots.shape}, not (P, {len(pattern.slots)})")
    if index[0] < 0 or index[-1] >= length or (np.diff(index) <= 0).any():
        raise InputError(f"codes stand beside positions {index.tolist()} of {length} ids: give rising ones inside")
    for number, one in enumerate(pattern.slots):
        check_codes(slots[:, number], number, one.size)


def check_codes(codes: np.ndarray, slot: int, size: int) -> None:
    """InputError where any of the codes (N,) is none of a slot of so many."""
    wrong = codes[(codes < ABSENT) | (codes >= size)]
    if len(wrong):
        raise InputError(f"code {wrong[0]} in slot {slot}, which holds 0…{size - 1}, or -1 for none")


def prompt_inputs(
    decoder: Decoder,
    layout: CodebookLayout | None,
    prompt: np.ndarray,
    vectors: PromptVectors | None,
    slots: Frames | None,
) -> PromptVectors | None:
    """What a prompt's positions read where it is no embedding row: `vectors`, and rows with what codes add to them."""
    if slots is None or not len(slots.index):
        return vectors
    assert layout is not None, "codes beside ids without a layout"
    device = decoder.embedding.device
    ids = torch.from_numpy(np.asarray(prompt, dtype=np.int64)[slots.index]).to(device)
    rows = decoder.embed(ids)
    rows = rows + layout.vectors(torch.from_numpy(np.asarray(slots.slots, dtype=np.int64)).to(device)).to(rows.dtype)
    if vectors is None:
        return PromptVectors(rows, slots.index)
    places = np.concatenate([vectors.places, slots.index])
    order = np.argsort(places)
    joint = torch.cat([vectors.vectors.to(device, rows.dtype), rows])
    return PromptVectors(joint[torch.from_numpy(order).to(device)], places[order])


class FrameTrack:
    """The codes beside one sequence's ids, on its way.

    Args:
        pattern: where they stand.
        options: how they come about.
        sampling: how the ids are chosen, and codes where `options` has no other way.
        prompt: (T,) ids that are there already.
        random: of what is drawn: two uniform numbers for each slot of each position, counted from the answer's first.
        automaton: says where codes stand, where `options` does not; whoever takes an id here advances it then.
    """

    def __init__(
        self, pattern: FramePattern, options: SlotOptions, sampling: Sampling, prompt: np.ndarray,
        random: np.random.Generator, automaton: Automaton | None = None,
    ) -> None:  # fmt: skip
        self.pattern, self.options, self.automaton = pattern, options, automaton
        self.ways = options.sampling or (sampling,) * len(pattern.slots)
        self.random = random if any(way.temperature > 0 for way in self.ways) else None
        self.slots: list[list[int]] = []
        """(N, S): beside each id of the answer."""
        self.there: list[bool] = []
        """(N,): whether its position has slots."""
        self.logprobs: list[list[float]] = []
        """(N, S) log-probabilities of what was chosen, 0 elsewhere."""
        self.count = 0
        """Positions of the answer with slots."""
        self.place = 0
        """Positions of the open span with slots."""
        self.flushed = 0
        """How many of them stand behind the span's last frame."""
        self.framed = False
        """Whether the newest id's position has slots."""
        self.told: list[int] | None = None
        """Codes that are given for the next position with slots, where they are known."""
        self.nothing = [ABSENT] * len(pattern.slots)
        for token in np.asarray(prompt).tolist():
            self._pass(token)

    def ask(self) -> None:
        """Have what is given for the next position. InputError for what is no such codes; nothing has changed then."""
        if self.options.given is None or self.told is not None:
            return
        codes = np.asarray(self.options.given(self.count), dtype=np.int64)
        if codes.shape != (len(self.pattern.slots),):
            raise InputError(f"codes of shape {codes.shape} are given for a position, not ({len(self.pattern.slots)},)")
        for number, one in enumerate(self.pattern.slots):
            check_codes(codes[number : number + 1], number, one.size)
        self.told = codes.tolist()

    def holds(self, token: int) -> bool:
        """Whether codes stand beside the next id if it is this one."""
        if self.options.ids is not None:
            return within(token, self.options.ids.held)
        return self.automaton is not None and self.automaton.framed(token)

    @property
    def before(self) -> int:
        """Positions of the span with slots before the next one."""
        return self.place if self.automaton is None or self.options.ids is not None else self.automaton.places

    def behind(self, token: int) -> int:
        """Positions since the one of the span's last frame, at that of the next id; 0 while frames go on."""
        return self.flushed + 1 if token == self.options.flush else 0

    def uniform(self) -> np.ndarray:
        """(S, 2) random numbers of the next position."""
        shape = len(self.pattern.slots), 2
        return np.zeros(shape) if self.random is None else self.random.random(shape)

    def settled(self, slots: list[int]) -> list[int]:
        """What the next position holds of what a layout has chosen: in slots that are not predicted, what is given."""
        told = [*(self.told or self.nothing)]
        for slot, one in enumerate(self.pattern.slots):
            if one.role in ("predicted", "refined"):
                told[slot] = slots[slot]
        return told

    def take(self, token: int, slots: list[int] | None, logprobs: list[float] | None) -> None:
        """Append an id's codes; None where its position has no slots."""
        self.framed = slots is not None
        self.there.append(self.framed)
        self.slots.append(self.nothing if slots is None else slots)
        self.logprobs.append([0.0] * len(self.nothing) if logprobs is None else logprobs)
        if slots is not None:
            self.count, self.told = self.count + 1, None
        self._pass(token)

    def _pass(self, token: int) -> None:
        ids = self.options.ids
        self.flushed = self.flushed + 1 if token == self.options.flush else 0
        if ids is not None and within(token, ids.held):
            self.place += 1
        elif ids is None or not within(token, ids.inside):
            self.place = 0

    def made(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the answer so far: (N, S) codes, their log-probabilities, and (N,) whether an id's position has slots."""
        shape = len(self.slots), len(self.nothing)
        slots, logprobs = np.asarray(self.slots, np.int64), np.asarray(self.logprobs, np.float32)
        return slots.reshape(shape), logprobs.reshape(shape), np.asarray(self.there, np.bool_)

    @property
    def last(self) -> bool:
        """Whether the newest position lacks frames of its group: by that a layout says that the span ends there."""
        pattern = self.pattern
        if pattern.frames == 1 or not self.framed:
            return False
        return any(code == ABSENT and one.role == "predicted" for code, one in zip(self.slots[-1], pattern.slots))

    def newest(self) -> np.ndarray | None:
        """(S,) codes beside the newest id; None where its position has no slots."""
        return np.asarray(self.slots[-1], np.int64) if self.framed else None

    def past(self, slot: int, window: int) -> list[int]:
        """The answer's last codes of a slot, at most `window`."""
        found = (row[slot] for row in reversed(self.slots) if row[slot] != ABSENT)
        return list(islice(found, window))[::-1]


class SlotChoice:
    """Chooses the codes of one position of several sequences: `unitok.layouts.base.Choose`.

    Args:
        tracks: the sequences, R.
        uniform: (R, S, 2) in [0, 1); None where nothing is drawn.
    """

    def __init__(self, tracks: Sequence[FrameTrack], uniform: Tensor | None) -> None:
        self.tracks, self.uniform = tracks, uniform

    def __call__(self, slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, V) → codes (R,) and their log-probabilities (R,); given codes are taken as they are."""
        codes, logprobs = self._chosen(slot, logits)
        if all(track.told is None for track in self.tracks):
            return codes, logprobs
        told = [ABSENT if track.told is None else track.told[slot] for track in self.tracks]
        if max(told) == ABSENT:
            return codes, logprobs
        given = torch.tensor(told, device=logits.device)
        codes = torch.where(given == ABSENT, codes, given)
        return codes, logits.float().log_softmax(-1).gather(1, codes[:, None])[:, 0]

    def _chosen(self, slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The same where nothing is given: sequences that choose alike together."""
        ways: dict[Sampling, list[int]] = {}
        for row, track in enumerate(self.tracks):
            ways.setdefault(track.ways[slot], []).append(row)
        if len(ways) == 1:
            (way,) = ways
            return choose(logits, None, way, self._drawn(way, slot), self._past(way, slot, range(len(self.tracks))))
        codes = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        logprobs = torch.zeros(len(logits), device=logits.device)
        for way, rows in ways.items():
            own, drawn = torch.tensor(rows, device=logits.device), self._drawn(way, slot)
            drawn = None if drawn is None else drawn[own]
            codes[own], logprobs[own] = choose(logits[own], None, way, drawn, self._past(way, slot, rows))
        return codes, logprobs

    def _drawn(self, way: Sampling, slot: int) -> Tensor | None:
        """(R, 2) numbers for a slot; None where nothing is drawn."""
        return None if self.uniform is None or not way.temperature else self.uniform[:, slot]

    def _past(self, way: Sampling, slot: int, rows: Iterable[int]) -> list[list[int]]:
        """Codes of a slot that were chosen before, as far as they matter."""
        return [self.tracks[row].past(slot, way.repetition_window) if way.repetition_window else [] for row in rows]


class FramedSteps:
    """The part of decoding steps that a layout has.

    Args:
        decoder: the model.
        layout: its layout.
        compiled: the layout may take its steps through compiled functions.
    """

    def __init__(self, decoder: Decoder, layout: CodebookLayout, *, compiled: bool = False) -> None:
        self.decoder, self.layout = decoder, layout
        self.step = layout.quick_step(compiled=compiled)
        self.steps = any(slot.role != "refined" for slot in layout.pattern.slots)
        """Whether codes beside ids come, and are read, step by step; else a second pass finds all of them."""

    def inputs(self, ids: Tensor, tracks: Sequence[FrameTrack | None]) -> Tensor | None:
        """What the next step reads, (B, C), of ids (B,) that were chosen; None where no codes stand beside any."""
        rows = [row for row, track in enumerate(tracks) if track is not None and track.framed]
        if not rows or not self.steps:
            return None
        codes = torch.tensor([track.slots[-1] for row in rows if (track := tracks[row]) is not None])
        x = self.decoder.embed(ids)
        vectors = self.layout.vectors(codes.to(ids.device)).to(x.dtype)
        return x.index_add(0, torch.tensor(rows, device=ids.device), vectors)

    def choose(self, hidden: Tensor, ids: Tensor, tokens: Sequence[int], tracks: Sequence[FrameTrack | None]) -> None:
        """The codes beside newly chosen ids (B,), which the host knows as `tokens`, from the states (B, C) that chose
        them: they are appended to the tracks."""
        held = [row for row, track in enumerate(tracks) if track is not None and track.holds(tokens[row])]
        for row, track in enumerate(tracks):
            if track is not None and not track.holds(tokens[row]):
                track.take(tokens[row], None, None)
        if not held:
            return
        own = [track for row in held if (track := tracks[row]) is not None]
        if not self.steps:
            for row, track in zip(held, own):
                track.take(tokens[row], track.nothing, None)
            return
        device = ids.device
        index = torch.tensor(held, device=device)
        uniform = None
        if any(track.random is not None for track in own):
            uniform = torch.from_numpy(np.stack([track.uniform() for track in own])).to(device)
        rows = self.layout.id_rows(ids[index], self.decoder.embed)
        before = torch.tensor([track.before for track in own], device=device)
        behind = None
        if self.layout.pattern.flush:
            behind = torch.tensor([track.behind(tokens[row]) for row, track in zip(held, own)], device=device)
        choice = SlotChoice(own, uniform)
        slots, logprobs = self.step(hidden[index].to(rows.dtype), rows, before, choice, behind)
        # One copy of both: codes are exact in float64.
        found = torch.stack([slots.double(), logprobs.double()]).tolist()
        for row, track, codes, values in zip(held, own, *found, strict=True):
            settled = track.settled([int(code) for code in codes])
            track.take(tokens[row], settled, values)


def ask_all(tracks: Iterable[FrameTrack | None]) -> None:
    """Have what is given for the next position of each; InputError as `FrameTrack.ask`."""
    for track in tracks:
        if track is not None:
            track.ask()
