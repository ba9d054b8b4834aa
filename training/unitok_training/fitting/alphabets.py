"""What an adapter that spells may spell in: the letters of the training's texts, or subwords that are made of them."""

from __future__ import annotations

from collections.abc import Iterable

from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.score_normalizer import basic
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.text.surfaces import SPACE, Surfaces

OTHER = 1 + 256
"""First pieces of a new text tokenizer, which stand for the unknown and for bytes."""


def letters_of(texts: Iterable[str]) -> str:
    """The letters of texts, without case and punctuation, sorted."""
    return "".join(sorted({letter for text in texts for letter in basic(text)}))


def subwords_of(texts: Iterable[str], text: TextTokenizer, count: int) -> tuple[str, ...]:
    """The letters of texts, and the most frequent pairs, pairs of pairs … that a tokenizer has an id of its own for.

    Joined as byte pair encoding does (Sennrich et al. 2016), without case and punctuation; what begins a word has a
    space before it. One id, so that a subword's row is one that the language model knows.

    Args:
        texts: of the training.
        text: the language model's tokenizer.
        count: most of several letters.
    """
    said = [f" {one}" for one in map(basic, texts) if one]
    if not said:
        return ()
    letters = sorted({letter for one in said for letter in one})
    pieces = SentencePieceText.train(said, OTHER + len(letters) + 2 * count, kind="bpe").pieces()[OTHER:]
    joined, known = [piece.replace(SPACE, " ") for piece in pieces], Surfaces(text)
    several = [one for one in joined if len(one) > 1 and len(known.ids(one)) == 1]
    return (*letters, *several[:count])
