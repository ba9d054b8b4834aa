"""How varied texts are: VERT of GSLM (Lakhotia et al. 2021), of words.

Self-BLEU-2 says how much of a text stands in the others, auto-BLEU-2 how much of it stands in itself again; VERT is the
geometric mean of the two, lower for more varied texts. Both are the means of their shares of single words and of pairs,
without a penalty of length, as the authors' program takes them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

GRAMS = (1, 2)


def _grams(words: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))


def auto_bleu(words: Sequence[str]) -> float:
    """Share of n-grams of a text that occur in it again, 0 to 1; 0 of fewer than two words."""
    if len(words) < 2:
        return 0.0
    shares = []
    for size in GRAMS:
        # An n-gram occurs again only where it does not overlap itself, as "a a" in "a a a" does.
        places: dict[tuple[str, ...], list[int]] = {}
        total = len(words) - size + 1
        for at in range(total):
            places.setdefault(tuple(words[at : at + size]), []).append(at)
        again = sum(any(abs(at - other) >= size for other in found) for found in places.values() for at in found)
        shares.append(again / total)
    return sum(shares) / len(shares)


def self_bleu(texts: Sequence[Sequence[str]]) -> list[float]:
    """For each text the share of its n-grams that another one has, each as often as in that one, 0 to 1."""
    every = [[_grams(words, size) for words in texts] for size in GRAMS]
    most = [_most_of_two(some) for some in every]
    found = []
    for number in range(len(texts)):
        shares = []
        for counted, greatest in zip(every, most):
            own = counted[number]
            known = 0
            for gram, count in own.items():
                first, of, second = greatest[gram]
                known += min(count, second if of == number else first)
            shares.append(known / max(own.total(), 1))
        found.append(sum(shares) / len(shares))
    return found


def _most_of_two(counted: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """N-gram → (its greatest count in a text, which text that is, the greatest count in another one)."""
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for number, counts in enumerate(counted):
        for gram, count in counts.items():
            first, of, second = most.get(gram, (0, -1, 0))
            most[gram] = (count, number, first) if count > first else (first, of, max(second, count))
    return most


def vert(texts: Sequence[Sequence[str]]) -> dict[str, float]:
    """`self_bleu`, `auto_bleu` and `vert` of texts as words, 0 to 100; NaN of fewer than two texts."""
    if len(texts) < 2:
        return {"self_bleu": math.nan, "auto_bleu": math.nan, "vert": math.nan}
    one = 100 * sum(self_bleu(texts)) / len(texts)
    other = 100 * sum(map(auto_bleu, texts)) / len(texts)
    return {"self_bleu": one, "auto_bleu": other, "vert": math.sqrt(one * other)}
