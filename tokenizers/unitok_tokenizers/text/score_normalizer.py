"""The text normalizer after which error rates and BLEU are computed and hypotheses are told apart."""

from __future__ import annotations

import unicodedata

from unitok_tokenizers.text.scripts import SPACE_BESIDE, TOKEN

NAME = "basic"
STATED = "NFKC (full-width forms become plain ones), lower case, no punctuation, no space beside characters of scripts \
that are written without"
"""What scores are computed after, for people."""


def basic(text: str) -> str:
    """NFKC, lower case, punctuation to spaces (apostrophes inside words stay), single spaces.

    What nobody sees is left out: joiners of Persian or Sinhala letters and soft hyphens stand inside words.
    """
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kinds = [(c, unicodedata.category(c)) for c in text]
    kept = "".join(c if c == "'" or kind[0] in "LMN" else " " for c, kind in kinds if kind != "Cf")
    return " ".join(word.strip("'") for word in kept.split() if word.strip("'"))


def compared(text: str) -> str:
    """`basic`, and no space beside characters of scripts without spaces: what characters are counted in."""
    return SPACE_BESIDE.sub("", basic(text))


def words(text: str) -> list[str]:
    """What word errors count: words, and in scripts without spaces characters."""
    return TOKEN.findall(basic(text))
