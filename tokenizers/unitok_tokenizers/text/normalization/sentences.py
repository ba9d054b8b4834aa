"""Texts of any length cut into sentences, and sentences into parts that are not too long.

Nothing is lost: what `split_sentences` and `cut_to_length` return, joined, is what they were given.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from unitok_tokenizers.text.normalization.characters import CLAUSE, CLAUSE_MARKS
from unitok_tokenizers.text.normalization.language_tables import forms_of
from unitok_tokenizers.text.normalization.languages import primary
from unitok_tokenizers.text.normalization.number_words import needed

Measure = Callable[[str], int]
"""How long a text is, such as its ids."""
SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
"""Letters of scripts without spaces between words."""
ENDS = re.compile(r"[^\w\s,;:'’\-–—()\"%&+/@#$€£]|\n")
"""Without any of these a text is one sentence: no library needs to look at it."""
STOPS = re.compile("[.!?。！？।؟…]")
CLAUSE_END = re.compile(
    f"{CLAUSE}\\s*|[{re.escape(''.join(mark for mark in CLAUSE_MARKS if mark not in '(['))}]+(?=\\s)\\s*|[、，；：]"
)
CLAUSE_REACH = 0.25
"""How far from where it is wanted a cut may lie to be at the end of a clause, as a share of the text."""
CUTS_TRIED = 8
"""Cuts of which the first is taken that leaves both sides short enough."""
WORD_END = re.compile(r"\s+")


def split_sentences(text: str, lang: str) -> list[str]:
    """Sentences of a text, each with the white space behind it.

    `sentencex` (Wikimedia) knows the abbreviations and the stops of some 300 languages; what it cannot know is mended:
    a title (`M. Dupont`) and an ordinal number (`am 3. Platz`) end no sentence.
    """
    if not text:
        return []
    if not ENDS.search(text.rstrip(".!?。！？ \n")):
        return [text]
    found = list(needed("sentencex").segment(primary(lang), text))
    assert "".join(found) == text, (lang, text)
    sentences: list[str] = []
    for one in found:
        if sentences and (not one.strip() or not sentences[-1].strip() or _goes_on(sentences[-1], one, lang)):
            sentences[-1] += one
        else:
            sentences.append(one)
    return [line for one in sentences for line in _lines(one)]


def _lines(sentence: str) -> list[str]:
    """A sentence with a stop may run over lines; without any, each line is one: a list, a title, a verse."""
    inner = sentence.rstrip()
    if "\n" not in inner or STOPS.search(inner):
        return [sentence]
    lines = re.findall(r"\s*[^\n]*(?:\n\s*|$)", sentence)
    return [line for line in lines if line]


def _goes_on(sentence: str, following: str, lang: str) -> bool:
    """Whether a dot at the end of a sentence was none of its stops."""
    forms, body = forms_of(lang), sentence.rstrip()
    words = body.split()
    if "\n" in sentence[len(body) :] or not words:
        return False
    if words[-1].lower() in forms.titles and following[:1].isupper():
        return True
    short = [*forms.abbreviations, *forms.before_number]
    if not following[:1].isupper() and any(f" {body.lower()}".endswith(f" {one}") for one in short):
        return True
    if re.fullmatch(r"\d{1,2}\.", words[-1]) and len(words) > 1:
        return words[-2].lower() in forms.ordinal_leads
    return False


def cut_to_length(text: str, measure: Measure, longest: int) -> list[str]:
    """A text in parts of at most `longest`, as equal as may be.

    Cuts lie behind the marks of clauses, where there is none in the middle half of what is to be cut between words, and
    in scripts without spaces between characters. A word is never cut: one that is too long is a part of its own.
    """
    assert longest >= 1, longest

    def size(part: str) -> int:
        return measure(part.replace(CLAUSE, "").strip())

    total = size(text)
    if total <= longest:
        return [text]
    parts = -(-total // longest)
    left, right = parts // 2, parts - parts // 2
    places = _cuts(text, left / parts)[:CUTS_TRIED]
    if not places:
        return [text]
    fits = (one for one in places if size(text[:one]) <= left * longest and size(text[one:]) <= right * longest)
    place = next(fits, places[0])
    return cut_to_length(text[:place], measure, longest) + cut_to_length(text[place:], measure, longest)


def _cuts(text: str, share: float) -> list[int]:
    """Indices at which a text may be cut, the best first; empty where there is none."""
    body = len(text.rstrip())
    wanted = share * body
    clauses, words = (
        [match.end() for match in ends.finditer(text) if text[: match.end()].strip() and match.end() < body]
        for ends in (CLAUSE_END, WORD_END)
    )
    inside = [] if words or clauses else [index for index in range(1, body) if _between_characters(text, index)]
    near = [place for place in clauses if abs(place - wanted) <= CLAUSE_REACH * body]
    found = [sorted(places, key=lambda place: abs(place - wanted)) for places in (near, words or clauses, inside)]
    return [place for places in found for place in places]


def _between_characters(text: str, index: int) -> bool:
    """Whether two letters of a script without spaces meet at an index."""
    joins = unicodedata.category(text[index]) in ("Mn", "Mc")
    return not joins and bool(SPACELESS.match(text[index]) and SPACELESS.match(text[index - 1]))


def grouped(sentences: Sequence[str], measure: Measure, longest: int, most: int) -> list[list[int]]:
    """Indices of consecutive sentences that are at most `longest` together and at most `most`, never across lines.

    Args:
        sentences: each with the white space behind it.
        measure: how long a text is.
        longest: of a group of more than one sentence.
        most: sentences of a group.
    """
    groups: list[list[int]] = []
    for index, sentence in enumerate(sentences):
        if groups and len(groups[-1]) < most and "\n" not in sentences[index - 1]:
            together = "".join(sentences[groups[-1][0] : index]) + sentence
            if measure(together) <= longest:
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups
