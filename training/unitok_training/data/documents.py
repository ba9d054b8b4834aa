"""Documents that are laid into packs: one by one, or as a source of many that makes their ids when packs are laid out.

D documents, N positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from unitok_tokenizers.grammar.positions import Frames


@dataclass(frozen=True, kw_only=True)
class Document:
    """One rendered example."""

    ids: np.ndarray
    """(N,) int64 global ids."""
    loss_weight: np.ndarray
    """(N,) float32; weight of predicting ids[t] from what stands before it, 0 where it is given."""
    task: int
    """Index of the mixture's task line that made it."""
    name: str = ""
    """What it was made from (task and row names), for messages."""
    prefix_length: int = 0
    """Leading positions that attend in both directions; 0 for a purely causal document."""
    frames: Frames | None = None
    """Codes beside the ids, which weigh what these do; None where the vocabulary has no slots."""


class Documents(Protocol):
    """Documents that can be laid into packs."""

    lengths: np.ndarray
    """(D,) int64 positions of each."""
    tasks: np.ndarray
    """(D,) int64 index of the task line of each."""
    prefix_lengths: np.ndarray
    """(D,) int64 leading positions that attend in both directions."""

    def name(self, number: int) -> str:
        """What a document was made from, for messages."""

    def rendered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (N,), int32 or int64, and loss weights (N,) float32 of chosen documents, one after another."""

    def frames(self, chosen: np.ndarray) -> Frames | None:
        """Codes beside these ids; None where the vocabulary has no slots."""


class ListedDocuments:
    """Documents that were rendered one by one."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.documents = documents
        self.lengths = np.array([len(one.ids) for one in documents], np.int64)
        self.tasks = np.array([one.task for one in documents], np.int64)
        self.prefix_lengths = np.array([one.prefix_length for one in documents], np.int64)

    def name(self, number: int) -> str:
        """The document's own."""
        return self.documents[number].name

    def rendered(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Their arrays joined."""
        taken = [self.documents[number] for number in chosen]
        ids = np.concatenate([one.ids for one in taken])
        return ids, np.concatenate([one.loss_weight for one in taken])

    def frames(self, chosen: np.ndarray) -> Frames | None:
        """Theirs joined."""
        taken = [self.documents[number] for number in chosen]
        widths = [one.frames.slots.shape[1] for one in taken if one.frames is not None]
        return Frames.joined([(len(one.ids), one.frames) for one in taken], widths[0]) if widths else None


def listed(document: Callable[[int], Document]) -> Callable[[np.ndarray], ListedDocuments]:
    """A source of many documents from one that makes a document by its index."""
    return lambda indices: ListedDocuments([document(int(index)) for index in indices])
