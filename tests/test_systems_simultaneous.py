"""Words that wait for what they translate: alignments, schedules and streams against numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from unitok_tokenizers.errors import InputError
from unitok_training.systems.base.simultaneous import (
    Schedule,
    causal,
    contextual_alignment,
    laid_speech,
    laid_words,
    read_words,
    schedule,
    waits_by_delay,
    waits_for_source,
    waits_for_words,
)

SOURCE = (("a", 0.1, 0.4), ("b", 0.5, 0.9), ("c", 1.0, 1.3))
TARGET = (("x", 0.0, 0.3), ("y", 0.4, 0.7), ("z", 0.8, 1.0))


def test_a_word_is_aligned_to_what_makes_it_likely() -> None:
    logprobs = np.log(
        [
            [0.1, 0.20, 0.5],  # without a source word
            [0.1, 0.70, 0.5],
            [0.9, 0.75, 0.5],
            [0.8, 0.90, 0.5],
        ]
    )
    # x becomes likely with b; y with a, though it is likeliest with c; nothing tells z apart
    assert contextual_alignment(logprobs).tolist() == [1, 0, 0]
    with pytest.raises(InputError, match="a row for no source word"):
        contextual_alignment(logprobs[:1])


def test_words_wait_in_their_order() -> None:
    assert waits_for_source([2, 0, 1], SOURCE).tolist() == [1.3, 1.3, 1.3]
    assert waits_for_source([0, 2, 1], SOURCE).tolist() == [0.4, 1.3, 1.3]
    assert waits_for_words(4, SOURCE, 2).tolist() == [0.9, 1.3, 1.3, 1.3]
    assert waits_for_words(2, SOURCE, 1).tolist() == [0.4, 0.9]
    assert waits_by_delay(TARGET, 0.5).tolist() == pytest.approx([0.5, 0.9, 1.3])


def test_words_come_as_early_as_they_may_and_never_at_once() -> None:
    plan = schedule(np.array([0.4, 0.4, 1.3]), [2, 4, 1], [0.3, 0.3, 0.2], 1.35, 10.0)
    # x from 4 to 7 and a frame of rest; y from 8, whose four letters take longer than its sound; z waits till 13
    assert plan.first.tolist() == [4, 8, 13] and plan.frames == 17
    assert schedule(np.array([0.4]), [1], [0.1], 3.0, 10.0).frames == 31, "the source is heard to its end"
    ids = laid_words(plan, [[1, 2], [3, 3, 3, 3], [5]], 9)
    assert ids.tolist() == [9] * 4 + [1, 2, 9, 9, 3, 3, 3, 3, 9, 5, 9, 9, 9]
    assert [(place, word.tolist()) for place, word in read_words(ids, 9)] == [(4, [1, 2]), (8, [3] * 4), (13, [5])]
    assert read_words(np.full(3, 9), 9) == []
    with pytest.raises(AssertionError):
        laid_words(Schedule(first=np.array([0, 1]), frames=4), [[1, 2], [3]], 9)


def test_silence_stands_between_words() -> None:
    samples = np.repeat(np.arange(1.0, 11.0, dtype=np.float32), 10)  # ten a tenth of a second, at 100 Hz
    plan = Schedule(first=np.array([2, 8, 12]), frames=16)
    found = laid_speech(plan, samples, TARGET, sample_rate=100, rate=10.0)
    assert found.reshape(16, 10).mean(1).tolist() == [0, 0, 1, 2, 3, 0, 0, 0, 5, 6, 7, 0, 9, 10, 0, 0]


def test_what_comes_before_its_source_word_is_told() -> None:
    assert causal([4, 8, 14], [0, 1, 2], SOURCE, 10.0).tolist() == [True, False, True]
    assert causal([13, 13, 13], [2, 0, 1], SOURCE, 10.0).all()
    waits = waits_for_source([2, 0, 1], SOURCE)
    plan = schedule(waits, [4, 4, 4], [0.3, 0.3, 0.3], 1.35, 25.0)
    assert causal(plan.first, [2, 0, 1], SOURCE, 25.0).all()
