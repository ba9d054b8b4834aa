"""Whether tokens stay what they are in another recording of the same words (Gat et al. 2023).

N runs of equal tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unitok_tokenizers.audio.changes import CHANGES
from unitok_tokenizers.progress import advance
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_training.fitting.units import unit_edits
from unitok_training.tokbench.contestants import Contestant
from unitok_training.tokbench.corpus import Corpus, portions

MOST_ROWS = 40
"""Held-out rows that are changed: each of them is tokenized once for a change."""


def robustness_figures(one: Contestant, corpus: Corpus, clean: list[np.ndarray], seed: int) -> dict[str, Any]:
    """Edits that lead from the tokens of recordings to those of changed ones, ÷ the former.

    Args:
        one: of several codebooks the first counts.
        corpus: whose first held-out rows are changed; every contestant of a seed and a rate is given the same samples.
        clean: (F, Q) of its held-out rows.
        seed: of the changes.

    Returns:
        A figure for every name of `CHANGES`, `mean` of them, and `rows`. Equal neighbors count once.
    """
    rows = corpus.held_out[:MOST_ROWS]
    rate = one.tokenizer.sample_rate
    runs = [deduplicate(table[:, 0])[0] for table in clean[: len(rows)]]
    edits, place = dict.fromkeys(CHANGES, 0), 0
    for recordings in portions(rows, rate):
        for number, (name, change) in enumerate(CHANGES.items()):
            draws = [np.random.default_rng([seed, number, place + row]) for row in range(len(recordings))]
            changed = [change(samples, rate, random) for samples, random in zip(recordings, draws)]
            for row, tokens in enumerate(one.tokenizer.encode_batch(changed)):
                found, _ = deduplicate(tokens.reshape(len(tokens), -1)[:, 0])
                edits[name] += unit_edits(runs[place + row], found)
        place += len(recordings)
        advance("recording changed", place, len(rows))
    shares = {name: count / max(sum(map(len, runs)), 1) for name, count in edits.items()}
    return {**shares, "mean": float(np.mean([*shares.values()])), "rows": len(rows)}
