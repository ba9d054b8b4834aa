"""Which rows of a manifest are held out, and how much of them the training has heard all the same."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unitok_tokenizers.corpora.phrases import seen_ngram_share
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.text.score_normalizer import basic

MANY_TEXTS = 50
"""Different texts from which on what is said in the test is said in no training row."""

MOST_HELD_OUT = 0.2
"""Share of the rows that may be held out for what they say alike."""


def with_splits(rows: list[Row]) -> list[Row]:
    """Give every tenth group of the training to the test where a manifest has no test rows; others stay held out.

    What several groups say alike is held out with all of them, where there are `MANY_TEXTS` texts, and as long as that
    is about a tenth: of a few words, such as digits, each must be learned, and what everybody says is no test.
    """
    if any(row.split == "test" for row in rows):
        return rows
    train = [row for row in rows if row.split == "train"]
    texts = {row.id: (row.lang, basic(row.text)) for row in train if row.text}
    test = _tenth({row.group: row.group for row in train})
    if len(set(texts.values())) >= MANY_TEXTS:
        joined = _tenth(joined_groups([(row.group, texts.get(row.id, ("", row.id))) for row in train]))
        if sum(row.group in joined for row in train) <= len(train) * MOST_HELD_OUT:
            test = joined
    return [replace(row, split="test") if row.split == "train" and row.group in test else row for row in rows]


def _tenth(first: Mapping[str, str]) -> set[str]:
    """Groups of every tenth of what they belong to."""
    test = set(sorted(set(first.values()))[::10])
    return {group for group, name in first.items() if name in test}


def joined_groups(said: Sequence[tuple[str, Hashable]]) -> dict[str, str]:
    """Group → the first group of all that share a text with it, directly or through others; of (group, text) pairs."""
    root = {group: group for group, _ in said}

    def find(name: str) -> str:
        while root[name] != name:
            root[name] = name = root[root[name]]
        return name

    by_text: dict[Hashable, str] = {}
    for group, text in said:
        one, other = find(group), find(by_text.setdefault(text, group))
        root[max(one, other)] = min(one, other)
    return {group: find(group) for group in root}


def corpus_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """How many rows there are, and how much of the test the training has heard."""
    train, test = ([row for row in rows if row.split == split] for split in ("train", "test"))
    learned, asked = ([row.text or "" for row in of] for of in (train, test))
    heard = {(row.lang, basic(row.text or "")) for row in train}
    said = [(row.lang, text) for row in test if (text := basic(row.text or ""))]
    voices = {row.speaker for row in train} - {""}
    return {
        "train_rows": len(train),
        "test_rows": len(test),
        "seen_4gram_share": seen_ngram_share(learned, asked),
        "seen_text_share": sum(one in heard for one in said) / max(len(said), 1),
        "seen_voice_share": sum(row.speaker in voices for row in test) / max(len(test), 1),
    }
