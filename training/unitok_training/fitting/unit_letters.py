"""Which letters units stand for, found in shards that have units and texts: no recording is needed.

Every unit has two places, each with a distribution over letters and the blank of its own; those of all units are what
CTC (Graves et al. 2006) makes of the units of utterances and the letters of their texts. A language model whose new
rows begin as such mixtures of its letters' rows reads units as a badly spelled text, and need not look for where in
them the words are.

K units, L letters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.huggingface.new_rows import Spelled
from unitok_tokenizers.compute import resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.score_normalizer import basic
from unitok_training.fitting.network import fit_network
from unitok_training.shard_set import ShardSet
from unitok_training.trainer.optimizer import OptimConfig

PLACES = 2
"""Letters that a unit may stand for, one after another: of deduplicated units there are hardly more than letters."""
STEPS, BATCH, MOST_ROWS = 300, 64, 20_000
OPTIM = OptimConfig(learning_rate=0.1, warmup_steps=20, schedule="linear", weight_decay=0.0, clip=0.0)


class UnitLetters(nn.Module):
    """Log-probabilities (K, places, L + 1) of the letters, label 0 the blank."""

    def __init__(self, units: int, letters: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(units, PLACES, letters + 1))

    def forward(self, units: Tensor) -> Tensor:
        """(B, N) → (B, 2 N, L + 1)."""
        return self.scores[units].log_softmax(-1).flatten(1, 2)

    @torch.no_grad()
    def shares(self) -> Tensor:
        """(K, L) of the letters in what a unit stands for, the blank left out."""
        found = self.scores.softmax(-1).mean(1)[:, 1:]
        return found / found.sum(-1, keepdim=True).clamp_min(0.1)  # what stands for nothing stays near nothing


def fit_unit_letters(
    units: Sequence[np.ndarray], texts: Sequence[str], *, cardinality: int, alphabet: str, seed: int
) -> UnitLetters:
    """Find what units stand for.

    Args:
        units: (N,) local ids of each utterance, deduplicated.
        texts: what is said in each.
        cardinality: K.
        alphabet: the letters, in the order of their labels behind the blank.
        seed: of the order.
    """
    places = {letter: index + 1 for index, letter in enumerate(alphabet)}
    labels = [
        torch.tensor([places[one] for one in basic(text) if one in places], dtype=torch.int64, device="cpu")
        for text in texts
    ]
    random, network = np.random.default_rng([seed, 0x1E77]), UnitLetters(cardinality, len(alphabet))

    def loss(step: int) -> Tensor:
        chosen = random.choice(len(units), min(BATCH, len(units)), replace=False)
        given = [torch.from_numpy(units[i].astype(np.int64)) for i in chosen]
        padded = nn.utils.rnn.pad_sequence(given, batch_first=True)
        return functional.ctc_loss(
            network(padded).transpose(0, 1),
            torch.cat([labels[i] for i in chosen]),
            torch.tensor([PLACES * len(one) for one in given], device="cpu"),
            torch.tensor([len(labels[i]) for i in chosen], device="cpu"),
            zero_infinity=True,
        )

    fit_network(network, loss, steps=STEPS, optim=OPTIM, compute=resolve("cpu", "fp32"), shown="letters of units")
    return network


def spelled_units(
    data: ShardSet, text: TextTokenizer, vocabulary: Vocabulary, *, old: int, seed: int
) -> tuple[Spelled, ...]:
    """Of each stream of units that joins behind `old` ids. InputError where none of them has texts beside it."""
    found = []
    for stream in data.streams.values():
        if stream.kind != "units" or stream.name not in vocabulary.streams:
            continue
        first, _ = vocabulary.block_ranges(stream.name)[0]
        units, texts = _utterances(data, stream.name) if first >= old else ([], [])
        if not units:
            continue
        alphabet = "".join(sorted({letter for one in texts for letter in basic(one)}))
        network = fit_unit_letters(units, texts, cardinality=stream.cardinalities[0], alphabet=alphabet, seed=seed)
        letters = tuple(tuple(text.encode(letter)) for letter in alphabet)
        found.append(Spelled(first=first, shares=network.shares(), letters=letters))
    if not found:
        raise InputError(
            "tuning.new_rows is 'letters', and no units that join have texts beside them; choose 'mean-spread' or "
            "'centroids'"
        )
    return tuple(found)


def _utterances(data: ShardSet, stream: str) -> tuple[list[np.ndarray], list[str]]:
    """Units and texts of training rows that have both."""
    units, texts = list[np.ndarray](), list[str]()
    for folder in data.folders:
        shards, column = folder.shards, ids_column(stream)
        if column not in shards.table.column_names:
            continue
        said = shards.text
        for row in np.flatnonzero(shards.split == "train").tolist():
            cell = shards.cell(column, row)
            if len(cell) and len(units) < MOST_ROWS and basic(said[row] or ""):
                units.append(np.array(cell))
                texts.append(said[row] or "")
    return units, texts
