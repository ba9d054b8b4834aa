"""Guards against speech that never ends: units or codes that go round in a cycle are closed.

That an answer ends at all, limits see to (`length_limits`, from the lengths that training saw). A cycle may be ended
long before them: speech does not repeat itself exactly for so long.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.tasks.base import SPEECH_KINDS
from unitok_tokenizers.grammar.vocabulary import Vocabulary

LEAST_RUNS = 48
"""Deduplicated units of a cycle. In 41 minutes of eleven corpora (373 recordings, 50 and 200 units of MFCCs at 50 Hz)
the longest one has 24: two clusters that take turns."""
LEAST_SECONDS = 6.0
"""Of a cycle of frames, such as one that stands still. In the same recordings the longest one lasts 3.1 s."""
USUAL_RATE = 50.0
"""Frames a second of a stream that does not say its own."""
LONGEST_PERIOD, LEAST_TURNS = 64, 4
"""Items of a cycle at most, and how often it is gone through at least."""
EVERY = 16
"""Items after which is looked again."""


def goes_round(ids: Sequence[int], width: int, least: int) -> bool:
    """Whether the end of a sequence of items, `width` ids each, repeats itself exactly: over at least `least` items
    and `LEAST_TURNS` turns of a period of at most `LONGEST_PERIOD` items."""
    found = np.asarray(ids[-max(least, LEAST_TURNS * LONGEST_PERIOD) * width :])
    for period in range(width, LONGEST_PERIOD * width + 1, width):
        needed = max(least * width, LEAST_TURNS * period)
        if needed > len(found):
            return False  # longer periods need as much or more
        if found[-1] == found[-1 - period]:
            tail = found[-needed:]
            if (tail[period:] == tail[:-period]).all():
                return True
    return False


class LoopGuard:
    """Watches what one sequence writes as speech.

    Text is left alone: people count and sing, and units are what models lose themselves in.

    Args:
        vocabulary: says of which stream units and codes are.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.least = {kind: _least_items(vocabulary, kind) for kind in SPEECH_KINDS}
        """Kind → items that a cycle takes at least."""
        self.ids: list[int] = []
        """Of the span that is being written."""
        self.numbers: dict[tuple[int, ...], int] = {}
        """An id with the codes beside it → a number that is no id."""

    def push(self, token: int, automaton: Automaton, beside: Sequence[int] | None = None) -> bool:
        """Take an id that the automaton has followed, and the codes beside it where there are any; returns whether its
        span goes round in a cycle. What is forced behind the last item is not listened to."""
        kind = automaton.kind
        if kind not in self.least or not automaton.written or automaton.behind:
            self.ids.clear()
            return False
        if beside is not None:
            token = self.numbers.setdefault((token, *beside), -1 - len(self.numbers))
        self.ids.append(token)
        return not len(self.ids) % (EVERY * automaton.width) and goes_round(self.ids, automaton.width, self.least[kind])


def _least_items(vocabulary: Vocabulary, kind: str) -> int:
    stream = vocabulary.main(kind)
    if stream is not None and stream.deduplicated:
        return LEAST_RUNS
    rate = USUAL_RATE if stream is None or stream.frame_rate is None else float(stream.frame_rate)
    pattern = None if stream is None else vocabulary.patterns.get(stream.name)
    return max(round(LEAST_SECONDS * rate / (1 if pattern is None else pattern.frames)), 1)
