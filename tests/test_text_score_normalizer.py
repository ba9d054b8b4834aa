"""The text normalizer: what it equates, and that it is idempotent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitok_tokenizers.text.score_normalizer import basic


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Good  morning, World!", "good morning world"),
        ("Don’t stop.", "don't stop"),
        ("'quoted'", "quoted"),
        ("well-known", "well known"),
        ("Straße ﬁne", "straße fine"),
        ("¿Qué?", "qué"),
        ("5 €", "5"),
        ("...", ""),
        ("donʼt", "don't"),
        ("don`t", "don't"),
        ("don´t", "don't"),
        ("п’ять", "п'ять"),
        ("İstanbul", "istanbul"),
        ("ŉ", "n"),
    ],
)
def test_it_equates_what_sounds_the_same(text: str, expected: str) -> None:
    assert basic(text) == expected


@given(st.text(alphabet=st.characters(max_codepoint=0x24F)))
def test_it_is_idempotent(text: str) -> None:
    assert basic(basic(text)) == basic(text)
