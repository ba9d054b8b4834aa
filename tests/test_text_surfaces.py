"""Ids of parts of words, whatever a tokenizer puts before a text.

Run alone with `pytest tests/test_text_surfaces.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hf_hosts import TEXTS, write_tokenizer
from unitok_tokenizers.text.huggingface import HostText
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.text.surfaces import Surfaces
from unitok_training.fitting.alphabets import subwords_of

pytest.importorskip("tokenizers", reason="tokenizers is not installed (extra hf)")


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_parts_of_words_are_those_inside_a_text(kind: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, kind)
    text = HostText.from_folder(tmp_path)
    known, pieces = Surfaces(text), text.pieces()
    space = "▁" if kind == "mistral" else "Ġ"
    inside = known.ids("e")
    assert [pieces[one] for one in inside] == ["e"], "no space that a text begins with"
    beginning = next(piece for piece in pieces if piece.startswith(space) and piece[1:].isalpha())
    assert [pieces[one] for one in known.ids(f" {beginning[1:]}")] == [beginning]
    (line_break,) = known.line_break()
    assert text.decode(text.encode("a") + [line_break] + text.encode("b")).replace(" ", "") == "a\nb"
    assert known.ids("zqzqzq") == text.encode("zqzqzq"), "what no piece alone is, is taken apart"


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_subwords_that_begin_words_are_found_whatever_a_text_begins_with(kind: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, kind)
    text = HostText.from_folder(tmp_path)
    found = subwords_of(TEXTS, text, 30)
    several = [one for one in found if len(one) > 1]
    assert any(one.startswith(" ") for one in several) and any(not one.startswith(" ") for one in several)
    assert all("<" not in one for one in several)


def test_a_sentencepiece_tokenizer_of_our_own_has_parts_too() -> None:
    text = SentencePieceText.train(TEXTS, 350)
    known, pieces = Surfaces(text), text.pieces()
    assert [pieces[one] for one in known.ids("e")] == ["e"] and [pieces[one] for one in known.ids(" ")] == ["▁"]
    assert text.decode(known.line_break()) == "\n"
