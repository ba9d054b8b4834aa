"""How well a language model still knows text: the same sentences before and after it has learned speech.

Texts stand alone, as a host reads them: no header, no task, no id that it did not have. Only its own ids compete, so
that rows which join later change nothing by being there.

T packed positions, V rows of the host's text.
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


@dataclass(frozen=True, kw_only=True)
class TextAbility:
    """What a decoder makes of texts."""

    perplexity: float
    """Per text id, given all before it."""
    ids: int
    """Text ids that were predicted."""
    texts: int
    """Texts."""


@torch.no_grad()
def text_ability(decoder: Decoder, texts: Sequence[np.ndarray], vocabulary: Vocabulary) -> TextAbility:
    """Measure a decoder on the text ids (N,) of texts; of those with one id there is nothing to predict."""
    size = vocabulary.text.cardinalities[0]
    opener = [vocabulary.bos] if vocabulary.bos < size else []  # a host without one begins with the text
    documents = [np.array([*opener, *text], np.int64)[:POSITIONS] for text in texts]
    documents = [one for one in documents if len(one) > 1]
    device, was_training = decoder.embedding.device, decoder.training
    decoder.eval()
    total, count = 0.0, 0
    for group in _groups(documents):
        packed = pack_documents(group, device)
        hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)  # (T, C)
        logs = decoder.logits(hidden)[:, :size].float().log_softmax(-1)  # (T, V)
        predicts = torch.ones(len(packed.ids), dtype=torch.bool, device=device)
        predicts[(packed.cu_seqlens[1:] - 1).long()] = False  # behind a text's last id stands another text
        places = predicts.nonzero()[:, 0]
        total -= float(logs[places, packed.ids[places + 1]].double().sum())
        count += len(places)
    decoder.train(was_training)
    return TextAbility(perplexity=math.exp(total / count) if count else math.nan, ids=count, texts=len(documents))


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
