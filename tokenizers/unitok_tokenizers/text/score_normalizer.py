"""The text normalizer after which error rates and BLEU are computed and hypotheses are told apart."""

from __future__ import annotations

import re
import unicodedata

from unitok_tokenizers.text.scripts import SPACE_BESIDE, TOKEN

NAME = "basic"
STATED = "NFKC (full-width forms become plain ones), lower case, no punctuation, no space beside characters of scripts \
that are written without"
"""What scores are computed after, for people."""


APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼ`´＇", "'"))
"""What people and their keyboards write for one."""
DOTTED_I = re.compile("i\u0307+")


def basic(text: str) -> str:
    """NFKC, lower case, punctuation to spaces (apostrophes inside words stay), single spaces.

    What nobody sees is left out: joiners of Persian or Sinhala letters and soft hyphens stand inside words.
    """
    text = text.translate(APOSTROPHES)  # before NFKC, which makes ´ a space, and behind it, which takes ŉ apart
    text = unicodedata.normalize("NFKC", text).translate(APOSTROPHES).lower()
    text = unicodedata.normalize("NFKC", DOTTED_I.sub("i", text))  # İ in lower case has a dot more than i
    kinds = [(c, unicodedata.category(c)) for c in text]
    kept = "".join(c if c == "'" or kind[0] in "LMN" else " " for c, kind in kinds if kind != "Cf")
    return " ".join(word.strip("'") for word in kept.split() if word.strip("'"))


def compared(text: str) -> str:
    """`basic`, and no space beside characters of scripts without spaces: what characters are counted in."""
    return SPACE_BESIDE.sub("", basic(text))


def words(text: str) -> list[str]:
    """What word errors count: words, and in scripts without spaces characters."""
    return TOKEN.findall(basic(text))
