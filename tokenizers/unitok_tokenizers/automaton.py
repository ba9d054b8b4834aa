"""The decode-time automaton: which ids may come next, so that every output is well formed within its limit.

A sequence's output is a list of slots: marks that are forced, and content runs that may end once they hold an item.
The automaton counts what the shortest legal completion still costs and withdraws content while there is just room
for it. States with equal choices share one key, so that a decoder masks a whole batch with one table look-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar import Parsed, closer, output_kinds, parse, task_line
from unitok_tokenizers.vocabulary import Vocabulary

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Mark:
    """One forced id."""

    id: int

    shortest = 1


@dataclass(frozen=True)
class _Content:
    """A run of items, each one id per codebook, closed by `close`."""

    codebooks: tuple[Ranges, ...]
    close: int
    limit: int
    """Most items; further ones are not allowed."""

    @property
    def shortest(self) -> int:
        """Ids of one item and the closer."""
        return len(self.codebooks) + 1


def _single(token: int) -> tuple[int, int]:
    return (token, token + 1)


def _merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)


def _without(ranges: Sequence[tuple[int, int]], banned: Sequence[int]) -> Ranges:
    """Take single ids out of ranges: a host model's bos, eos and pad stand among its text pieces."""
    kept = list(ranges)
    for token in banned:
        kept = [
            part
            for start, stop in kept
            for part in (((start, token), (token + 1, stop)) if start <= token < stop else ((start, stop),))
            if part[0] < part[1]
        ]
    return tuple(kept)


