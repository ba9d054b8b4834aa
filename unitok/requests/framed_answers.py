"""Answers whose codes stand beside ids: how they are asked for, and what they say once they stand.

N ids of an answer, F frames, Q codebooks, S slots.
"""

from __future__ import annotations

import numpy as np

from unitok.generation.framed import Given, SlotOptions
from unitok.generation.length_limits import Limits
from unitok.generation.token_request import TokenRequest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.positions import FLUSH, Frames, ids_of_frames
from unitok_tokenizers.grammar.sequence import STREAM_OF_KIND, Parsed, SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.registry import output_kinds
from unitok_tokenizers.grammar.vocabulary import Vocabulary


def stream_of(kind: str, vocabulary: Vocabulary) -> StreamInfo | None:
    """The main stream of a kind of output; None where it has none."""
    return None if kind not in STREAM_OF_KIND else vocabulary.main(STREAM_OF_KIND[kind])


def slot_options(vocabulary: Vocabulary, plan: SequenceSpec, given: Given | None) -> SlotOptions | None:
    """How codes come to stand beside the ids of an answer to a plan; None where none do.

    What a prefix says of frames whose delayed codes are still to come is given, not said anew; `given` says the rest.
    """
    pattern = vocabulary.framed
    streams = [stream_of(kind, vocabulary) for kind in output_kinds(plan.task, plan.flags)]
    if pattern is None or pattern.stream not in {one.name for one in streams if one is not None}:
        return None
    if not pattern.flush:
        return SlotOptions(given=given)
    if plan.outputs and streams[0] is not None and streams[0].name == pattern.stream:
        first = plan.outputs[0]
        given = DelayedPrefix(pattern, first.content[: plan.forced or len(first)], given)
    return SlotOptions(flush=vocabulary.control(FLUSH), given=given)


class DelayedPrefix:
    """Codes of a prefix that its delays bring behind it: `unitok.generation.framed.Given`.

    Args:
        pattern: where codes stand, one frame a position.
        codes: (F, Q) of the prefix.
        given: what is given beside them.
    """

    def __init__(self, pattern: FramePattern, codes: np.ndarray, given: Given | None) -> None:
        self.pattern, self.codes, self.given = pattern, codes, given

    def __call__(self, number: int) -> list[int]:
        """(S,) codes at the answer's position `number` with slots, -1 where none is given."""
        found = [ABSENT] * len(self.pattern.slots) if self.given is None else [int(one) for one in self.given(number)]
        place = len(self.codes) + number
        for slot, one in enumerate(self.pattern.slots):
            if place - len(self.codes) < one.delay <= place:
                found[slot] = int(self.codes[place - one.delay, one.codebook])
        return found


def parsed_answer(vocabulary: Vocabulary, asked: TokenRequest, ids: np.ndarray, frames: Frames | None = None) -> Parsed:
    """What a prompt and its answer, ids (N,) and what stands beside them, say together."""
    pattern = vocabulary.framed
    if pattern is not None:
        frames = Frames.joined([(len(asked.prompt), asked.frames), (len(ids), frames)], len(pattern.slots))
    return parse(np.concatenate([asked.prompt, ids]), vocabulary, frames)


def check_whole(span: Span) -> None:
    """InputError for frames of codes of which a second pass was to find some, and has not."""
    lacking = sorted({int(book) for book in np.argwhere(span.content == ABSENT)[:, 1]})
    if lacking:
        raise InputError(
            f"codebooks {lacking} of {span.stream!r} are found by a second pass, and this model has none: "
            "take the codes as they are, or a model directory with its second pass"
        )


def most_ids(vocabulary: Vocabulary, limits: Limits, plan: SequenceSpec) -> int:
    """Most ids that an answer to a plan may take, marks and the end of sequence included."""
    total, kinds = 1, output_kinds(plan.task, plan.flags)
    for kind, size in zip(kinds, limits.of(plan)):
        total += 3 + _ids(vocabulary, stream_of(kind, vocabulary), size)
    return total if kinds else 256


def sizes_within(limit: int, vocabulary: Vocabulary, limits: Limits, plan: SequenceSpec) -> list[int]:
    """Most content items of each output where the answer may take `limit` ids: more than training has shown where that
    is more than `most_ids`."""
    learned = most_ids(vocabulary, limits, plan)
    return [size * max(limit, learned) // learned for size in limits.of(plan)]


def _ids(vocabulary: Vocabulary, stream: StreamInfo | None, items: int) -> int:
    """Ids that so many items of a stream take."""
    if stream is None or stream.kind != "codes":
        return items
    pattern = vocabulary.patterns.get(stream.name)
    return int(ids_of_frames(pattern, np.asarray(items), len(stream.cardinalities)))


class FrameStream:
    """Ids and the codes beside them in, frames out as soon as all their codes are known.

    Args:
        vocabulary: of a model that has codes beside ids.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        pattern = vocabulary.framed
        assert pattern is not None
        self.vocabulary, self.pattern = vocabulary, pattern
        self._flush = vocabulary.control(FLUSH)
        self._inline: list[int] = []
        """Codes of the position that is not whole."""
        self._places: list[tuple[list[int], np.ndarray]] = []
        """The last positions, as many as delays reach: inline codes (I,) and slots (S,)."""

    def push(self, token: int, slots: np.ndarray | None) -> np.ndarray:
        """Take an id and the codes (S,) beside it, None where its position has none; returns frames (F, Q) that are
        complete now. Slots that a second pass fills hold -1."""
        books, meaning = len(self.pattern.inline), self.vocabulary.describe(token)
        if meaning.tokenizer == self.pattern.stream:
            self._inline.append(meaning.local)
        if slots is None:
            if meaning.tokenizer != self.pattern.stream:  # the span has ended
                self._inline, self._places = [], []
            return self._none()
        inline = self._inline if token != self._flush else [ABSENT] * books
        self._inline = []
        self._places.append((inline, slots))
        if len(self._places) <= self.pattern.flush:
            return self._none()
        codes = np.asarray([one for one, _ in self._places], np.int64).reshape(len(self._places), books)
        found = self.pattern.gather(codes, np.stack([one for _, one in self._places]))
        self._places.pop(0)
        return found

    def begin(self, codes: np.ndarray) -> np.ndarray:
        """Take the frames (F, Q) that an answer begins with; returns those that delays do not hold back."""
        inline, slots = self.pattern.lay(codes)
        places = len(codes) // self.pattern.frames  # what only begins a group is said anew
        whole = max(places - self.pattern.flush, 0)
        self._places = [(inline[place].tolist(), slots[place]) for place in range(whole, places)]
        return codes[: whole * self.pattern.frames]

    def _none(self) -> np.ndarray:
        return np.zeros((0, len(self.pattern.cardinalities)), np.int64)
