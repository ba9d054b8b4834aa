"""Lagging against numbers made by hand."""

from __future__ import annotations

import pytest

from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.metrics import laal


def test_lagging_is_behind_an_even_translator() -> None:
    assert laal([1.0, 2.0, 3.0, 3.5], 4.0, 4) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert laal([4.0, 4.0, 4.0, 4.0], 4.0, 4) == pytest.approx(4.0), "whoever waits for the end lags by all of it"
    assert laal([2.0, 4.0, 4.0], 4.0, 4) == pytest.approx((2 + 4 - 1) / 2), "words behind the end do not count"
    assert laal([1.0, 2.0], 4.0, 4) == pytest.approx((1 + 2 - 1) / 2), "too few words are no faster"
    assert laal([1.0] * 8, 4.0, 4) == pytest.approx(1 - 0.5 * 3.5), "too many neither"


def test_what_has_no_lagging() -> None:
    for wrong in (([], 4.0, 4), ([1.0], 0.0, 4), ([1.0], 4.0, 0), ([5.0], 4.0, 4), ([-1.0], 4.0, 4)):
        with pytest.raises(InputError):
            laal(*wrong)
