"""Rare names under noise, which a list or an example tells and the ear cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unitok.model import Model
from unitok_tokenizers.corpora.toy_rich import names_of
from unitok_tokenizers.data.manifest import Row
from unitok_training.data.latent_tasks import (
    LAT,
    PromptSpans,
    RowTexts,
    keyword_span,
    keywords_of,
)
from unitok_training.evaluation.latent import (
    answers,
)
from unitok_training.evaluation.metrics import wer
from unitok_training.fitting.tokenizers import training_rows
from unitok_training.systems.base.bench import Bench, Figures, told

NAMES, NAME_NOISE = 200, 0.2
"""Of the corpora about keywords: rare names, and noise over them that leaves a part of them to the ear."""


def by_context(bench: Bench, model: Model, rows: Sequence[Row]) -> Figures:
    """`biased` figures of held-out rows with a name: without a list, with the name, beside others, and with others."""
    held = [row for row in bench.held_out(rows) if keywords_of(row)]
    table, pool = RowTexts(held, model.tokenizers.text), np.asarray(names_of(NAMES))
    figures: Figures = {}
    for name, own, distractors in (("none", 0, 0), ("own", 1, 0), ("own10", 1, 10), ("own50", 1, 50), ("wrong", 0, 10)):
        random = np.random.default_rng(bench.config.seed)
        asked = []
        for index, row in enumerate(held):
            others = [str(word) for word in random.permutation(pool) if word not in keywords_of(row)][:distractors]
            listed = [str(word) for word in random.permutation([*others, *(keywords_of(row) if own else ())])]
            asked.append(told(table, index, PromptSpans((*keyword_span(table, listed), LAT), (index,))))
        found = answers(model, asked)
        figures |= {f"{name}.{key}": value for key, value in biased(held, found, set(pool.tolist())).items()}
    return figures


def biased(rows: Sequence[Row], found: Sequence[str], names: set[str]) -> Figures:
    """`b_wer`: share of the keywords that are missing; `u_wer`: errors of words that are no names; `wer`."""
    keys = [(word, text.split()) for row, text in zip(rows, found) for word in keywords_of(row)]
    texts = [row.text or "" for row in rows]
    return {
        "b_wer": sum(word not in text for word, text in keys) / max(len(keys), 1),
        "u_wer": other_errors(texts, found, names),
        "wer": wer(texts, found),
    }


def other_errors(references: Sequence[str], outputs: Sequence[str], names: set[str]) -> float:
    """Errors of words that are no names ÷ such words of the references, as Le et al. (2021) count them.

    A word that is missing or stands for another one counts where the reference's is no name, one that is too much where
    it is none itself: what is heard for a name is no error of the other words, whatever is written of it.
    """
    import jiwer

    aligned, errors = jiwer.process_words(list(references), list(outputs)), 0
    for reference, output, chunks in zip(aligned.references, aligned.hypotheses, aligned.alignments):
        for chunk in (one for one in chunks if one.type != "equal"):
            added = chunk.type == "insert"
            wrong = (
                output[chunk.hyp_start_idx : chunk.hyp_end_idx] if added
                else reference[chunk.ref_start_idx : chunk.ref_end_idx]
            )  # fmt: skip
            errors += sum(word not in names for word in wrong)
    return errors / max(sum(word not in names for text in references for word in text.split()), 1)


def names_alone(rows: Sequence[Row]) -> list[Row]:
    """The names of rows, cut out of their recordings: no other word tells what they are or how they are said."""
    found = []
    for row in rows:
        for word, start, end in row.words:
            if row.audio is not None and word in keywords_of(row):
                sounds = [one for one in row.extras["segments"] if start <= one[1] and one[2] <= end]
                extras = {"segments": sounds, "keywords": [word]}
                cut = replace(row, offset=max(0.0, start - 0.02), seconds=end - start + 0.04, words=())
                found.append(replace(cut, id=f"{row.id}-{word}", text=word, extras=extras))
    return found


def with_names_alone(rows: Sequence[Row]) -> list[Row]:
    """Rows, and the names of those that are trained on."""
    return [*rows, *names_alone(training_rows(rows))]
