"""Translations laid beside the speech they are of, so that no word is said before what it translates was heard.

A target word is aligned to the source word that makes it likely (contextual alignment, Labiausse et al. 2025, Hibiki):
the one by which the log-probability of a text translation model rises most. In the stream of the target every word then
waits for the end of its source word, and silence, or padding, fills what is left.

I source words, J target words, F frames, N positions, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError

TimedWord = tuple[str, float, float]
"""(word, start, end) in seconds."""


def contextual_alignment(logprobs: np.ndarray) -> np.ndarray:
    """Source word of each target word: argmax over i of log P(T_j | S_≤i) − log P(T_j | S_<i).

    Args:
        logprobs: (I + 1, J) log P(T_j | T_<j, the first i source words), row 0 without any.

    Returns:
        (J,) int64 from 0 to I − 1; the first of several that are equal.
    """
    table = np.asarray(logprobs, np.float64)
    if table.ndim != 2 or len(table) < 2:
        raise InputError(f"log-probabilities of shape {table.shape}: give a row for no source word, and one for each")
    found: np.ndarray = np.diff(table, axis=0).argmax(axis=0)
    return found


def waits_for_source(alignment: Sequence[int] | np.ndarray, source: Sequence[TimedWord]) -> np.ndarray:
    """(J,) seconds before which each target word may not begin: the ends of the source words they are aligned to.

    Words are said in their order, so that each waits for what those before it wait for.
    """
    ends = np.array([end for _, _, end in source])
    return np.maximum.accumulate(ends[np.asarray(alignment, np.int64)])


def waits_for_words(count: int, source: Sequence[TimedWord], ahead: int) -> np.ndarray:
    """(J,) the same by wait-k (Ma et al. 2019): word j waits for `ahead` + j source words, counted from 0, or all."""
    places = np.minimum(np.arange(count) + ahead, len(source)) - 1
    return np.array([source[place][2] for place in places])


def waits_by_delay(target: Sequence[TimedWord], delay: float) -> np.ndarray:
    """(J,) the same by a constant delay in seconds behind when the target's own recording says each word."""
    return np.array([start + delay for _, start, _ in target])


@dataclass(frozen=True, kw_only=True, eq=False)
class Schedule:
    """When the words of a target are said."""

    first: np.ndarray
    """(J,) int64 the frame in which each begins."""
    frames: int
    """F of the whole stream: the source, the target's last word, and one more."""


def schedule(
    waits: np.ndarray, letters: Sequence[int], seconds: Sequence[float], source_seconds: float, rate: float
) -> Schedule:
    """Words as early as they may be said, one behind another.

    Args:
        waits: (J,) seconds before which each may not begin.
        letters: ids of each, one a frame; a frame of padding follows, so that words stay apart.
        seconds: length of each as it is spoken.
        source_seconds: length of the source.
        rate: frames a second.
    """
    first, free = list[int](), 0
    for wait, count, length in zip(waits, letters, seconds, strict=True):
        first.append(max(int(np.ceil(wait * rate - 1e-6)), free))
        free = first[-1] + max(count, int(np.ceil(length * rate))) + 1
    frames = max(int(np.ceil(source_seconds * rate)), free) + 1
    return Schedule(first=np.array(first, np.int64), frames=frames)


def laid_words(plan: Schedule, words: Sequence[Sequence[int]], padding: int) -> np.ndarray:
    """(F,) int64 ids of the words, one a frame from each one's first on, and padding elsewhere."""
    found = np.full(plan.frames, padding, np.int64)
    for first, ids in zip(plan.first.tolist(), words, strict=True):
        assert (found[first : first + len(ids)] == padding).all(), "words do not overlap"
        found[first : first + len(ids)] = ids
    return found


def read_words(ids: np.ndarray, padding: int) -> list[tuple[int, np.ndarray]]:
    """(first place, ids) of every word of a stream (F,): the inverse of `laid_words`."""
    spoken = np.concatenate([[False], np.asarray(ids) != padding, [False]])
    edges = np.flatnonzero(np.diff(spoken.astype(np.int8)))
    return [(int(begin), np.asarray(ids[begin:end])) for begin, end in zip(edges[::2], edges[1::2])]


def laid_speech(
    plan: Schedule, samples: np.ndarray, words: Sequence[TimedWord], *, sample_rate: int, rate: float
) -> np.ndarray:
    """(S',) float32 a recording's words where the plan has them, with silence between: silence insertion.

    Args:
        plan: of the words.
        samples: (S,) the recording.
        words: when it says each.
        sample_rate: Hz of it.
        rate: frames a second of the plan.
    """
    found = np.zeros(round(plan.frames / rate * sample_rate), np.float32)
    for first, (_, start, end) in zip(plan.first.tolist(), words, strict=True):
        piece = samples[round(start * sample_rate) : round(end * sample_rate)]
        begin = round(first / rate * sample_rate)
        found[begin : begin + len(piece)] = piece
    return found


def causal(
    first: Sequence[int] | np.ndarray, alignment: Sequence[int] | np.ndarray, source: Sequence[TimedWord], rate: float
) -> np.ndarray:
    """(J,) bool: whether each target word begins when its own source word has been heard to the end."""
    ends = np.array([source[place][2] for place in np.asarray(alignment).tolist()])
    return np.asarray(first) / rate >= ends - 1e-6
