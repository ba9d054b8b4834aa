"""Cut one utterance into stretches of text and of units that change at word boundaries.

A word is said in a stretch of frames; deduplicated units have durations in frames, so a boundary in seconds falls on a
unit. Text pieces are cut before the pieces that begin a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WORD_MARKS = ("▁", "Ġ", " ")


def word_pieces(pieces: Sequence[str]) -> np.ndarray:
    """(n_pieces,) bool: whether a piece begins a word."""
    return np.array([piece.startswith(WORD_MARKS) or piece == "<0x20>" for piece in pieces], np.bool_)


def text_cuts(text_ids: np.ndarray, word_start: np.ndarray) -> np.ndarray:
    """Places in the text at which a word begins, 0 first and the length last: (W + 1,)."""
    inside = np.flatnonzero(word_start[text_ids])
    return np.concatenate([[0], inside[inside > 0], [len(text_ids)]])


def unit_cuts(durations: np.ndarray, starts: Sequence[float], frame_rate: float) -> np.ndarray:
    """Places in the units at which words begin, 0 first and the length last: (W + 1,).

    `starts` are the words' beginnings in seconds; the nearest boundary between two units is taken.
    """
    edges = np.concatenate([[0], np.cumsum(durations)])  # frames at which unit k begins
    frames = np.asarray(starts[1:], np.float64) * frame_rate
    right = np.clip(np.searchsorted(edges, frames), 1, len(edges) - 1)
    nearest = np.where(frames - edges[right - 1] <= edges[right] - frames, right - 1, right)
    return np.concatenate([[0], nearest, [len(durations)]])


def interleave(
    text_ids: np.ndarray,
    durations: np.ndarray,
    words: Sequence[tuple[str, float, float]],
    *,
    word_start: np.ndarray,
    frame_rate: float,
    mean_words: float,
    rng: np.random.Generator,
) -> list[tuple[str, int, int]] | None:
    """Alternating ("text" or "units", begin, end) parts of one utterance, in items of its text and of its units.

    `durations` are the units', in frames. None where text and alignment disagree or leave no place to change. Stretches
    have geometrically distributed lengths with `mean_words`; which modality comes first is a coin's toss.
    """
    in_text = text_cuts(text_ids, word_start)
    if len(in_text) != len(words) + 1 or len(words) < 2:
        return None
    in_units = unit_cuts(durations, [start for _, start, _ in words], frame_rate)
    change = rng.random(len(words) - 1) < 1.0 / max(mean_words, 1.0)
    if not change.any():
        change[rng.integers(len(change))] = True
    bounds = np.concatenate([[0], np.flatnonzero(change) + 1, [len(words)]])
    textual = bool(rng.integers(2))
    parts = []
    for first, last in zip(bounds[:-1], bounds[1:]):
        cuts = in_text if textual else in_units
        begin, end = int(cuts[first]), int(cuts[last])
        if begin == end:  # a word shorter than a unit: this utterance cannot be cut here
            return None
        parts.append(("text" if textual else "units", begin, end))
        textual = not textual
    return parts


class ChosenRows:
    """Rows among many that are of one kind, by their number in order: 8 bytes for 1,024 of the many.

    Args:
        rows: (K,) the many.
        kind: (R,) of every row.
        of: the kind that is chosen.
    """

    STEP = 1 << 10
    """Rows whose chosen ones are counted together, and looked for when one of them is asked for."""

    def __init__(self, rows: np.ndarray, kind: np.ndarray, of: int) -> None:
        self.rows, self.kind, self.of = rows, kind, of
        counts = [np.count_nonzero(self._chosen(place)) for place in range(-(-len(rows) // self.STEP))]
        self._before = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._before[-1])

    def __getitem__(self, number: int) -> int:
        """The row of a number, which is below the length."""
        place = int(np.searchsorted(self._before, number, side="right")) - 1
        inside = np.flatnonzero(self._chosen(place))[number - int(self._before[place])]
        return int(self.rows[place * self.STEP + inside])

    def _chosen(self, place: int) -> np.ndarray:
        """(STEP,) bool: which of these rows are chosen."""
        chosen: np.ndarray = self.kind[self.rows[place * self.STEP : (place + 1) * self.STEP]] == self.of
        return chosen
