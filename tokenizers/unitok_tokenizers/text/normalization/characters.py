"""Characters that a model can say: those of the texts that it has learned, and what stands for the others.

A character that a model does not know is written in another way where that says the same: in the other case, with
another quotation mark or dash, without an accent, or not at all where it is punctuation or cannot be seen.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.normalization.expansion import Span
from unitok_tokenizers.text.normalization.language_tables import forms_of

CLAUSE = "\ue000"
"""Stands where a mark that ends a clause was left out (`sentences.cut_to_length` cuts there first)."""
CLAUSE_MARKS = frozenset(",;:–—()[]،؛、，；：…")
VARIANTS = {
    **dict.fromkeys("’‘‛ʼ`´′＇", ("'",)),
    **dict.fromkeys("“”„‟«»″＂", ('"',)),
    **dict.fromkeys("‐‑‒–—―−", ("-",)),
    "'": ("’",), '"': ("”",), "…": ("...", "."), "‚": (",",), "‹": ('"',), "›": ('"',), "·": (".",),
    "。": (".",), "！": ("!",), "？": ("?",), "，": (",",), "、": (",", "，"), "；": (";",), "：": (":",),
    "!": (".",), "?": (".",), ";": (",",), ":": (",",), "(": (",",), ")": (",",), "—": ("–", "-"), "–": ("-", "—"),
}  # fmt: skip
"""What may be written instead, the nearest first."""
LETTERS = {
    "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ħ": "h", "ŋ": "ng", "ß": "ss",
    "ё": "е", "ſ": "s", "ĳ": "ij",
}  # fmt: skip
"""Letters that Unicode does not take apart."""
STRIPPED_SCRIPTS = ("LATIN", "GREEK")
"""Scripts whose accents may be left out; elsewhere a mark makes another letter."""
APOSTROPHES = frozenset("'’ʼ‘`´")
SAID = frozenset("&@#%‰§")
"""Punctuation that is read: where a language has no word for it, leaving it out says something else."""
NAMED = 5
"""Most characters that a refusal names."""


@dataclass(frozen=True, kw_only=True)
class Characters:
    """What a model can say in one language."""

    lang: str
    """Language of the text."""
    known: frozenset[str]
    """Characters of the texts that it has learned, NFC."""

    @cached_property
    def _letters(self) -> dict[str, str]:
        return {**LETTERS, **forms_of(self.lang).letters}

    def knows(self, text: str) -> bool:
        """Whether every character was learned."""
        return all(character in self.known for character in text)

    def needs_words(self, text: str) -> bool:
        """Whether something written shortly has to be said in words.

        It has where the model knows a character of it in neither case; abbreviations without a dot (`Mme`) have where
        the model has learned from texts without dots, in which nothing is short.
        """
        if text.isalpha() and "." not in self.known:
            return True
        return not all(self._cased(one) is not None or one.isspace() for one in text)

    def _cased(self, text: str) -> str | None:
        """The text in a case that the model knows."""
        cases = (text, text.lower(), text.upper())  # of one letter never two: ß is no capital SS within a word
        return next((one for one in cases if len(one) == len(text) and self.knows(one)), None)

    def written(self, text: str, spans: Iterable[Span], *, refuse: bool = True) -> str:
        """The text with its spans in words, in characters that the model knows.

        Those for which nothing stands are refused, or else left as they are.

        Raises:
            InputError: characters that it does not know and for which nothing stands; names them and their places.
        """
        parts, refused, place, ended = list[str](), list[tuple[int, str, str]](), 0, -1
        for span in [*spans, Span(start=len(text), end=len(text), said="")]:
            for index in range(place, span.start):
                said = self._character(text, index)
                if said is None:
                    refused.append((index, text[index], ""))
                parts.append(text[index] if said is None else said)
            if span.said:
                touches = span.start == ended and " " in self.known  # two signs side by side: two words
                parts.append(" " if touches else self._gap(text, span.start - 1))
                for index, character in enumerate(span.said):
                    said = self._character(span.said, index)
                    if said is None:
                        refused.append((span.start, character, text[span.start : span.end]))
                    parts.append(character if said is None else said)
                parts.append(self._gap(text, span.end))
                ended = span.end
            place = span.end
        if refused and refuse:
            raise InputError(self._refusal(text, refused))
        return self._tidied("".join(parts))

    def _gap(self, text: str, neighbor: int) -> str:
        """A space between words that replace signs and the word beside them."""
        beside = text[neighbor] if 0 <= neighbor < len(text) else " "
        return " " if beside.isalnum() and " " in self.known else ""

    def _character(self, text: str, index: int) -> str | None:
        """What is written for one character; None where nothing stands for it."""
        one = text[index]
        if one in self.known:
            return one
        if one.isspace():
            return " " if " " in self.known else ""
        for variant in VARIANTS.get(one, ()):
            if self.knows(variant):
                return variant
        category = unicodedata.category(one)
        if category in ("Cc", "Cf") or "VARIATION SELECTOR" in unicodedata.name(one, ""):
            return ""
        if one in APOSTROPHES and _inside_word(text, index):
            return " " if forms_of(self.lang).apostrophe_parts and " " in self.known else ""
        if one in SAID:
            return None
        if category[0] == "P" or one in VARIANTS:
            return (CLAUSE if one in CLAUSE_MARKS else "") + (" " if " " in self.known else "")
        if (cased := self._cased(one)) is not None:
            return cased
        return self._spelled(one, category)

    def _spelled(self, one: str, category: str) -> str | None:
        """A letter in other letters: its compatibility form, another spelling, or itself without accents."""
        other = self._letters.get(one.lower())
        if other is not None and one.isupper():
            other = other.upper() if one in "ẞĲ" else other.capitalize()
        if other is not None and (cased := self._cased(other)) is not None:
            return cased
        plain = unicodedata.normalize("NFKC", one)
        if plain != one and (cased := self._cased(plain)) is not None:
            return cased
        name = unicodedata.name(one, "")
        if category == "Mn":
            return "" if name.startswith(("ARABIC", "HEBREW", "COMBINING")) else None
        if name.startswith(STRIPPED_SCRIPTS):
            apart = unicodedata.normalize("NFKD", one)
            return self._cased("".join(part for part in apart if unicodedata.category(part) != "Mn"))
        return None

    def _tidied(self, text: str) -> str:
        """Single spaces, none at the ends; one clause mark at most between two words."""
        clauses = [" ".join(clause.split()) for clause in text.split(CLAUSE)]
        gap = " " if " " in self.known else ""
        return f"{CLAUSE}{gap}".join(clause for clause in clauses if clause)

    def _refusal(self, text: str, refused: list[tuple[int, str, str]]) -> str:
        places = {character: (index, source) for index, character, source in reversed(refused)}
        named = []
        for character, (index, source) in sorted(places.items(), key=lambda item: item[1])[:NAMED]:
            read = f" (to say {source[:20]!r})" if source else ""
            named.append(f"{character!r} ({unicodedata.name(character, 'no name')}) at character {index + 1}{read}")
        more = f", and {len(places) - NAMED} more" if len(places) > NAMED else ""
        around = text[max(0, refused[0][0] - 15) : refused[0][0] + 16]
        return (
            f"this model has not learned to say {', '.join(named)}{more}, in {around!r}, in {self.lang}; "
            "write it in other words or letters, or train on texts that hold it"
        )


def _inside_word(text: str, index: int) -> bool:
    return 0 < index < len(text) - 1 and text[index - 1].isalpha() and text[index + 1].isalpha()
