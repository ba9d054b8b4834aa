"""A sentence as a model can say it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from unitok_tokenizers.text.normalization.characters import CLAUSE, Characters
from unitok_tokenizers.text.normalization.expansion import expansion

RARE = 1e-6
"""Share of a text's characters below which one was not learned: a stray character of a large corpus."""

BETWEEN_DIGITS = "．，：／－"
"""Full-width marks that are those of numbers only between their digits."""
IN_NUMBER = re.compile(r"(?<=\d)[．：／－](?=\d)|(?<!\d)[０-９]{1,3}(?:，[０-９]{3})+(?!\d)")
"""A full-width comma groups full-width digits alone: between plain ones it is the sentence's."""
SQUARED = {
    "٪": "%", "￥": "¥", "￡": "£", "￦": "₩", "￠": "¢", "℃": "°C", "℉": "°F", "㎏": "kg", "㎞": "km", "㎝": "cm",
    "㎜": "mm", "㎡": "m²",
}  # fmt: skip
WIDE = {0xFEE0 + code: chr(code) for code in range(0x21, 0x7F)} | {ord(one): plain for one, plain in SQUARED.items()}
"""Full-width and squared signs → the plain ones that rules know."""


def spoken_text(
    text: str, lang: str, known: frozenset[str] | None, *, clauses: bool = False, refuse: bool = True
) -> str:
    """A sentence in characters that a model knows: as it is where it knows them all, else in words as far as needed.

    Args:
        text: one sentence.
        lang: its language.
        known: characters that the model has learned in this language; None leaves the text as it is, in NFC.
        clauses: keep `characters.CLAUSE` where a mark that ends a clause was left out.
        refuse: refuse a character that cannot be said; it is left as it is otherwise.

    Returns:
        "" where there is nothing to say: punctuation alone.

    Raises:
        InputError: a character that cannot be said.
    """
    text = unicodedata.normalize("NFC", text)
    if known is None:
        return text.strip()
    characters = Characters(lang=lang, known=known)
    text = " ".join(text.split()) if " " in known else text.strip()
    if characters.knows(text):
        return text if not refuse or any(map(str.isalnum, text)) else ""
    text = IN_NUMBER.sub(lambda match: match[0].translate(WIDE), text)
    text = "".join(one if one in known or one in BETWEEN_DIGITS else one.translate(WIDE) for one in text)
    said = characters.written(text, expansion(lang).spans(text, characters.needs_words), refuse=refuse)
    if not any(character.isalnum() or character not in known for character in said.replace(CLAUSE, "")):
        return ""  # punctuation that it knows
    return said if clauses else said.replace(CLAUSE, "")


def learned_characters(texts: Iterable[str]) -> frozenset[str]:
    """Characters of texts that a model was trained on, strays of a large corpus left out."""
    counts: dict[str, int] = {}
    for text in texts:
        for character in unicodedata.normalize("NFC", text):
            counts[character] = counts.get(character, 0) + 1
    least = RARE * sum(counts.values())
    return frozenset(character for character, count in counts.items() if count >= least)
