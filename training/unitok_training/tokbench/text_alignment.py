"""How much tokens say of the text: SLMTokBench's text alignment (Zhang et al. 2023).

Two LSTM layers, both ways, read tokens and write characters with CTC; what they learn is q(y | x). The mutual
information of tokens x and texts y is bounded by the mean over all pairs of held-out recordings of
log q(y_i | x_i) − log q(y_j | x_i) (vCLUB, Cheng et al. 2020).

B batch, N recordings, T frames, Q codebooks, C width, V characters + blank (index 0), R outputs a frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.encoders.batches import batches_by_length
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.progress import advance_aside
from unitok_training.evaluation.metrics import cer, wer
from unitok_training.fitting.ctc import alphabet_of
from unitok_training.fitting.network import fit_network
from unitok_training.tokbench.measured import NotMeasured
from unitok_training.trainer.optimizer import OptimConfig

LEAST_RATE = 50.0
"""Outputs a second, at least: CTC writes one character an output, and a blank between two that are equal."""


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """How the reader of tokens is trained."""

    steps: int = 600
    """Updates; 0 for no text alignment."""
    width: int = 256
    """C, of embeddings and of each direction."""
    batch_seconds: float = 60.0
    """Longest recording × recordings of an update."""
    dropout: float = 0.1
    """Of embeddings, and between the layers."""
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(learning_rate=3e-3, warmup_steps=30))
    """How weights move."""
    seed: int = 0
    """Of initial weights, batches and dropout."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise InputError(f"--probe-steps is {self.steps}: give 1 or more, or 0 for no text alignment")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Tokens with what was said."""

    tokens: Sequence[np.ndarray]
    """(T, Q) int64 each."""
    texts: Sequence[str]
    """As they are compared: `score_normalizer.basic`."""


class TokenReader(nn.Module):
    """Tokens (B, T, Q) → log-probabilities of characters (B, R · T, V)."""

    def __init__(self, config: ReaderConfig, cardinalities: Sequence[int], labels: int, outputs: int) -> None:
        super().__init__()
        self.labels = labels
        self.outputs = outputs
        self.tables = nn.ModuleList(nn.Embedding(size, config.width) for size in cardinalities)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.width, config.width, 2, batch_first=True, bidirectional=True, dropout=config.dropout)
        self.out = nn.Linear(2 * config.width, outputs * labels)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, Q) and their lengths (B,), on the processor → log-probabilities, and how many are of a row."""
        summed = torch.stack([table(tokens[..., place]) for place, table in enumerate(self.tables)]).sum(0)
        inputs = self.dropout(summed / math.sqrt(len(self.tables)))
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        logits = self.out(hidden).unflatten(-1, (self.outputs, self.labels)).flatten(1, 2)
        return logits.log_softmax(-1), lengths * self.outputs


def text_figures(
    train: Texts,
    held_out: Texts,
    cardinalities: Sequence[int],
    frame_rate: float,
    config: ReaderConfig,
    compute: Compute,
) -> dict[str, float]:
    """Train a reader on `train` and score it on `held_out`.

    Returns:
        `mi`: mutual information, nats an utterance. `wer`, `cer`: of the reader itself. `count`: recordings.

    Raises:
        NotMeasured: no text to learn from, or to be scored on, or no reader is wanted.
    """
    if not config.steps:
        raise NotMeasured("--probe-steps is 0")
    train, held_out = with_text(train), with_text(held_out)
    if not train.texts or not held_out.texts:
        raise NotMeasured(f"no {'held-out' if train.texts else 'training'} recording has text")
    alphabet = alphabet_of(train.texts)
    outputs = max(1, math.ceil(LEAST_RATE / frame_rate))
    torch.manual_seed(config.seed)
    reader = TokenReader(config, cardinalities, len(alphabet) + 1, outputs)
    fit_reader(reader, train, alphabet, frame_rate, config, compute)
    found = log_probabilities(reader, held_out.tokens, compute, round(config.batch_seconds * frame_rate))
    read = [greedy(one, alphabet) for one in found]
    return {
        "mi": mutual_information(found, [spelled(text, alphabet) for text in held_out.texts]),
        "wer": wer(held_out.texts, read),
        "cer": cer(held_out.texts, read),
        "count": len(read),
    }


def with_text(all_: Texts) -> Texts:
    """Those that have a text and tokens."""
    kept = [(tokens, text) for tokens, text in zip(all_.tokens, all_.texts, strict=True) if text and len(tokens)]
    return Texts(tokens=[tokens for tokens, _ in kept], texts=[text for _, text in kept])


def spelled(text: str, alphabet: Sequence[str]) -> Tensor:
    """Labels (L,) of a text, characters that the training never showed left out."""
    index = {character: place + 1 for place, character in enumerate(alphabet)}
    return torch.tensor([index[one] for one in text if one in index], dtype=torch.int64, device="cpu")


def fit_reader(
    reader: TokenReader,
    train: Texts,
    alphabet: Sequence[str],
    frame_rate: float,
    config: ReaderConfig,
    compute: Compute,
) -> None:
    """Train a reader in place with CTC."""
    labels = [spelled(text, alphabet) for text in train.texts]
    batches = batches_by_length([len(one) for one in train.tokens], round(config.batch_seconds * frame_rate))
    random = np.random.default_rng(config.seed)
    order: list[int] = []

    def loss(step: int) -> Tensor:
        if not order:
            order.extend(random.permutation(len(batches)).tolist())
        chosen = batches[order.pop()]
        tokens, lengths = padded([train.tokens[index] for index in chosen])
        found, sizes = reader(tokens.to(compute.device), lengths)
        targets = torch.cat([labels[index] for index in chosen]).to(compute.device)
        counts = torch.tensor([len(labels[index]) for index in chosen], device=compute.device)
        return functional.ctc_loss(found.transpose(0, 1), targets, sizes.to(compute.device), counts, zero_infinity=True)

    fit_network(
        reader.train(), loss, steps=config.steps, optim=config.optim, compute=compute, plain=True,
        shown="step of the reader of tokens",
    )  # fmt: skip
    reader.eval()


def padded(tokens: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(T, Q) each → (B, T, Q) and lengths (B,)."""
    each = [torch.from_numpy(np.ascontiguousarray(one)) for one in tokens]
    return pad_sequence(each, batch_first=True), torch.tensor([len(one) for one in each], device="cpu")


