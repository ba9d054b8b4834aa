"""Which scripts and letters languages are written with: text that has others is probably of another language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from unitok_tokenizers.text.scripts import HAN, HANGUL, KANA

SCRIPTS: Mapping[str, str] = {
    "Latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff",
    "Devanagari": "\u0900-\u097f",
    "Bengali": "\u0980-\u09ff",
    "Gurmukhi": "\u0a00-\u0a7f",
    "Gujarati": "\u0a80-\u0aff",
    "Tamil": "\u0b80-\u0bff",
    "Telugu": "\u0c00-\u0c7f",
    "Kannada": "\u0c80-\u0cff",
    "Malayalam": "\u0d00-\u0d7f",
    "Sinhala": "\u0d80-\u0dff",
    "Thai": "\u0e00-\u0e7f",
    "Lao": "\u0e80-\u0eff",
    "Myanmar": "\u1000-\u109f",
    "Georgian": "\u10a0-\u10ff\u1c90-\u1cbf",
    "Ethiopic": "\u1200-\u137f",
    "Khmer": "\u1780-\u17ff",
    "Han": HAN,
    "Kana": KANA,
    "Hangul": HANGUL,
}
"""Script → its ranges, for a character class of a regular expression."""
_WRITTEN: Mapping[str, str] = {
    "Latin": "af az ca cs cy da de en eo es et eu fi fr ga gl hr hu id is it lb lt lv ms mt nb nl nn no pl pt ro sk sl "
    "so sq sv sw tl tr uz vi zu",
    "Greek": "el",
    "Cyrillic": "be bg kk ky mk mn ru tg uk",
    "Armenian": "hy",
    "Hebrew": "he yi",
    "Arabic": "ar fa ps ur",
    "Devanagari": "hi mr ne sa",
    "Bengali": "as bn",
    "Gurmukhi": "pa",
    "Gujarati": "gu",
    "Tamil": "ta",
    "Telugu": "te",
    "Kannada": "kn",
    "Malayalam": "ml",
    "Sinhala": "si",
    "Thai": "th",
    "Lao": "lo",
    "Myanmar": "my",
    "Georgian": "ka",
    "Ethiopic": "am ti",
    "Khmer": "km",
    "Latin Cyrillic": "sr bs az uz kk",
    "Han": "zh yue cmn wuu",
    "Han Kana": "ja",
    "Hangul Han": "ko",
    "Gurmukhi Arabic": "pa",
}
LANGUAGES: Mapping[str, tuple[str, ...]] = {
    code: tuple(scripts.split()) for scripts, codes in _WRITTEN.items() for code in codes.split()
}
"""Language → scripts that it is written with; of a language that is not here nothing is said."""
LETTERS: Mapping[str, str] = {
    "en": "àâæçèéêëïñôöœ",
    "de": "äöüßàéèêç",
    "nl": "áàäçèéêëíïóöúü",
    "fr": "àâæçèéêëîïôœùûüÿ",
    "es": "áéíñóúüç",
    "it": "àèéìíîòóùú",
    "pt": "àáâãçéêíóôõúü",
    "sv": "åäöéàü",
    "da": "æøåéèêàóäöü",
    "nb": "æøåéèêàòóôäöü",
    "no": "æøåéèêàòóôäöü",
    "fi": "äöåšžé",
    "pl": "ąćęłńóśźżé",
    "cs": "áčďéěíňóřšťúůýžöü",
    "hu": "áéíóöőúüűä",
    "tr": "çğıiöşüâîû",
    "ro": "ăâîșțşţéö",
}
"""Latin language → letters beside a to z that it, and the names and loans in it, is written with."""
FEWEST = 3
"""Letters below which a text tells nothing."""
MOST_FOREIGN, FOREIGN_SHARE = 1, 0.05
"""Letters of another language that a name or a loan may bring, in number and as a share of all."""

_OF_SCRIPT = {name: re.compile(f"[{ranges}]") for name, ranges in SCRIPTS.items()}


def base_language(code: str) -> str:
    """`pt` of `pt-BR` and of `pt_br`."""
    return re.split("[-_]", code, maxsplit=1)[0].lower()


def other_script(text: str, lang: str) -> str | None:
    """The script of most of a text's letters, where the language is written with others; None where all is well."""
    wanted = LANGUAGES.get(base_language(lang))
    if wanted is None:
        return None
    counts = {name: len(pattern.findall(text)) for name, pattern in _OF_SCRIPT.items()}
    total = sum(counts.values())
    if total < FEWEST or 2 * sum(counts[name] for name in wanted) >= total:
        return None
    return max(counts, key=lambda name: counts[name])


def foreign_letters(text: str, lang: str) -> str:
    """Letters of a Latin text that its language does not have, where they are more than a name or a loan brings."""
    own = LETTERS.get(base_language(lang))
    if own is None:
        return ""
    letters = _OF_SCRIPT["Latin"].findall(unicodedata.normalize("NFC", text).lower())
    foreign = [letter for letter in letters if not ("a" <= letter <= "z" or letter in own)]
    few = len(foreign) <= MOST_FOREIGN or len(foreign) < FOREIGN_SHARE * len(letters)
    return "" if few else "".join(sorted(set(foreign)))
