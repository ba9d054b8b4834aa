"""Prefix beam search over CTC outputs: the most probable texts, all their alignments summed (Graves 2012, Hannun 2014).

T frames, V characters + blank (index 0).
"""

from __future__ import annotations

from math import exp, inf, log1p

import numpy as np

from unitok_tokenizers.errors import InputError

Prefix = tuple[int, ...]


def _add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    if a < b:
        a, b = b, a
    return a if b == -inf else a + log1p(exp(b - a))


def prefix_search(log_probabilities: np.ndarray, *, beams: int = 16, floor: float = -9.0) -> list[tuple[Prefix, float]]:
    """(characters' indices, log p(text | audio)) of the most probable texts, the best first.

    Args:
        log_probabilities: (T, V), index 0 the blank.
        beams: texts that are followed at a time, and most that come out.
        floor: a character that is less probable in a frame, in nats, is not tried there.

    Raises:
        InputError: fewer than one beam.
    """
    if beams < 1:
        raise InputError(f"beams is {beams}: give 1 or more")
    beam: list[tuple[Prefix, float, float]] = [((), 0.0, -inf)]  # prefix, ending in a blank, ending in its character
    for frame in log_probabilities.tolist():
        likely = [(index, value) for index, value in enumerate(frame) if index and value > floor]
        grown: dict[Prefix, list[float]] = {}
        for prefix, blank, character in beam:
            total = _add(blank, character)
            last = prefix[-1] if prefix else 0
            same = grown.setdefault(prefix, [-inf, -inf])
            same[0] = _add(same[0], total + frame[0])
            if last:
                same[1] = _add(same[1], character + frame[last])
            for index, value in likely:
                longer = grown.setdefault((*prefix, index), [-inf, -inf])
                longer[1] = _add(longer[1], (blank if index == last else total) + value)
        possible = [(prefix, ends[0], ends[1]) for prefix, ends in grown.items() if max(ends) > -inf]
        beam = sorted(possible, key=lambda one: -_add(one[1], one[2]))[:beams]  # "aa" in two frames is impossible
    return [(prefix, _add(blank, character)) for prefix, blank, character in beam]
