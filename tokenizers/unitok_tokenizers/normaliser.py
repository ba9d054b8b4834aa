"""The text normaliser after which error rates and BLEU are computed and hypotheses are told apart."""

from __future__ import annotations

import unicodedata

NAME = "basic"


def basic(text: str) -> str:
    """NFKC, lower case, punctuation to spaces (apostrophes inside words stay), single spaces."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(word.strip("'") for word in kept.split() if word.strip("'"))