@torch.inference_mode()
def log_probabilities(reader: TokenReader, tokens: Sequence[np.ndarray], compute: Compute, budget: int) -> list[Tensor]:
    """Log-probabilities (R · T, V) of each recording, on the processor."""
    out: list[Tensor] = [torch.zeros(0)] * len(tokens)
    for batch in batches_by_length([len(one) for one in tokens], budget):
        given, lengths = padded([tokens[index] for index in batch])
        found, sizes = reader(given.to(compute.device), lengths)
        for row, (index, size) in enumerate(zip(batch, sizes.tolist())):
            out[index] = found[row, :size].cpu()
    return out


def greedy(found: Tensor, alphabet: Sequence[str]) -> str:
    """Log-probabilities (T, V) → the best path's text."""
    path = found.argmax(-1).tolist()
    kept = [label for label, before in zip(path, [0, *path]) if label and label != before]
    return "".join(alphabet[label - 1] for label in kept)


@torch.inference_mode()
def mutual_information(found: Sequence[Tensor], targets: Sequence[Tensor]) -> float:
    """Mean over i and j of log q(y_i | x_i) − log q(y_j | x_i), in nats.

    Args:
        found: log-probabilities (T, V) of each recording.
        targets: labels (L,) of each text.

    A text that is too long for a recording's outputs has no probability there: such pairs are left out, and a
    recording that is too short for its own text altogether.

    Raises:
        NotMeasured: every recording is too short for its text.
    """
    sizes = torch.tensor([len(one) for one in targets], device="cpu")
    joined = torch.cat(list(targets))
    differences = []
    for place, one in enumerate(found):
        repeated = one[:, None].expand(-1, len(targets), -1)
        lengths = torch.full((len(targets),), len(one), dtype=torch.int64, device="cpu")
        scores = -functional.ctc_loss(repeated, joined, lengths, sizes, reduction="none")
        possible = scores[torch.isfinite(scores)]
        if torch.isfinite(scores[place]):
            differences.append(float(scores[place] - possible.mean()))
        advance_aside("recording compared with all texts", place + 1, len(found))
    if not differences:
        raise NotMeasured("every held-out recording is too short for its text")
    return float(np.mean(differences))
