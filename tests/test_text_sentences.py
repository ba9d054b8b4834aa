"""Texts are cut at sentences, long sentences at clauses and words: nothing is lost, no word is cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitok_tokenizers.text.normalization.characters import CLAUSE
from unitok_tokenizers.text.normalization.sentences import cut_to_length, grouped, split_sentences

pytest.importorskip("sentencex", reason="sentences need sentencex")


def words(text: str) -> int:
    return len(text.split())


SENTENCES = [
    ("en", ["Dr. Smith paid $3.50. ", "Really?  ", "Mr. J. R. Brown left at 3 p.m. on Jan. 5. ", "And so on"]),
    ("en", ["It costs approx. 5 euros max. for vol. 3 of it. ", "Yes."]),
    ("de", ["Das kostet z. B. 3,50 €. ", "Am 3. Mai kam Dr. Müller. ", "Er sagte: „Ja!“ ", "Gut."]),
    ("de", ["Am 3. Platz steht er. ", "Er hat 3. ", "Dann ging der 2. Mann."]),
    ("fr", ["M. Dupont est là. ", "Il a 3,5 kg."]),
    ("es", ["El Sr. Pérez llegó. ", "¿Cómo está? ", "¡Bien!"]),
    ("nl", ["Dhr. Jansen kwam om 3 uur. ", "Hij zei bijv. ja."]),
    ("zh", ["今天天气很好。", "我们去公园吧！", "你想去吗？", "好的"]),
    ("ja", ["今日はいい天気です。", "公園に行きましょう！"]),
    ("hi", ["यह अच्छा है। ", "वह आया।"]),
    ("en", ["a line without a stop\n", "and another\n\n", "the last"]),
    ("en", ["a sentence that goes\nover two lines. ", "Next."]),
    ("en", ["no stop at all, only a clause"]),
]


@pytest.mark.parametrize(("lang", "sentences"), SENTENCES, ids=[f"{one[0]}-{n}" for n, one in enumerate(SENTENCES)])
def test_sentences_end_where_people_end_them(lang: str, sentences: list[str]) -> None:
    assert split_sentences("".join(sentences), lang) == sentences


ANY = st.text(alphabet=st.sampled_from("ab Z.!?,;:\n3。、？今天ñ\t“”'-é "), max_size=80)


@settings(max_examples=300, deadline=None)
@given(text=ANY, lang=st.sampled_from(["en", "de", "fr", "zh", "xx"]))
def test_nothing_is_lost_between_sentences(text: str, lang: str) -> None:
    found = split_sentences(text, lang)
    assert "".join(found) == text
    assert all(found)


@settings(max_examples=300, deadline=None)
@given(text=ANY, longest=st.integers(1, 9))
def test_nothing_is_lost_in_parts_and_no_word_is_cut(text: str, longest: int) -> None:
    parts = cut_to_length(text, words, longest)
    assert "".join(parts) == text
    assert all(words(part) <= longest for part in parts)
    assert [word for part in parts for word in part.split()] == text.split() or any(ord(one) > 0x3000 for one in text)


def test_parts_are_about_equal_and_end_at_clauses_where_they_can() -> None:
    text = " ".join(f"w{index}" for index in range(60))
    sizes = [words(part) for part in cut_to_length(text, words, 13)]
    assert sum(sizes) == 60 and len(sizes) == 5 and max(sizes) - min(sizes) <= 2
    clause = "one two three four, five six seven eight nine ten"
    assert cut_to_length(clause, words, 6)[0] == "one two three four, "
    marked = clause.replace(",", CLAUSE)
    assert cut_to_length(marked, words, 6)[0] == f"one two three four{CLAUSE} "
    assert cut_to_length(clause, words, 10) == [clause]


def test_scripts_without_spaces_are_cut_between_characters() -> None:
    parts = cut_to_length("今天天气很好我们去公园吧你想去吗好的", len, 5)
    assert [len(part) for part in parts] == [4, 5, 4, 5]
    assert cut_to_length("incomprehensibilities", len, 5) == ["incomprehensibilities"]


def test_sentences_are_read_together_up_to_a_length_and_a_number() -> None:
    sentences = ["a b. ", "c d. ", "e f g h. ", "i.\n", "j."]
    assert grouped(sentences, words, 4, 9) == [[0, 1], [2], [3], [4]]
    assert grouped(sentences, words, 99, 9) == [[0, 1, 2, 3], [4]]
    assert grouped(sentences, words, 99, 1) == [[0], [1], [2], [3], [4]]
    assert grouped([], words, 3, 3) == []
