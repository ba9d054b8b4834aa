"""Rows of languages that join a model that is trained.

A language takes an id that the vocabulary has reserved, so its row is there already, as it was drawn before the start
was trained, and nothing has read it since. Beside rows that have learned what a language id says it is noise; their
mean is a language, and no particular one.

L known languages, C width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.stored_tensors import StoredTensor, joined
from unitok_training.first_weights import TABLES
from unitok_training.trainer.fsdp import Initial


@dataclass(frozen=True, kw_only=True)
class JoiningLanguages:
    """Whose rows are set, and from whose; ids of languages follow each other in the order in which they joined."""

    known: slice
    """Ids of languages that the start has."""
    new: slice
    """Ids of those that join."""

    @staticmethod
    def of(start: Vocabulary, vocabulary: Vocabulary) -> JoiningLanguages | None:
        """Of a start's vocabulary and that of the model to be; None where no language joins, or none was there."""
        ids = [vocabulary.language(code) for code in vocabulary.languages]
        count = len(start.languages)
        if not 0 < count < len(ids):
            return None
        assert vocabulary.languages[:count] == start.languages, "no id moves"
        return JoiningLanguages(known=slice(ids[0], ids[count - 1] + 1), new=slice(ids[count], ids[-1] + 1))

    @torch.no_grad()
    def begin(self, decoder: Decoder) -> None:
        """Set the rows in a decoder's tables."""
        for name, table in decoder.named_parameters():
            if name in TABLES:
                table[self.new] = _mean(table[self.known]).to(table.dtype)

    def begun(self, values: Initial) -> Iterator[tuple[str, Tensor | StoredTensor]]:
        """The same of weights by name that are read where they are needed; no other row is read for it."""
        for name, value in values:
            if name not in TABLES:
                yield name, value
                continue
            stored = value if isinstance(value, StoredTensor) else StoredTensor.of(value)
            count = self.new.stop - self.new.start
            rows = _mean(stored[self.known]).to(stored.dtype).expand(count, -1)
            ends = stored.part(0, self.new.start), stored.part(self.new.stop, stored.shape[0])
            yield name, joined([ends[0], StoredTensor.of(rows.contiguous()), ends[1]])


def _mean(rows: Tensor) -> Tensor:
    """(L, C) → (1, C) float32."""
    return rows.float().mean(0, keepdim=True)
