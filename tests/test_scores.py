"""Scores are pooled over the corpus and computed on normalised text."""

from __future__ import annotations

import pytest

from unitok_tokenizers.errors import InputError
from unitok_training.scores import bleu, cer, chrf, wer


def test_errors_are_pooled_not_averaged() -> None:
    # 1 of 1 wrong and 0 of 9: a mean over sentences would say 0.5.
    assert wer(["a", "a b c d e f g h i"], ["b", "a b c d e f g h i"]) == pytest.approx(0.1)


def test_case_and_punctuation_do_not_count() -> None:
    assert wer(["Good morning, Anna!"], ["good morning anna"]) == 0
    assert cer(["ab"], ["ac"]) == pytest.approx(0.5)


def test_insertions_count_above_one_and_silence_counts_as_all_wrong() -> None:
    assert wer(["a"], ["b c d"]) == 3
    assert wer(["a b"], [""]) == 1


def test_translation_scores_at_their_ends() -> None:
    same = ["the green house stands here today", "we buy two books now"]
    assert bleu(same, same) == pytest.approx(100)
    assert chrf(same, same) == pytest.approx(100)
    assert bleu(same, ["x y z", "q"]) < 5


def test_nothing_to_score_is_an_input_error() -> None:
    with pytest.raises(InputError, match="0 references"):
        wer([], [])
    with pytest.raises(InputError, match="2 outputs"):
        bleu(["a"], ["a", "b"])