class Automaton:
    """Follows one sequence from its prompt to its end.

    Args:
        vocabulary: the ids.
        prompt_ids: what `render_prompt` gave, a content prefix included.
        max_new_tokens: most ids to generate, the end of sequence included.
        output_limits: most content items per output (frames for codes); None leaves them to `max_new_tokens`.

    Raises:
        InputError: `max_new_tokens` is less than the shortest legal completion.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt_ids: np.ndarray | Sequence[int],
        *,
        max_new_tokens: int,
        output_limits: Sequence[int] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.remaining = max_new_tokens
        self.finished = False
        prompt = parse(prompt_ids, vocabulary)
        self.interleaved = prompt.task == "ilm"
        self._masks: dict[Ranges, np.ndarray] = {}
        self._items = self._codebook = 0
        self._keys: dict[tuple[int, ...], Ranges] = {}
        self._start(prompt, output_limits or ())
        if self.remaining_needed > max_new_tokens:
            raise InputError(
                f"max_new_tokens is {max_new_tokens}, but the shortest {prompt.task} output takes "
                f"{self.remaining_needed}; allow more tokens"
            )

    # -- construction -------------------------------------------------------------------------------------------

    def _start(self, prompt: Parsed, limits: Sequence[int]) -> None:
        if self.interleaved:
            self._start_interleaved(prompt)
            return
        kinds = output_kinds(prompt.task, prompt.flags)
        then = task_line(prompt.task).then
        slots: list[_Mark | _Content] = []
        for index, kind in enumerate(kinds):
            if index:
                marks = (["<then>"] if then else []) + [f"<gen:{kind}>"]
                slots += [_Mark(self.vocabulary.control(mark)) for mark in marks]
            limit = limits[index] if index < len(limits) else 1 << 30
            slots.append(self._content(kind, max(limit, 1)))
        slots.append(_Mark(self.vocabulary.eos))
        self._slots = slots
        self._tail = np.cumsum([slot.shortest for slot in slots][::-1])[::-1].tolist() + [0]
        self._at = 0
        self._prefix(prompt)

    def _content(self, kind: str, limit: int) -> _Content:
        stream = {"text": self.vocabulary.text.name}.get(kind, kind)
        if stream not in self.vocabulary.streams:
            raise InputError(f"this model has no {kind}; its streams are {', '.join(self.vocabulary.streams)}")
        count = len(self.vocabulary.streams[stream].cardinalities)
        roles = tuple(self.vocabulary.roles.values())
        ranges = tuple(_without(_merge(self.vocabulary.block_ranges(stream, q)), roles) for q in range(count))
        return _Content(ranges, self.vocabulary.control(closer(kind)), limit)

    def _prefix(self, prompt: Parsed) -> None:
        """Account for content that the prompt gave already."""
        given = prompt.outputs[0] if prompt.outputs else None
        if given is not None:
            self._items = len(given)
            first = self._slots[0]
            assert isinstance(first, _Content)
            if self._items >= first.limit:  # the limit counts the given items too; leave room to close
                self._slots[0] = _Content(first.codebooks, first.close, self._items)

    def _start_interleaved(self, prompt: Parsed) -> None:
        self._runs = {kind: self._content(kind, 1 << 30) for kind in ("text", "units")}
        self._switch = {kind: self.vocabulary.control(f"<{kind}>") for kind in self._runs}
        self._kind = prompt.outputs[-1].kind if prompt.outputs else None
        self._items = len(prompt.outputs[-1]) if prompt.outputs else 0

    # -- state --------------------------------------------------------------------------------------------------

    @property
    def remaining_needed(self) -> int:
        """Ids of the shortest legal completion."""
        if self.finished:
            return 0
        if self.interleaved:
            return 3 if self._kind is None else 2 if not self._items else 1
        slot = self._slots[self._at]
        if isinstance(slot, _Mark):
            return self._tail[self._at]
        return self._content_need(slot) + self._tail[self._at + 1]

    def _content_need(self, slot: _Content) -> int:
        width = len(slot.codebooks)
        if self._codebook:
            return width - self._codebook + 1
        return 1 if self._items else width + 1

    @property
    def state_key(self) -> Ranges:
        """The allowed ranges as a hashable value; equal keys mean equal masks."""
        return tuple(self.allowed())

    def allowed(self) -> Ranges:
        """Half-open ranges of the ids that may come next; empty once finished."""
        if self.finished:
            return ()
        if self.interleaved:
            return self._allowed_interleaved()
        slot = self._slots[self._at]
        if isinstance(slot, _Mark):
            return (_single(slot.id),)
        if self._codebook or not self._items:
            return slot.codebooks[self._codebook]
        room = self.remaining - self.remaining_needed >= len(slot.codebooks)
        if room and self._items < slot.limit:
            return self._open_choice(slot)
        return (_single(slot.close),)

    def _open_choice(self, slot: _Content) -> Ranges:
        key = (self._at,)
        if key not in self._keys:
            self._keys[key] = _merge([*slot.codebooks[0], _single(slot.close)])
        return self._keys[key]

    def _allowed_interleaved(self) -> Ranges:
        spare = self.remaining - self.remaining_needed
        if self._kind is None:
            return _merge([_single(token) for token in self._switch.values()])
        run = self._runs[self._kind].codebooks[0]
        if not self._items:
            return run
        choices = [_single(self.vocabulary.eos)]
        if spare >= 1:
            choices += run
        if spare >= 2:
            choices += [_single(token) for kind, token in self._switch.items() if kind != self._kind]
        return _merge(choices)

    def mask(self, size: int) -> np.ndarray:
        """(size,) bool: True where an id may come next; made once per distinct state."""
        key = self.state_key
        if key not in self._masks:
            mask = np.zeros(size, dtype=np.bool_)
            for start, stop in key:
                mask[start:stop] = True
            self._masks[key] = mask
        return self._masks[key]

    def advance(self, token: int) -> None:
        """Take the next id, which must be an allowed one."""
        assert any(start <= token < stop for start, stop in self.allowed()), f"id {token} is not allowed here"
        self.remaining -= 1
        if self.interleaved:
            self._advance_interleaved(token)
            return
        slot = self._slots[self._at]
        if isinstance(slot, _Mark) or token == slot.close:
            self._at += 1
            self._items = self._codebook = 0
            self.finished = self._at == len(self._slots)
            return
        self._codebook = (self._codebook + 1) % len(slot.codebooks)
        self._items += self._codebook == 0

    def _advance_interleaved(self, token: int) -> None:
        if token == self.vocabulary.eos:
            self.finished = True
            return
        switched = next((kind for kind, mark in self._switch.items() if mark == token), None)
        if switched is not None:
            self._kind, self._items = switched, 0
        else:
            self._items += 1

    def copy(self) -> Automaton:
        """An independent automaton in the same state, for a beam."""
        twin = Automaton.__new__(Automaton)
        twin.__dict__.update(self.__dict__)
        return twin
