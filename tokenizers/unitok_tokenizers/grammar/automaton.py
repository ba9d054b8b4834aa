"""The decode-time automaton: which ids may come next, so that every output is well formed within its limit.

A sequence's output is a list of slots: marks that are forced, and content runs that may end once they hold an item.
The automaton counts what the shortest legal completion still costs and withdraws content while there is just room
for it. States with equal choices share one key, so that a decoder makes a mask once for all sequences in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.sequence import STREAM_OF_KIND, Parsed
from unitok_tokenizers.grammar.tasks.base import MODALITIES, STATES, closer, opener
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary

Ranges = tuple[tuple[int, int], ...]
"""Half-open ranges of ids, ascending and apart."""

UNLIMITED = 1 << 62


@dataclass(frozen=True)
class _Mark:
    """One forced id."""

    id: int

    shortest = 1


@dataclass(frozen=True)
class _Content:
    """A run of items, each one id per codebook, closed by `close`."""

    codebooks: tuple[Ranges, ...]
    choice: Ranges
    """The first codebook or the closer: what a frame boundary leaves open."""
    close: int
    limit: int
    """Most items; further ones are not allowed."""
    heard: bool = False
    """These are units whose order the codes after them keep."""
    follows: bool = False
    """These are codes whose first codebook says the units before them, each for a frame or more, in their order."""
    single: bool = False
    """The grammar gives one item: to close behind it cuts nothing."""
    counted: bool = False
    """These are units for each of which one item follows in a later slot."""
    paired: bool = False
    """These are those items: as many as there were units."""
    kind: str = ""
    """Kind of the span."""

    @property
    def shortest(self) -> int:
        """Ids of one item and the closer."""
        return len(self.codebooks) + 1


def _single(token: int) -> tuple[int, int]:
    return (token, token + 1)


def merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Half-open ranges in any order, made ascending and apart."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def _without(ranges: Ranges, banned: Sequence[int]) -> Ranges:
    """Take single ids out of ranges: a host model's bos, eos and pad stand among its text pieces."""
    for token in banned:
        halves = [((a, token), (token + 1, b)) if a <= token < b else ((a, b),) for a, b in ranges]
        ranges = tuple(part for parts in halves for part in parts if part[0] < part[1])
    return ranges


