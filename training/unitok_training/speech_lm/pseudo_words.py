"""Words of a text, and for each a pseudo-word that is spelled like it and is none of them.

Letters stand for sounds, as well as a spelling tells: a pseudo-word has as many as its word, its trigrams are those of
the words, and of some hundred that were drawn it is the one that a trigram model of the words finds as probable as the
word itself (Keuleers & Brysbaert 2010 match syllables in the same spirit). L letters.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import words
from unitok_training.evaluation.ngram import NgramModel

SHORTEST = 3
"""Letters of the shortest word that is taken: shorter ones have no neighbors of their own."""
CANDIDATES = 200
"""Strings that are drawn for each word."""


@dataclass(frozen=True, kw_only=True)
class WordPair:
    """A word, and one that there is not."""

    word: str
    """The word."""
    pseudo: str
    """As many letters, and none of the words that are known."""
    unseen: int
    """Letter trigrams of the pseudo-word, its edges among them, that no word has."""
    difference: float
    """Log-probability per letter under the trigram model, the word's minus the pseudo-word's."""


class Speller:
    """Letter trigrams of a list of words, each word once."""

    def __init__(self, known: Sequence[str]) -> None:
        self.letters = sorted(set("".join(known)))
        self.place = {letter: number for number, letter in enumerate(self.letters)}
        self.edge = len(self.letters)
        self.model = NgramModel.fit(map(self.framed, known), order=3, size=self.edge + 1)
        self.trigrams = {gram for word in known for gram in self.grams(word)}
        self._next: dict[tuple[int, ...], np.ndarray] = {}

    def framed(self, word: str) -> list[int]:
        """Numbers of letters (L + 3,): two edges, the letters, an edge."""
        return [self.edge, self.edge, *(self.place[letter] for letter in word), self.edge]

    def grams(self, word: str) -> list[tuple[int, ...]]:
        """Trigrams (L + 1 of them) with the edges."""
        ids = self.framed(word)
        return [tuple(ids[at : at + 3]) for at in range(len(ids) - 2)]

    def following(self, history: tuple[int, ...]) -> np.ndarray:
        """(letters,) probabilities of the next letter behind two; the edge is left out."""
        if history not in self._next:
            found = np.array([self.model.probability(one, history) for one in range(self.edge)])
            self._next[history] = found / found.sum()
        return self._next[history]

    def log_probability(self, word: str) -> float:
        """Natural, per letter, the end counted as one."""
        grams = self.grams(word)
        return sum(math.log(self.model.probability(gram[-1], gram[:-1])) for gram in grams) / len(grams)

    def draw(self, length: int, random: np.random.Generator) -> str:
        """A string of so many letters."""
        ids = [self.edge, self.edge]
        for uniform in random.random(length):
            chances = np.cumsum(self.following((ids[-2], ids[-1])))
            ids.append(min(int(np.searchsorted(chances, uniform * chances[-1], side="right")), self.edge - 1))
        return "".join(self.letters[one] for one in ids[2:])


def is_word(word: str) -> bool:
    """Whether it consists of letters and of the signs that belong to them, such as the vowels of Devanagari."""
    return bool(word) and all(unicodedata.category(one)[0] in "LM" for one in word)


def word_list(texts: Iterable[str]) -> list[str]:
    """Words of texts that consist of letters, `SHORTEST` of them or more: the most frequent first, then by spelling."""
    counts = Counter(word for text in texts for word in words(text) if is_word(word) and len(word) >= SHORTEST)
    return sorted(counts, key=lambda word: (-counts[word], word))


def pseudo_words(
    chosen: Sequence[str], known: Sequence[str], *, seed: int, other: Collection[str] = ()
) -> list[WordPair]:
    """A pseudo-word for each chosen word, no two alike; words for which none was found are left out.

    Args:
        chosen: words that want one.
        known: all words whose spelling is imitated, the chosen ones among them.
        seed: of the draws; what a word draws depends on nothing but the seed, the known words and the words before it.
        other: further words that a pseudo-word must not be.

    Raises:
        InputError: no word is known.
    """
    if not known:
        raise InputError(f"the texts have no words of {SHORTEST} letters; give others, or recorded pairs (--pairs)")
    speller = Speller(known)
    taken, pairs = {*known, *other}, []
    for word in chosen:
        random = np.random.default_rng([seed, *word.encode()])
        drawn = {speller.draw(len(word), random) for _ in range(CANDIDATES)} - taken
        own = speller.log_probability(word)
        ranked = [
            WordPair(
                word=word, pseudo=one, unseen=sum(gram not in speller.trigrams for gram in speller.grams(one)),
                difference=own - speller.log_probability(one),
            )
            for one in sorted(drawn)
        ]  # fmt: skip
        if ranked:
            best = min(ranked, key=lambda one: (one.unseen, abs(one.difference), one.pseudo))
            taken.add(best.pseudo)
            pairs.append(best)
    return pairs
