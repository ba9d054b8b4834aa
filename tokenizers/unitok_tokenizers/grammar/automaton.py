"""The decode-time automaton: which ids may come next, so that every output is well formed within its limit.

A sequence's output is a list of slots: marks that are forced, and content runs that may end once they hold an item.
The automaton counts what the shortest legal completion still costs and withdraws content while there is just room
for it. States with equal choices share one key, so that a decoder makes a mask once for all sequences in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.output_slots import Content, Mark, Ranges, merge, only, without
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.positions import FINE, FLUSH, FRAME
from unitok_tokenizers.grammar.sequence import STREAM_OF_KIND, Parsed
from unitok_tokenizers.grammar.tasks.base import MODALITIES, STATES, closer, opener
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec
from unitok_tokenizers.grammar.vocabulary import Vocabulary

UNLIMITED = 1 << 62


class Automaton:
    """Follows one sequence from its prompt to its end.

    Args:
        vocabulary: the ids.
        prompt_ids: what `render_prompt` gave, or any longer beginning of a sequence.
        max_new_tokens: most ids to generate, the end of sequence included.
        output_limits: most content items per output (frames for codes; where a position holds a group of them, as many
            groups as fit), those in the prompt counted; one item is always allowed. None, or too few of them, leaves
            outputs to `max_new_tokens`.
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
        self._items = self._codebook = self._behind = 0
        self._ended = False
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
        slots: list[Mark | Content] = []
        kinds = output_kinds(prompt.task, prompt.flags)
        for index, kind in enumerate(kinds):
            if index:
                marks = (["<then>"] if task_spec(prompt.task).then else []) + [f"<gen:{kind}>"]
                slots += [Mark(self.vocabulary.control(mark)) for mark in marks]
            content = self._content(kind, max(limits[index], 1) if index < len(limits) else UNLIMITED)
            content = replace(
                content, counted=kind == "units" and "durations" in kinds[index:], paired=kind == "durations"
            )
            if aligned and kind == "units" and "codes" in kinds[index:] and self._carried():
                content = replace(content, heard=True)
            elif aligned and kind == "codes" and "units" in kinds[:index] and self._carried():
                content = replace(content, follows=True)
            slots.append(content)
        slots.append(Mark(self.vocabulary.eos))
        self._slots = slots
        self._tail = np.cumsum([slot.shortest for slot in slots][::-1])[::-1].tolist() + [0]
        self._at = 0

    def _content(self, kind: str, limit: int) -> Content:
        if kind == "state":
            states = merge([only(self.vocabulary.control(name)) for name in STATES])
            return Content((states,), self.vocabulary.control(closer(kind)), 1, single=True, kind=kind)
        stream = self.vocabulary.main(STREAM_OF_KIND[kind])
        if stream is None:
            wanted, known = STREAM_OF_KIND[kind], ", ".join(self.vocabulary.streams)
            direct = wanted == "units" and self.vocabulary.main("codes") is not None
            remedy = "; a task that writes codes at once, such as vtts, needs none" if direct else ""
            raise InputError(f"this model has no {wanted}, which the task writes; its streams are {known}{remedy}")
        close, pattern = self.vocabulary.control(closer(kind)), self.vocabulary.patterns.get(stream.name)
        books = range(len(stream.cardinalities)) if pattern is None else pattern.inline
        ranges = tuple(self._ids_of(stream.name, book) for book in books)
        if pattern is None:
            return Content(ranges, close, limit, kind=kind)
        if pattern.coarse:
            first, again = ranges[: pattern.coarse], ranges[pattern.coarse :]
            return Content(first, close, limit, (self._mark(FINE),), again, kind=kind)
        ranges, behind = ranges or (self._mark(FRAME),), (self._mark(FLUSH),) * pattern.flush
        limit = max(limit // pattern.frames, 1)
        return Content(ranges, close, limit, behind, slots=bool(pattern.slots), kind=kind)

    def _ids_of(self, stream: str, codebook: int) -> Ranges:
        return without(merge(self.vocabulary.block_ranges(stream, codebook)), list(self.vocabulary.roles.values()))

    def _mark(self, name: str) -> Ranges:
        return (only(self.vocabulary.control(name)),)

    def _carried(self) -> bool:
        """Whether the units are the codec's first codebook, which comes first at every frame."""
        units, codes = self.vocabulary.main("units"), self.vocabulary.main("codes")
        if units is None or codes is None or units.views != codes.name:
            return False
        pattern = self.vocabulary.patterns.get(codes.name)
        return pattern is None or (pattern.inline[0] == 0 and pattern.frames == 1)

    def _start_interleaved(self) -> None:
        self._runs = {kind: self._content(kind, UNLIMITED).codebooks[0] for kind in MODALITIES}
        self._switch = {self.vocabulary.control(opener(kind)): kind for kind in MODALITIES}
        self._choices: dict[tuple[str | None, int], Ranges] = {}
        self._kind: str | None = None

    def _ask_for_more(self) -> None:
        """A prefix to continue does not count as the item that its output must hold."""
        if self.finished or self._interleaved or self._codebook or self._behind:
            return
        slot = self._slots[self._at]
        if isinstance(slot, Content) and self._items < slot.limit and not slot.paired:
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
        if isinstance(slot, Mark):
            return int(self._tail[self._at]) + self._owed
        items = max(self._least - self._items, 1 if self._codebook else 0)
        owed = max(self._items, self._least) - 1 if slot.counted else self._owed
        owed += slot.owed(self._items + items) - self._behind
        return items * len(slot.codebooks) - self._codebook + 1 + int(self._tail[self._at + 1]) + owed

    @property
    def _owed(self) -> int:
        """Items of a paired slot to come beyond the one that every slot has."""
        return max(self._counted - 1, 0)

    @property
    def _open(self) -> Content | None:
        """The content that is written here; None at marks, at the end, and in interleaved sequences."""
        slot = None if self.finished or self._interleaved else self._slots[self._at]
        return slot if isinstance(slot, Content) else None

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
    def behind(self) -> int:
        """Ids that were forced behind its last item: marks, or a second pass."""
        return 0 if self._interleaved else self._behind

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
        if isinstance(slot, Mark):
            return (only(slot.id),)
        if self._behind:
            return slot.forced(self._behind, self._items)
        if self._ended:
            return slot.stop
        if slot.follows and self._place is not None and not self._codebook:
            return self._allowed_following(slot, self._place)
        if self._codebook or self._items < self._least:
            return slot.codebooks[self._codebook]
        if slot.paired:
            return slot.stop
        # Here the shortest completion closes at once: a further item must fit beside it, and what is paired with it.
        return slot.choice if self._room(slot) and self._items < slot.limit else slot.stop

    def _room(self, slot: Content) -> bool:
        """Whether one more item, and all that it entails, fits."""
        paired = self._items if slot.counted else self._owed
        entailed = 1 + int(self._tail[self._at + 1]) + paired + slot.owed(self._items + 1)
        return self.remaining - entailed >= len(slot.codebooks)

    def _allowed_following(self, slot: Content, place: int) -> Ranges:
        """The unit that is being said, the next one, and the end where all were said or the limit is reached."""
        last = place == len(self._said) - 1
        ids = self._said[max(place, 0) : place + 2]
        if self._items < self._least:
            return merge([only(token) for token in ids])
        if not self._room(slot) or self._items >= slot.limit:
            return slot.stop
        return merge([*(only(token) for token in ids), *(slot.stop if last else ())])

    def _allowed_interleaved(self) -> Ranges:
        if self._kind is not None and not self._items:
            return self._runs[self._kind]
        if self._closing:
            return (only(self.vocabulary.eos),)
        spare = min(self.remaining - self.remaining_needed, 2)  # 1: one more item; 2: a switch and its item
        key = (self._kind, spare)
        if key not in self._choices:
            others = {token: kind for token, kind in self._switch.items() if kind not in self._banned}
            ranges = [only(token) for token, kind in others.items() if kind != self._kind]
            if self._kind is not None and self._kind not in self._banned:
                ranges = ranges if spare >= 2 else []
                ranges += [only(self.vocabulary.eos), *(self._runs[self._kind] if spare >= 1 else ())]
            self._choices[key] = merge(ranges)
        return self._choices[key]

    @property
    def places(self) -> int:
        """Positions with codes beside them so far, in the span of codes that is open."""
        return self._items + self._behind

    def framed(self, token: int) -> bool:
        """Whether codes stand beside the next id if it is this one, which must be an allowed one."""
        slot = None if self.finished or self._interleaved else self._slots[self._at]
        if not isinstance(slot, Content) or not slot.slots or token == slot.close:
            return False
        return bool(self._behind) or self._ends(slot, token) or self._codebook == len(slot.codebooks) - 1

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

    def end_span(self) -> None:
        """Let the span that is written here end with the item that was taken: a layout says so by what it lacks."""
        self._ended = not self._interleaved

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
        if not isinstance(slot, Content) or slot.single or slot.paired or self._behind or self._ended:
            return False
        return self.allowed() == slot.stop

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
        if isinstance(slot, Mark) or token == slot.close:
            if isinstance(slot, Content) and slot.heard:
                self._place = -1
            if isinstance(slot, Content) and slot.counted:
                self._counted = self._items
            self._at += 1
            self._items = self._codebook = self._behind = 0
            self._ended = False
            self.finished = self._at == len(self._slots)
            self._least = 1
            following = None if self.finished else self._slots[self._at]
            if isinstance(following, Content) and following.paired:
                self._least, self._counted = self._counted, 0
            return
        if self._behind or self._ends(slot, token):
            self._behind += 1
            return
        if slot.heard and self._said[-1:] != (token,):
            self._said = (*self._said, token)
        elif slot.follows and not self._codebook and self._place is not None:
            self._place = self._follow(self._place, token)
        self._codebook = (self._codebook + 1) % len(slot.codebooks)
        self._items += self._codebook == 0

    def _ends(self, slot: Content, token: int) -> bool:
        """Whether an id is the first of those behind the items."""
        return bool(slot.behind) and not self._codebook and slot.behind[0] == (only(token),)

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