class Automaton:
    """Follows one sequence from its prompt to its end.

    Args:
        vocabulary: the ids.
        prompt_ids: what `render_prompt` gave, or any longer beginning of a sequence.
        max_new_tokens: most ids to generate, the end of sequence included.
        output_limits: most content items per output (frames for codes), those in the prompt counted; one item is
            always allowed. None, or too few of them, leaves outputs to `max_new_tokens`.
        aligned: codes that come after units which are their first codebook's must say those units, in their order, each
            for one frame or more. The grammar does not ask for it, but training never shows anything else, and a model
            that loses its place swallows words.
        banned: of `MODALITIES`, what an interleaved sequence writes no more of; a span that the prompt leaves open in
            it gives way to the other.

    Every output holds at least one item. A prefix that the prompt leaves open gets at least one more, unless its limit
    is reached.

    Raises:
        InputError: `max_new_tokens` is less than the shortest legal completion, the prompt breaks the grammar or stops
            before its generate mark, the vocabulary lacks a stream that the task gives, or nothing is left that is not
            banned.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_ids: np.ndarray | Sequence[int],
        *,
        max_new_tokens: int,
        output_limits: Sequence[int] | None = None,
        aligned: bool = False,
        banned: Sequence[str] = (),
    ) -> None:
        self.vocabulary = vocabulary
        self.remaining = max_new_tokens
        """Ids that may still be generated."""
        self.finished = False
        """The end of sequence was taken."""
        self.cut = False
        """A limit closed an output that could have gone on."""
        self._items = self._codebook = 0
        self._least = 1
        self._said: tuple[int, ...] = ()
        self._place: int | None = None
        self._counted = 0
        prompt = parse(prompt_ids, vocabulary)
        if prompt.start is None:
            raise InputError("the prompt stops before its generate mark; make it with render_prompt")
        self._interleaved = task_spec(prompt.task).interleaved
        self._banned, self._closing = frozenset(banned), False
        if banned and not (self._interleaved and self._banned < set(MODALITIES)):
            raise InputError(
                f"{' and '.join(banned)} banned from {prompt.task}: one of {', '.join(MODALITIES)} can be, of tasks "
                "that interleave them"
            )
        if self._interleaved:
            self._start_interleaved()
        else:
            self._start(prompt, output_limits or (), aligned)
        self.given = prompt.start
        """Ids of the prompt that are given: what follows is the beginning of an answer."""
        for token in np.asarray(prompt_ids)[prompt.start :].tolist():
            self._take(token)
        self._ask_for_more()
        if self.remaining_needed > max_new_tokens:
            raise InputError(
                f"max_new_tokens is {max_new_tokens}, but the shortest {prompt.task} output takes "
                f"{self.remaining_needed}; allow more tokens"
            )

    # -- construction -------------------------------------------------------------------------------------------

    def _start(self, prompt: Parsed, limits: Sequence[int], aligned: bool) -> None:
        slots: list[_Mark | _Content] = []
        kinds = output_kinds(prompt.task, prompt.flags)
        for index, kind in enumerate(kinds):
            if index:
                marks = (["<then>"] if task_spec(prompt.task).then else []) + [f"<gen:{kind}>"]
                slots += [_Mark(self.vocabulary.control(mark)) for mark in marks]
            content = self._content(kind, max(limits[index], 1) if index < len(limits) else UNLIMITED)
            content = replace(
                content, counted=kind == "units" and "durations" in kinds[index:], paired=kind == "durations"
            )
            if aligned and kind == "units" and "codes" in kinds[index:] and self._carried():
                content = replace(content, heard=True)
            elif aligned and kind == "codes" and "units" in kinds[:index] and self._carried():
                content = replace(content, follows=True)
            slots.append(content)
        slots.append(_Mark(self.vocabulary.eos))
        self._slots = slots
        self._tail = np.cumsum([slot.shortest for slot in slots][::-1])[::-1].tolist() + [0]
        self._at = 0

    def _content(self, kind: str, limit: int) -> _Content:
        if kind == "state":
            states = merge([_single(self.vocabulary.control(name)) for name in STATES])
            return _Content((states,), states, self.vocabulary.control(closer(kind)), 1, single=True, kind=kind)
        stream = self.vocabulary.main(STREAM_OF_KIND[kind])
        if stream is None:
            known = ", ".join(self.vocabulary.streams)
            raise InputError(f"this model has no {STREAM_OF_KIND[kind]}; its streams are {known}")
        roles = list(self.vocabulary.roles.values())
        books = range(len(stream.cardinalities))
        ranges = tuple(_without(merge(self.vocabulary.block_ranges(stream.name, q)), roles) for q in books)
        close = self.vocabulary.control(closer(kind))
        return _Content(ranges, merge([*ranges[0], _single(close)]), close, limit, kind=kind)

    def _carried(self) -> bool:
        """Whether the units are the codec's first codebook."""
        units, codes = self.vocabulary.main("units"), self.vocabulary.main("codes")
        return units is not None and codes is not None and units.views == codes.name

    def _start_interleaved(self) -> None:
        self._runs = {kind: self._content(kind, UNLIMITED).codebooks[0] for kind in MODALITIES}
        self._switch = {self.vocabulary.control(opener(kind)): kind for kind in MODALITIES}
        self._choices: dict[tuple[str | None, int], Ranges] = {}
        self._kind: str | None = None

    def _ask_for_more(self) -> None:
        """A prefix to continue does not count as the item that its output must hold."""
        if self.finished or self._interleaved or self._codebook:
            return
        slot = self._slots[self._at]
        if isinstance(slot, _Content) and self._items < slot.limit and not slot.paired:
            self._least = self._items + 1

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def remaining_needed(self) -> int:
        """Ids of the shortest legal completion."""
        if self.finished:
            return 0
        if self._interleaved:
            switches = self._kind is None or self._kind in self._banned
            return (3 if switches else 1) + (self._kind is not None and not self._items)
        slot = self._slots[self._at]
        if isinstance(slot, _Mark):
            return int(self._tail[self._at]) + self._owed
        items = max(self._least - self._items, 1 if self._codebook else 0)
        owed = max(self._items, self._least) - 1 if slot.counted else self._owed
        return items * len(slot.codebooks) - self._codebook + 1 + int(self._tail[self._at + 1]) + owed

    @property
    def _owed(self) -> int:
        """Items of a paired slot to come beyond the one that every slot has."""
        return max(self._counted - 1, 0)

    @property
    def _open(self) -> _Content | None:
        """The content that is written here; None at marks, at the end, and in interleaved sequences."""
        slot = None if self.finished or self._interleaved else self._slots[self._at]
        return slot if isinstance(slot, _Content) else None

    @property
    def kind(self) -> str:
        """Kind of the span that is written here; empty at marks and at the end."""
        if self._interleaved:
            return "" if self.finished else self._kind or ""
        return "" if self._open is None else self._open.kind

    @property
    def width(self) -> int:
        """Ids of one of its items."""
        return 1 if self._open is None else len(self._open.codebooks)

    @property
    def written(self) -> int:
        """Ids that it holds already, those of a prompt among them."""
        return self._items * self.width + self._codebook

    @property
    def state_key(self) -> Ranges:
        """The allowed ranges as a hashable value; equal keys mean equal masks, of any automaton."""
        return self.allowed()

    def allowed(self) -> Ranges:
        """Half-open ranges of the ids that may come next; empty once finished."""
        if self.finished:
            return ()
        if self._interleaved:
            return self._allowed_interleaved()
        slot = self._slots[self._at]
        if isinstance(slot, _Mark):
            return (_single(slot.id),)
        if slot.follows and self._place is not None and not self._codebook:
            return self._allowed_following(slot, self._place)
        if self._codebook or self._items < self._least:
            return slot.codebooks[self._codebook]
        if slot.paired:
            return (_single(slot.close),)
        # Here the shortest completion closes at once: a further item must fit beside it, and what is paired with it.
        paired = self._items if slot.counted else self._owed
        room = self.remaining - 1 - self._tail[self._at + 1] - paired >= len(slot.codebooks)
        return slot.choice if room and self._items < slot.limit else (_single(slot.close),)

    def _allowed_following(self, slot: _Content, place: int) -> Ranges:
        """The unit that is being said, the next one, and the end where all were said or the limit is reached."""
        last = place == len(self._said) - 1
        ids = self._said[max(place, 0) : place + 2]
        if self._items < self._least:
            return merge([_single(token) for token in ids])
        room = self.remaining - 1 - self._tail[self._at + 1] >= len(slot.codebooks)
        if not room or self._items >= slot.limit:
            return (_single(slot.close),)
        return merge([_single(token) for token in (*ids, *((slot.close,) if last else ()))])

    def _allowed_interleaved(self) -> Ranges:
        if self._kind is not None and not self._items:
            return self._runs[self._kind]
        if self._closing:
            return (_single(self.vocabulary.eos),)
        spare = min(self.remaining - self.remaining_needed, 2)  # 1: one more item; 2: a switch and its item
        key = (self._kind, spare)
        if key not in self._choices:
            others = {token: kind for token, kind in self._switch.items() if kind not in self._banned}
            ranges = [_single(token) for token, kind in others.items() if kind != self._kind]
            if self._kind is not None and self._kind not in self._banned:
                ranges = ranges if spare >= 2 else []
                ranges += [_single(self.vocabulary.eos), *(self._runs[self._kind] if spare >= 1 else ())]
            self._choices[key] = merge(ranges)
        return self._choices[key]

    def mask(self, size: int) -> np.ndarray:
        """(size,) bool, True where an id may come next; nothing is kept of it.

        `size` may exceed the vocabulary's: the rest is padding, which is never allowed. Decoders make masks of many
        states together, from `allowed` (`unitok.generation.allowed_ids`).
        """
        mask = np.zeros(size, dtype=np.bool_)
        for start, stop in self.allowed():
            mask[start:stop] = True
        return mask

    # -- steps --------------------------------------------------------------------------------------------------

    def advance(self, token: int) -> None:
        """Take the next id, which must be an allowed one."""
        assert any(start <= token < stop for start, stop in self.allowed()), f"id {token} is not allowed here"
        self.cut = self.cut or self._must_close()
        self.remaining -= 1
        self._take(token)

    def close(self) -> None:
        """Let no further item into the span that is written here, as a limit would; an interleaved sequence ends.

        For who sees what the grammar does not: that the span goes round in a cycle.
        """
        if self._interleaved:
            self._closing = self._kind is not None and self._items > 0
        elif (slot := self._open) is not None and not slot.paired:
            closed = replace(slot, limit=max(self._items, 1))
            self._slots = [*self._slots[: self._at], closed, *self._slots[self._at + 1 :]]  # copies have the old ones

    def _must_close(self) -> bool:
        """Whether a limit withdraws the content that the grammar would allow here."""
        if self._interleaved:
            short = self.remaining <= self.remaining_needed and self._kind not in self._banned
            return self._kind is not None and self._items > 0 and (short or self._closing)
        slot = self._slots[self._at]
        if not isinstance(slot, _Content) or slot.single or slot.paired:
            return False
        return self.allowed() == (_single(slot.close),)

    def _take(self, token: int) -> None:
        if self._interleaved:
            if token == self.vocabulary.eos:
                self.finished = True
            elif token in self._switch:
                self._kind, self._items = self._switch[token], 0
            else:
                self._items += 1
            return
        slot = self._slots[self._at]
        if isinstance(slot, _Mark) or token == slot.close:
            if isinstance(slot, _Content) and slot.heard:
                self._place = -1
            if isinstance(slot, _Content) and slot.counted:
                self._counted = self._items
            self._at += 1
            self._items = self._codebook = 0
            self.finished = self._at == len(self._slots)
            self._least = 1
            following = None if self.finished else self._slots[self._at]
            if isinstance(following, _Content) and following.paired:
                self._least, self._counted = self._counted, 0
            return
        if slot.heard and self._said[-1:] != (token,):
            self._said = (*self._said, token)
        elif slot.follows and not self._codebook and self._place is not None:
            self._place = self._follow(self._place, token)
        self._codebook = (self._codebook + 1) % len(slot.codebooks)
        self._items += self._codebook == 0

    def _follow(self, place: int, token: int) -> int | None:
        """The place of a frame among the units said; None for good where a prompt's codes have left them."""
        if place >= 0 and token == self._said[place]:
            return place
        return place + 1 if self._said[place + 1 : place + 2] == (token,) else None

    def copy(self) -> Automaton:
        """An independent automaton in the same state, for a beam; tables are shared."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin
