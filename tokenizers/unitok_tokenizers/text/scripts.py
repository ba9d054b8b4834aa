"""Which scripts put no spaces between words: there each character counts where words count elsewhere."""

from __future__ import annotations

import re

SPACELESS = "".join(
    (
        "\u0e00-\u0eff",  # Thai, Lao
        "\u0f00-\u0fff",  # Tibetan
        "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f",  # Myanmar
        "\u1780-\u17ff\u19e0-\u19ff",  # Khmer
        "\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf",  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
        "\u1b00-\u1b7f\ua980-\ua9df",  # Balinese, Javanese
        "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u303b",  # radicals, marks and numerals among Han characters
        "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f",  # Hiragana, Katakana
        "\u3100-\u312f\u31a0-\u31bf",  # Bopomofo
        "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",  # Han
    )
)
"""Their ranges, for a character class of a regular expression. Hangul is not among them: Korean is written with spaces
between words."""
HAN = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
KANA = "\u3031-\u3035\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HANGUL = "\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff"

TOKEN = re.compile(rf"[{SPACELESS}]|[^\s{SPACELESS}]+")
"""A character of a script without spaces, or a word of another script."""
SPACE_BESIDE = re.compile(rf"\s+(?=[{SPACELESS}])|(?<=[{SPACELESS}])\s+")
"""Space beside such a character, which says nothing there: it parts phrases, or stands as the writer likes."""


def count(characters: str, text: str) -> int:
    """How many characters of a text are in a character class."""
    return len(re.findall(f"[{characters}]", text))
