"""An n-gram model over ids, the yardstick for the decoder's perplexity: interpolated Witten-Bell smoothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence


class NgramModel:
    """Witten & Bell (1991): p(w|h) = (c(hw) + t(h) p(w|h')) ÷ (c(h) + t(h)), t(h) the distinct followers of h."""

    def __init__(self, order: int, size: int) -> None:
        self.order, self.size = order, size
        self.counts: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
        self.totals: dict[tuple[int, ...], int] = defaultdict(int)

    @staticmethod
    def fit(sequences: Iterable[Sequence[int]], *, order: int, size: int) -> NgramModel:
        """Count sequences of ids below `size`."""
        model = NgramModel(order, size)
        for sequence in sequences:
            ids = list(sequence)
            for position, token in enumerate(ids):
                for length in range(min(order - 1, position) + 1):
                    history = tuple(ids[position - length : position])
                    followers = model.counts[history]
                    followers[token] = followers.get(token, 0) + 1
                    model.totals[history] += 1
        return model

    def probability(self, token: int, history: Sequence[int]) -> float:
        """p(token | history), the last order-1 ids of which count."""
        value = 1.0 / self.size
        for length in range(self.order):
            if length > len(history):
                break
            context = tuple(history[len(history) - length :])
            total = self.totals.get(context)
            if not total:
                break
            followers = self.counts[context]
            value = (followers.get(token, 0) + len(followers) * value) / (total + len(followers))
        return value

    def perplexity(self, sequences: Iterable[Sequence[int]]) -> float:
        """exp of the mean negative log-probability per id."""
        total, count = 0.0, 0
        for sequence in sequences:
            ids = list(sequence)
            for position, token in enumerate(ids):
                total -= math.log(self.probability(token, ids[max(0, position - self.order + 1) : position]))
                count += 1
        return math.exp(total / max(count, 1))
