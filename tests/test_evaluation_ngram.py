"""The n-gram control: a proper distribution, better on text like its training text than on other text."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unitok_training.evaluation.ngram import NgramModel


def sequences(count: int, seed: int, size: int = 12) -> list[list[int]]:
    """A first-order chain: every id has three likely followers; the last id ends a sequence."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        sequence = [int(random.integers(size - 1))]
        while len(sequence) < 8:
            sequence.append(int((sequence[-1] * 3 + random.integers(3)) % (size - 1)))
        found.append([*sequence, size - 1])
    return found


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_in_seen_and_unseen_contexts(order: int) -> None:
    model = NgramModel.fit(sequences(50, 0), order=order, size=12)
    for history in [(), (3,), (3, 9, 5), (0, 0, 0, 0, 0), (10, 1, 10, 1)]:
        assert sum(model.probability(token, history) for token in range(12)) == pytest.approx(1.0)


def test_a_longer_order_helps_where_there_is_structure() -> None:
    train, test = sequences(300, 0), sequences(40, 1)
    one, two, five = (NgramModel.fit(train, order=order, size=12).perplexity(test) for order in (1, 2, 5))
    assert two < 0.6 * one and five < 1.3 * two
    assert NgramModel.fit(train, order=5, size=12).perplexity(train[:20]) < five


def test_a_hand_computed_probability() -> None:
    model = NgramModel.fit([[0, 1], [0, 2]], order=2, size=3)
    unigram = (1 + 3 / 3) / (4 + 3)  # count 1 of 4, three distinct ids, uniform over 3 below
    assert model.probability(1, (0,)) == pytest.approx((1 + 2 * unigram) / (2 + 2))


def test_unknown_ids_keep_a_probability() -> None:
    model = NgramModel.fit([[0, 1, 2]], order=5, size=100)
    assert math.isfinite(model.perplexity([[57, 3, 2]]))
