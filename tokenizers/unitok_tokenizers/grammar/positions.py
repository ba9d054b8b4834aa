"""How the codes of a span become positions of a sequence, and back: ids in order, and slots beside some of them.

    flat         a0 a1 a2 | a0 a1 a2 | …                      every codebook inline
    two passes   a0 | a0 | … <fine> a1 a2 | a1 a2 | …         `coarse` codebooks of all frames, then the others
    slots        a0 | a0 | … <flush> …                        the others stand beside the last inline id of a position
    nothing inline   <frame> | <frame> | …                    all codes stand beside a mark

F frames, Q codebooks, P positions with slots, I inline codebooks, S slots, N ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.vocabulary import Vocabulary

FRAME, FLUSH, FINE = "<frame>", "<flush>", "<fine>"
"""Marks: a position of codes without an id of their own, one behind the last frame, and between two passes."""


@dataclass(frozen=True, eq=False)
class Frames:
    """Codes beside ids."""

    index: np.ndarray
    """(P,) int64 places in the ids that have slots, ascending."""
    slots: np.ndarray
    """(P, S) int64 codes there, -1 where a slot holds none."""

    def __post_init__(self) -> None:
        assert self.index.ndim == 1 and self.slots.ndim == 2 and len(self.index) == len(self.slots), "a row for each"

    def __len__(self) -> int:
        """Positions with slots."""
        return len(self.index)

    def shifted(self, places: int) -> Frames:
        """The same so many ids later."""
        return Frames(self.index + places, self.slots)

    @staticmethod
    def none(slots: int) -> Frames:
        """Of ids none of which has slots."""
        return Frames(np.zeros(0, np.int64), np.zeros((0, slots), np.int64))

    @staticmethod
    def joined(parts: Sequence[tuple[int, Frames | None]], slots: int) -> Frames:
        """Of sequences one after another: (ids, their slots) of each."""
        found, behind = [Frames.none(slots)], 0
        for length, frames in parts:
            if frames is not None:
                found.append(frames.shifted(behind))
            behind += length
        return Frames(np.concatenate([one.index for one in found]), np.concatenate([one.slots for one in found]))


@dataclass(frozen=True, eq=False)
class Laid:
    """A run of ids."""

    ids: np.ndarray
    """(N,) int64."""
    frames: Frames | None = None
    """What stands beside them; None where nothing can."""

    def __len__(self) -> int:
        """Ids N."""
        return len(self.ids)

    @staticmethod
    def joined(parts: Sequence[Laid], vocabulary: Vocabulary) -> Laid:
        """One after another; with frames, be it none, where the vocabulary has slots."""
        ids, pattern = np.concatenate([one.ids for one in parts]), vocabulary.framed
        if pattern is None:
            return Laid(ids)
        return Laid(ids, Frames.joined([(len(one), one.frames) for one in parts], len(pattern.slots)))


def lay_codes(codes: np.ndarray, stream: str, vocabulary: Vocabulary) -> Laid:
    """Codes (F, Q) of a stream → ids and what stands beside them.

    Raises:
        InputError: a code outside its codebook.
    """
    pattern = vocabulary.patterns.get(stream)
    if pattern is None:
        columns = [vocabulary.to_ids(stream, codes[:, q], q) for q in range(codes.shape[1])]
        return Laid(np.stack(columns, axis=1).reshape(-1))  # (F, Q) -> (F * Q,)
    inline, slots = pattern.lay(codes)
    whole = len(inline) - pattern.flush if len(inline) else 0
    rows = [vocabulary.to_ids(stream, inline[:whole, place], book) for place, book in enumerate(pattern.inline)]
    ids = np.stack(rows or [np.full(whole, vocabulary.control(FRAME), np.int64)], axis=1)  # (P', I or 1)
    if pattern.coarse:
        between = np.full(min(whole, 1), vocabulary.control(FINE), np.int64)
        return Laid(
            np.concatenate([ids[:, : pattern.coarse].reshape(-1), between, ids[:, pattern.coarse :].reshape(-1)])
        )
    flush = np.full(len(inline) - whole, vocabulary.control(FLUSH), np.int64)
    body = ids.reshape(-1)
    index = places_with_slots(pattern, whole, len(flush))
    return Laid(np.concatenate([body, flush]), Frames(index, slots) if pattern.slots else None)


def places_with_slots(pattern: FramePattern, whole: int, flush: int) -> np.ndarray:
    """(P,) places of the ids beside which slots stand, of so many positions and marks behind them: each last id."""
    width = max(len(pattern.inline), 1)
    return np.concatenate([np.arange(1, whole + 1) * width - 1, whole * width + np.arange(flush)])


def ids_of_frames(pattern: FramePattern | None, frames: np.ndarray, books: int) -> np.ndarray:
    """Ids that spans of so many frames (any shape) take, as `lay_codes` lays them."""
    if pattern is None:
        return frames * books
    width = max(len(pattern.inline), 1)
    behind = 1 if pattern.coarse else pattern.flush
    return -(-frames // pattern.frames) * width + np.where(frames > 0, behind, 0)


def leading_ids(pattern: FramePattern | None, given: int, books: int) -> int:
    """Ids at the head of a span that its first `given` frames fix, slots beside them included.

    Of a group that is begun, and of what is delayed, the rest is still to be said.
    """
    if pattern is None:
        return given * books
    return given * pattern.coarse if pattern.coarse else given // pattern.frames * max(len(pattern.inline), 1)


def given_ids(pattern: FramePattern | None, frames: int, given: int, books: int) -> np.ndarray:
    """(N,) bool: ids of a span of so many frames that its first `given` ones fix, behind `<fine>` too."""
    mask = np.zeros(int(ids_of_frames(pattern, np.asarray(frames), books)), np.bool_)
    mask[: leading_ids(pattern, given, books)] = True
    if pattern is not None and pattern.coarse:
        fine = frames * pattern.coarse + 1
        mask[fine : fine + given * (books - pattern.coarse)] = True
    return mask | (given == frames)


def codes_of(pattern: FramePattern, inline: np.ndarray, flushed: int, slots: np.ndarray | None) -> np.ndarray:
    """The frames (F, Q) that positions hold, those that are complete: the inverse of `lay_codes` with slots.

    Args:
        pattern: where codes stand.
        inline: (P', I) local ids of the positions before the first `<flush>`.
        flushed: marks behind them.
        slots: (P' + flushed, S), or None where they are not known: their codes are -1.
    """
    padded = np.concatenate([inline, np.full((flushed, inline.shape[1]), ABSENT, np.int64)])
    codes = pattern.gather(padded, np.zeros((len(padded), len(pattern.slots)), np.int64) if slots is None else slots)
    if slots is None:
        for one in pattern.slots:
            codes[one.frame :: pattern.frames, one.codebook] = ABSENT
    return codes
