"""Scores are pooled over the corpus and computed on normalised text."""

from __future__ import annotations

import pytest

from unitok_tokenizers.errors import InputError
from unitok_training.scores import RECOGNITION, bleu, character_error_rate, chrf, grouped, word_error_rate


def test_errors_are_pooled_not_averaged() -> None:
    # 1 of 1 wrong and 0 of 9: a mean over sentences would say 0.5.
    assert word_error_rate(["a", "a b c d e f g h i"], ["b", "a b c d e f g h i"]) == pytest.approx(0.1)


def test_case_and_punctuation_do_not_count() -> None:
    assert word_error_rate(["Good morning, Anna!"], ["good morning anna"]) == 0
    assert character_error_rate(["ab"], ["ac"]) == pytest.approx(0.5)


def test_insertions_count_above_one() -> None:
    assert word_error_rate(["a"], ["b c d"]) == 3


def test_translation_scores_at_their_ends() -> None:
    same = ["the green house stands here today", "we buy two books now"]
    assert bleu(same, same) == pytest.approx(100)
    assert chrf(same, same) == pytest.approx(100)
    assert bleu(same, ["x y z", "q"]) < 5


def test_empty_references_are_left_out_and_all_empty_is_an_error() -> None:
    assert word_error_rate(["...", "a"], ["noise", "a"]) == 0
    with pytest.raises(InputError, match="nothing to score"):
        word_error_rate(["!"], ["a"])


def test_groups_stand_below_the_pooled_figure() -> None:
    table = grouped(RECOGNITION, ["a b", "c d", "e f"], ["a b", "c x", "e f"], ["en", "de", "en"], by="by_lang")
    assert table["wer"] == pytest.approx(1 / 6) and table["sentences"] == 3
    assert table["by_lang"]["en"]["wer"] == 0 and table["by_lang"]["de"]["wer"] == 0.5
