"""Training what rescores: a head with the minimum word error rate loss, and a decoder that fills in masked text.

H hypotheses of a list, C width, N texts.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok.model import Model
from unitok.nbest.lists import NBest
from unitok.nbest.pseudo_likelihood import cloze, hidden_both_ways
from unitok.nbest.rescoring import Features
from unitok.nbest.rescoring_head import RescoringHead, last_states
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.errors import InputError
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.fitting.network import fit_network


def mwer_loss(scores: Tensor, errors: Tensor) -> Tensor:
    """Expected word errors of a list, less their mean: Σ_i softmax(scores)_i · (errors_i − mean errors).

    scores (H,), errors (H,) → (). Minimum word error rate training (Prabhavalkar et al. 2018, eq. 4).
    """
    return (scores.softmax(-1) * (errors - errors.mean())).sum()


def train_head(
    model: Model,
    head: RescoringHead,
    lists: Sequence[NBest],
    features: Sequence[Features],
    errors: Sequence[np.ndarray],
    config: FinetuneConfig,
) -> list[float]:
    """Fit a head on lists, in place; the decoder stays as it is. Returns the loss of every step.

    A step takes `config.positions` ÷ 64 lists, at least one. `features` and `errors` are those of the lists.
    """
    if not lists or not len(lists) == len(features) == len(errors):
        raise InputError(f"{len(lists)} lists, {len(features)} features, {len(errors)} errors: give as many of each")
    states = [last_states(model, one.texts, lang=one.target or one.lang) for one in lists]
    size = max(1, config.positions // 64)
    order = EpochOrder(len(lists), (config.seed,))

    def loss(step: int) -> Tensor:
        rows = order.items(np.arange(step * size, (step + 1) * size)).tolist()
        return torch.stack(
            [
                mwer_loss(
                    _tensor(features[row].am, states[row]) + head(states[row], _tensor(features[row].lm, states[row])),
                    _tensor(errors[row], states[row]),
                )
                for row in rows
            ]
        ).mean()

    compute = resolve(model.device, config.precision)
    return fit_network(
        head, loss, steps=config.steps, optim=config.optim, compute=compute, plain=True, shown="step of the head"
    )


@torch.no_grad()
def head_scores(model: Model, head: RescoringHead, one: NBest, found: Features) -> np.ndarray:
    """(H,) log p_AM plus the head's score."""
    states = last_states(model, one.texts, lang=one.target or one.lang)
    return found.am + head(states, _tensor(found.lm, states)).double().cpu().numpy()


def _tensor(values: np.ndarray, beside: Tensor) -> Tensor:
    """Values in float32, on the device of another tensor."""
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(beside.device)


def train_masked(
    model: Model, texts: Sequence[tuple[str, str]], config: FinetuneConfig, *, share: float = 0.3
) -> tuple[Model, list[float]]:
    """A copy of a model that fills in `<mask>`, reading both ways; for `pseudo_logprobs`.

    Args:
        model: left as it is.
        texts: (text, language).
        config: how long and how fast; `positions` are ids in a step.
        share: of a text's ids that are masked, at least one.
    """
    chosen = [(text, lang) for text, lang in texts if text.strip()]
    if not chosen:
        raise InputError("there is no text to learn from")
    made = replace(model, decoder=copy.deepcopy(model.decoder).float())
    mask = model.vocabulary.control("<mask>")
    random, compute = np.random.default_rng(config.seed), resolve(model.device, config.precision)
    order, index = EpochOrder(len(chosen), (config.seed,)), 0

    def loss(step: int) -> Tensor:
        nonlocal index
        documents: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        used = 0
        while not documents or used < config.positions:
            ids, places = cloze(made, *chosen[order.item(index)])
            count = max(1, round(share * len(places)))
            hidden_places = random.permutation(places)[:count]
            masked = ids.copy()
            masked[hidden_places] = mask
            documents.append(masked)
            rows.append(hidden_places + used)
            labels.append(ids[hidden_places])
            used, index = used + len(ids), index + 1
        with compute.mixed():
            hidden = hidden_both_ways(made.decoder, documents)
            at, wanted = (torch.from_numpy(np.concatenate(one)).to(hidden.device) for one in (rows, labels))
            logits = made.decoder.logits(hidden[at])
        return functional.cross_entropy(logits.float(), wanted)

    losses = fit_network(
        made.decoder, loss, steps=config.steps, optim=config.optim, compute=compute,
        plain=True, shown="step of the masked scorer",
    )  # fmt: skip
    return made, losses
