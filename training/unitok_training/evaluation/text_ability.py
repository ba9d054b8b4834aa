"""How well a language model still knows text: the same sentences before and after it has learned speech.

Texts stand alone, as a host reads them: no header, no task, no id that it did not have. Only its own ids compete, so
that rows which join later change nothing by being there.

T packed positions, C width, N ids of a document.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from unitok.decoder.model import Decoder, pack_documents
from unitok_tokenizers.grammar.vocabulary import Vocabulary

POSITIONS = 2048
"""Most positions that are computed together; a single longer text is cut there."""
AT_ONCE = 512
"""Positions whose logits are held at once."""


@dataclass(frozen=True, kw_only=True)
class TextAbility:
    """What a decoder makes of texts."""

    perplexity: float
    """Per text id, given all before it."""
    ids: int
    """Text ids that were predicted."""
    texts: int
    """Texts."""


def text_ability(decoder: Decoder, texts: Sequence[np.ndarray], vocabulary: Vocabulary) -> TextAbility:
    """Measure a decoder on the text ids (N,) of texts; of those with one id there is nothing to predict."""
    size = vocabulary.text.cardinalities[0]
    opener = [vocabulary.bos] if vocabulary.bos < size else []  # a host without one begins with the text
    documents = [np.array([*opener, *text], np.int64)[:POSITIONS] for text in texts]
    documents = [one for one in documents if len(one) > 1]
    found = list(log_probabilities(decoder, documents, size))
    total, count = -float(sum(one.sum() for one in found)), sum(map(len, found))
    return TextAbility(perplexity=math.exp(total / count) if count else math.nan, ids=count, texts=len(documents))


@torch.no_grad()
def log_probabilities(decoder: Decoder, documents: Sequence[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Log-probabilities (N - 1,) float64 of the ids of each document (N,) after its first, among the first `size` ids.

    Documents have two ids or more, and at most `POSITIONS`.
    """
    device, was_training = decoder.embedding.device, decoder.training
    decoder.eval()
    for group in _groups(documents):
        packed = pack_documents(group, device)
        hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)  # (T, C)
        predicts = torch.ones(len(packed.ids), dtype=torch.bool, device=device)
        predicts[(packed.cu_seqlens[1:] - 1).long()] = False  # behind a text's last id stands another text
        places = predicts.nonzero()[:, 0]
        parts = []
        for some in places.split(AT_ONCE):
            logs = decoder.logits(hidden[some])[:, :size].float().log_softmax(-1)
            parts.append(logs.gather(1, packed.ids[some + 1, None].long())[:, 0].double().cpu())
        yield from np.split(torch.cat(parts).numpy(), np.cumsum([len(one) - 1 for one in group])[:-1])
    decoder.train(was_training)


def _groups(documents: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Documents in their order, as many together as `POSITIONS` hold."""
    group: list[np.ndarray] = []
    for one in documents:
        if group and sum(map(len, group)) + len(one) > POSITIONS:
            yield group
            group = []
        group.append(one)
    if group:
        yield group
