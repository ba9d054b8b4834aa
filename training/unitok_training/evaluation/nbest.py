"""What n-best lists are worth: word errors, the oracle that picks, the oracle that composes, and what rescoring gains.

Lists of translations have BLEU as well: of their first, of their majority, of the best one, and of what a model wrote.

All after the normalizer. H hypotheses of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from unitok.nbest.correction import edits, majority
from unitok.nbest.lists import NBest
from unitok.nbest.rescoring import Features, best, combine, density_ratio, tune
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import basic, words
from unitok_training.evaluation.metrics import bleu, bleu_label, error_unit, sentence_bleu


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Terms of the formula beside λ, each a choice of the development set."""

    lengths: tuple[float, ...] = (0.0,)
    """Values of α, the exponent of the lengths, to try."""
    words: tuple[float, ...] = (0.0,)
    """Values of γ, the reward of a word, to try."""


Slot = dict[str | None, None]
"""Words that may stand at a place, in the order they came; None is no word."""


def list_errors(one: NBest) -> np.ndarray:
    """(H,) word errors of every hypothesis."""
    reference = _reference(one)
    return np.asarray([edits(reference, words(text)) for text in one.texts], dtype=np.float64)


def _reference(one: NBest) -> list[str]:
    if one.reference is None:
        raise InputError(f"list {one.id!r} has no reference; scores need one")
    return words(one.reference)


def network(texts: Sequence[str]) -> list[Slot]:
    """A confusion network of texts (Fiscus 1997, ROVER): aligned one after another, every text is a path of it."""
    slots: list[Slot] = []
    for number, text in enumerate(texts):
        slots = _merge(slots, words(text), first=number == 0)
    return slots


def _merge(slots: list[Slot], said: Sequence[str], *, first: bool) -> list[Slot]:
    """The network with one more path, aligned with the fewest new words."""
    rows, columns = len(slots), len(said)
    cost = np.zeros((rows + 1, columns + 1))
    cost[0] = np.arange(columns + 1)
    for i in range(1, rows + 1):
        skip = 0.0 if None in slots[i - 1] else 1.0
        cost[i, 0] = cost[i - 1, 0] + skip
        for j in range(1, columns + 1):
            same = 0.0 if said[j - 1] in slots[i - 1] else 1.0
            cost[i, j] = min(cost[i - 1, j - 1] + same, cost[i - 1, j] + skip, cost[i, j - 1] + 1.0)
    merged: list[Slot] = []
    i, j = rows, columns
    while i or j:
        slot = dict(slots[i - 1]) if i else {}
        skip = 0.0 if None in slot else 1.0
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (0.0 if said[j - 1] in slot else 1.0):
            merged.append({**slot, said[j - 1]: None})
            i, j = i - 1, j - 1
        elif i and cost[i, j] == cost[i - 1, j] + skip:
            merged.append({**slot, None: None})
            i -= 1
        else:
            merged.append({said[j - 1]: None} if first else {None: None, said[j - 1]: None})
            j -= 1
    return merged[::-1]


def network_errors(reference: Sequence[str], slots: Sequence[Slot]) -> int:
    """Fewest word edits from a reference to any path of a network."""
    row = np.arange(len(reference) + 1, dtype=np.float64)
    for slot in slots:
        skip = 0.0 if None in slot else 1.0
        fresh = row + skip
        for j, word in enumerate(reference, 1):
            fresh[j] = min(fresh[j], row[j - 1] + (0.0 if word in slot else 1.0), fresh[j - 1] + 1.0)
        row = fresh
    return int(row[-1])


def oracle_scores(lists: Sequence[NBest]) -> dict[str, Any]:
    """WER of the first hypothesis, of the best one (o_nb), by list size, and of the best composition (o_cp)."""
    if not lists:
        raise InputError("there are no lists to score")
    errors = [list_errors(one) for one in lists]
    total = max(sum(len(_reference(one)) for one in lists), 1)
    longest = max(map(len, errors))
    composed = sum(network_errors(_reference(one), network(one.texts)) for one in lists)
    return {
        "first_pass": {"wer": sum(one[0] for one in errors) / total},
        "oracle": {
            "wer": sum(one.min() for one in errors) / total,
            "by_size": {str(n): sum(one[:n].min() for one in errors) / total for n in range(1, longest + 1)},
        },
        "compositional": {"wer": composed / total},
        "unit": error_unit([one.reference or "" for one in lists]),
        "lists": len(lists),
        "words": total,
        "hypotheses_per_list": float(np.mean([len(one) for one in errors])),
    }


