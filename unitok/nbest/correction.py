"""Generative error correction: an n-best list in, one text out, by the `<ger>` and `<gtr>` lines of a model.

Hypotheses-to-transcription (HyPoradise) where the text is in the recording's language, GenTranslate where the list
holds translations. Held to the list, a correction is a choice (Ma et al. 2023); free, it may beat every hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitok.generation.token_request import TokenRequest
from unitok.model import Model
from unitok.nbest.lists import NBest
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.trie import ListedAutomaton
from unitok_tokenizers.progress import advance_aside
from unitok_tokenizers.text.score_normalizer import basic, words

VectorsOf = Callable[[Sequence[NBest]], list[Any]]
"""Lists → vectors (N, C) of each that stand before its hypotheses, such as a noise vector; None for none."""
Beside = Callable[[NBest], AbstractContextManager[None]]
"""Makes a decoder look at something of a list's own while it is corrected, such as its recording."""


def correction_plan(
    text_ids: Sequence[Sequence[int]], *, lang: str, target: str | None = None, vectors: int = 0
) -> SequenceSpec:
    """The plan of a list: `<ger>`, or `<gtr>` with a target language; `vectors` places stand before the hypotheses.

    Hypotheses without a single id are left out; where none is left, InputError.
    """
    spans = tuple(Span("hyp", np.asarray(ids)) for ids in text_ids if len(ids))
    if not spans:
        raise InputError("every hypothesis of the list is empty; there is nothing to correct")
    before = (Span("lat", np.zeros(vectors)),) if vectors else ()
    return SequenceSpec("ger" if target is None else "gtr", lang, target, conditions=(*before, *spans))


@dataclass
class Corrector:
    """A model with a trained `<ger>` or `<gtr>` line."""

    model: Model
    constrained: bool = False
    """Only texts of the list may come out."""
    closest: bool = False
    """Answer with the hypothesis that is nearest to what was generated."""
    most: int = 5
    """Hypotheses of a list that are read."""
    vectors_of: VectorsOf | None = None
    """Vectors that stand before the hypotheses."""
    beside: Beside | None = None
    """What the decoder looks at; lists then go one by one."""
    batch: int = 32
    """Lists that are corrected together."""

    def correct(self, lists: Sequence[NBest]) -> list[str]:
        """A text per list. A list of nothing but empty texts, as far as it is read, stays empty."""
        worth = [index for index, one in enumerate(lists) if any(basic(text) for text in one.texts[: self.most])]
        answers = [""] * len(lists)
        batch = self.batch if self.beside is None else 1
        for start in range(0, len(worth), batch):
            rows = worth[start : start + batch]
            part = [lists[row] for row in rows]
            with nullcontext() if self.beside is None else self.beside(part[0]):
                texts = self._choose(part) if self.constrained else self._write(part)
            for row, one, text in zip(rows, part, texts):
                answers[row] = nearest(text, one.texts[: self.most]) if self.closest else text
            advance_aside("list corrected", start + len(rows), len(worth))
        return answers

    def _ids(self, one: NBest) -> list[list[int]]:
        return [self.model.tokenizers.text.encode(text) for text in one.texts[: self.most]]

    def _requests(self, lists: Sequence[NBest]) -> list[PromptRequest]:
        given = self.vectors_of(lists) if self.vectors_of is not None else [None] * len(lists)
        return [
            PromptRequest(
                plan=correction_plan(
                    self._ids(one), lang=one.lang, target=one.target, vectors=0 if rows is None else len(rows)
                ),
                vectors=rows,
            )
            for one, rows in zip(lists, given)
        ]

    def _write(self, lists: Sequence[NBest]) -> list[str]:
        return [result.text or "" for result in self.model.run(self._requests(lists))]

    def _choose(self, lists: Sequence[NBest]) -> list[str]:
        vocabulary, requests = self.model.vocabulary, self._requests(lists)
        prompts = [render_prompt(request.plan, vocabulary) for request in requests]
        choices = [[ids for ids in self._ids(one) if ids] for one in lists]
        automata = [ListedAutomaton(vocabulary, prompt, ids) for prompt, ids in zip(prompts, choices)]
        made = self.model.engine.run(
            [
                TokenRequest(
                    prompt=prompt, automaton=one, limit=one.remaining,
                    vectors=self.model.prompt_vectors(prompt, request.vectors),
                )
                for prompt, one, request in zip(prompts, automata, requests)
            ]
        )  # fmt: skip
        found = [parse(np.concatenate([p, one.ids]), vocabulary).outputs[0].content for p, one in zip(prompts, made)]
        by_ids = [{tuple(ids): text for text, ids in zip(one.texts, self._ids(one)) if ids} for one in lists]
        return [table[tuple(ids.tolist())] for table, ids in zip(by_ids, found)]


def nearest(text: str, candidates: Sequence[str]) -> str:
    """The candidate with the fewest word edits to a text; the first of equal ones."""
    said = words(text)
    return min(candidates, key=lambda one: edits(said, words(one)))


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance: fewest insertions, deletions and substitutions."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def majority(one: NBest) -> str:
    """The hypothesis with the fewest word edits to all others together (minimum Bayes risk, equal weights)."""
    texts = one.texts
    said = [words(text) for text in texts]
    totals = [sum(edits(a, b) for b in said) for a in said]
    return texts[int(np.argmin(totals))]
