"""What `unitok rescore` does: lists rescored by a model's text line, and by scorers that are trained on other lists.

The text line needs no training. A masked scorer reads both ways (Salazar et al. 2020), a head on the last state is
trained for word errors (RescoreBERT).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from unitok.model import Model
from unitok.nbest.lists import NBest
from unitok.nbest.pseudo_likelihood import pseudo_logprobs
from unitok.nbest.rescoring import Features, Scorer, best, rescore
from unitok.nbest.rescoring_head import RescoringHead
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.score_normalizer import words as spoken
from unitok_training.evaluation.nbest import Terms, density_scores, list_errors, oracle_scores, rescoring_scores
from unitok_training.finetune.corrector_training import teachable
from unitok_training.finetune.rescorer_training import head_scores, train_head, train_masked
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.trainer.optimizer import OptimConfig


def rescored(
    model: Model,
    lists: Sequence[NBest],
    dev: Sequence[NBest],
    *,
    terms: Terms = Terms(),
    source: Model | None = None,
) -> dict[str, Any]:
    """All scores of lists that a model's `<lm>` line rescores, the weights chosen on `dev`.

    With a `source`, whose `<lm>` line stands for what the recognizer knows of its own text, also by the density ratio.
    """
    found, features, dev_features = oracle_scores(lists), rescore(model, lists), rescore(model, dev)
    found["rescoring"] = rescoring_scores(lists, features, dev, dev_features, terms)
    if source is not None:
        own, dev_own = ([one.lm for one in rescore(source, part)] for part in (lists, dev))
        found["density_ratio"] = density_scores(lists, features, dev, dev_features, own, dev_own)
    return found


def masked_scores(
    model: Model, lists: Sequence[NBest], dev: Sequence[NBest], learnt: Sequence[NBest], *, steps: int,
    precision: str = "fp32", seed: int = 0, terms: Terms = Terms(),
) -> dict[str, Any]:  # fmt: skip
    """The same with pseudo-log-likelihoods of a copy that learns to fill in the references of `learnt`.

    `above_permutations` is the share of the lists' references that it prefers to their words in another order.
    """
    optim = OptimConfig(learning_rate=1e-3, warmup_steps=min(20, steps))
    texts = [(one.reference or "", one.target or one.lang) for one in teachable(learnt)]
    reader, _ = train_masked(model, texts, FinetuneConfig(steps=steps, optim=optim, precision=precision, seed=seed))

    def scorer(texts: Sequence[str], lang: str) -> list[tuple[float, int]]:
        return pseudo_logprobs(reader, texts, lang=lang)

    found, dev_found = (rescore(model, one, scorer=scorer) for one in (lists, dev))
    return {**rescoring_scores(lists, found, dev, dev_found, terms), "above_permutations": _above(lists, scorer, seed)}


def _above(lists: Sequence[NBest], scorer: Scorer, seed: int) -> float:
    """Share of references of two words or more with a higher score than a permutation of their words."""
    random, better = np.random.default_rng(seed), []
    for lang in sorted({one.target or one.lang for one in lists}):
        texts = [one.reference or "" for one in lists if (one.target or one.lang) == lang]
        kept = [text for text in texts if len(set(text.split())) > 1]
        mixed = [" ".join(_another_order(text.split(), random)) for text in kept]
        better += [one > other for (one, _), (other, _) in zip(scorer(kept, lang), scorer(mixed, lang))]
    return float(np.mean(better)) if better else 0.0


def _another_order(words: Sequence[str], random: np.random.Generator) -> list[str]:
    while (found := [words[place] for place in random.permutation(len(words))]) == list(words):
        pass
    return found


def head_figures(
    model: Model, lists: Sequence[NBest], dev: Sequence[NBest], learnt: Sequence[NBest], *, steps: int,
    precision: str = "fp32", seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """WER of lists and of `dev` with a head that is trained on `learnt`; its score is added to the first pass's."""
    learnt = teachable(learnt)
    torch.manual_seed(seed)
    head = RescoringHead(model.decoder.config.width).to(model.device)
    optim = OptimConfig(learning_rate=1e-2, warmup_steps=min(10, steps))
    errors = [list_errors(one) for one in learnt]
    config = FinetuneConfig(steps=steps, optim=optim, precision=precision, seed=seed)
    train_head(model, head, learnt, rescore(model, learnt), errors, config)
    return {"wer": _wer(model, head, lists), "dev_wer": _wer(model, head, dev)}


def _wer(model: Model, head: RescoringHead, lists: Sequence[NBest]) -> float:
    found: Sequence[Features] = rescore(model, lists)
    picked = [best(head_scores(model, head, one, features)) for one, features in zip(lists, found)]
    words = sum(len(spoken(one.reference or "")) for one in lists)
    if not words:
        raise InputError("the lists' references hold no words; scores need some")
    return float(np.sum([list_errors(one)[index] for one, index in zip(lists, picked)])) / words