def rescoring_scores(
    lists: Sequence[NBest],
    features: Sequence[Features],
    dev: Sequence[NBest],
    dev_features: Sequence[Features],
    terms: Terms = Terms(),
) -> dict[str, Any]:
    """WER after rescoring with the weights that a development set chose, and at λ = 1; errors of it by λ."""
    tuned = tune(dev_features, [list_errors(one) for one in dev], lengths=terms.lengths, words=terms.words)
    errors = [list_errors(one) for one in lists]
    total = max(sum(len(_reference(one)) for one in lists), 1)
    picked = [best(combine(one, tuned.weights)) for one in features]
    alone = [int(np.argmax(one.lm)) for one in features]
    return {
        "wer": sum(one[index] for one, index in zip(errors, picked)) / total,
        "lambda": tuned.weights.lm,
        "length": tuned.weights.length,
        "word": tuned.weights.words,
        "lm_alone_wer": sum(one[index] for one, index in zip(errors, alone)) / total,
        "dev_errors_by_lambda": {f"{lam:.2f}": count for lam, count in tuned.curve},
    }


def density_scores(
    lists: Sequence[NBest],
    features: Sequence[Features],
    dev: Sequence[NBest],
    dev_features: Sequence[Features],
    source: Sequence[np.ndarray],
    dev_source: Sequence[np.ndarray],
) -> dict[str, float]:
    """WER after rescoring by the density ratio, μ and λ chosen on a development set among steps of 0.1.

    `source` and `dev_source` have (H,) scores of the source language model of each list. Of equally good weights the
    smallest are taken, so that μ is 0 where the source model is worth nothing.
    """
    steps = [step / 10 for step in range(11)]
    chosen_by = list(zip([list_errors(one) for one in dev], dev_features, dev_source, strict=True))
    scored = list(zip([list_errors(one) for one in lists], features, source, strict=True))

    def errors(mu: float, lam: float, part: Sequence[tuple[np.ndarray, Features, np.ndarray]]) -> float:
        return float(sum(counts[best(density_ratio(f, own, source=mu, target=lam))] for counts, f, own in part))

    mu, lam = min(product(steps, steps), key=lambda pair: (errors(pair[0], pair[1], chosen_by), sum(pair)))
    total = max(sum(len(_reference(one)) for one in lists), 1)
    return {"wer": errors(mu, lam, scored) / total, "mu": mu, "lambda": lam}


def translation_scores(lists: Sequence[NBest]) -> dict[str, dict[str, Any]]:
    """BLEU of the first hypotheses, of those that agree most with their list, and of those nearest to the reference."""
    wanted = [" ".join(_reference(one)) for one in lists]
    picked = {
        "first_pass": [one.texts[0] for one in lists],
        "majority": [majority(one) for one in lists],
        "oracle": [max(one.texts, key=partial(sentence_bleu, right)) for one, right in zip(lists, wanted)],
    }
    label = bleu_label(wanted)
    return {name: {"bleu": bleu(wanted, texts), "bleu_tokenizer": label} for name, texts in picked.items()}


def correction_scores(lists: Sequence[NBest], answers: Sequence[str]) -> dict[str, Any]:
    """WER of corrected texts, the share of them that no hypothesis says, and of translations their BLEU."""
    total = max(sum(len(_reference(one)) for one in lists), 1)
    wrong = sum(edits(_reference(one), words(text)) for one, text in zip(lists, answers))
    outside = [basic(text) not in {basic(own) for own in one.texts} for one, text in zip(lists, answers)]
    unit = error_unit([one.reference or "" for one in lists])
    scores: dict[str, Any] = {"wer": wrong / total, "unit": unit, "outside_list_share": float(np.mean(outside))}
    if all(one.target is not None for one in lists):
        references = [one.reference or "" for one in lists]
        scores |= {"bleu": bleu(references, answers), "bleu_tokenizer": bleu_label(references)}
    return scores
