"""What a training step reads: rendered documents laid one after another in a pack of fixed size.

Shapes: T positions of the pack, S streams (1 for the flat layout), D documents, K cells of `cu_seqlens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

NO_LABEL = -100
NO_TASK = -1


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


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A batch: documents in one row, between which attention never looks.

    The last cells of `cu_seqlens` repeat T. The unfilled rest, if any, is one more document of padding without labels,
    so that every position belongs to some document and the kernel writes all of its output.
    """

    ids: Tensor
    """(T, S) int64 input ids."""
    labels: Tensor
    """(T, S) int64; the id to predict at each position (already shifted), -100 where there is none."""
    loss_weight: Tensor
    """(T, S) float32; weight of that prediction, 0 where there is no label."""
    positions: Tensor
    """(T,) int64; restarts at 0 with every document."""
    cu_seqlens: Tensor
    """(K,) int32; start of each document, then T repeated."""
    prefix_lengths: Tensor
    """(K - 1,) int32; positions at the head of each document that attend in both directions."""
    task_ids: Tensor
    """(T,) int64 index of the task line, -1 on padding."""
    num_documents: int
    """Documents, the one of padding not counted."""
    num_sequences: int
    """Leading sequences of `cu_seqlens` that hold positions: the documents and the padding."""
    max_seqlen: int
    """Longest sequence, in positions."""
    used: int
    """Positions that belong to documents."""
    supervised: int
    """Labels with a weight above 0."""
    vectors: Tensor | None = None
    """(N, C) input vectors of a latent front end, or None."""
    vector_index: Tensor | None = None
    """(N,) int64 positions at which the vectors stand in for embedding rows."""

    @property
    def size(self) -> int:
        """Positions T."""
        return int(self.ids.shape[0])

    @property
    def sequences(self) -> Tensor:
        """`cu_seqlens` without its empty cells: (num_sequences + 1,) int32."""
        return self.cu_seqlens[: self.num_sequences + 1]

    def to(self, device: torch.device | str) -> Pack:
        """The same pack on a device, copied without waiting where the memory is pinned."""
        names = ("ids", "labels", "loss_weight", "positions", "cu_seqlens", "prefix_lengths", "task_ids")
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        if self.vectors is not None and self.vector_index is not None:
            moved["vectors"] = self.vectors.to(device, non_blocking=True)
            moved["vector_index"] = self.vector_index.to(device, non_blocking=True)
        return replace(self, **moved)

    def pin(self) -> Pack:
        """The same pack in page-locked memory, from which a copy to a GPU runs beside computation."""
        names = ("ids", "labels", "loss_weight", "positions", "cu_seqlens", "prefix_lengths", "task_ids")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})


def collate(documents: Sequence[Document], *, capacity: int, pad: int, cells: int | None = None) -> Pack:
    """Lay documents into one pack of `capacity` positions with one stream.

    `cells` is the length of `cu_seqlens` (default: as short as the documents allow). Nothing is truncated: what does
    not fit is a defect of the packer.
    """
    lengths = [len(document.ids) for document in documents]
    used = sum(lengths)
    assert documents and min(lengths) > 0, "a pack holds documents with ids"
    assert used <= capacity, f"{used} positions do not fit {capacity}"
    ids = np.full(capacity, pad, np.int64)
    weight = np.zeros(capacity, np.float32)
    ids[:used] = np.concatenate([document.ids for document in documents])
    weight[:used] = np.concatenate([document.loss_weight for document in documents])
    bounds = np.cumsum([0, *lengths, *([capacity - used] if used < capacity else [])]).astype(np.int32)
    weight[bounds[:-1]] = 0.0  # nothing stands before the first id of a document
    sizes = np.diff(bounds)
    supervised = weight > 0
    labels = np.full(capacity, NO_LABEL, np.int64)
    shifted = np.zeros(capacity, np.float32)
    labels[:-1] = np.where(supervised[1:], ids[1:], NO_LABEL)
    shifted[:-1] = weight[1:]
    task_ids = np.full(capacity, NO_TASK, np.int64)
    task_ids[:used] = np.repeat([document.task for document in documents], lengths)
    cells = len(bounds) if cells is None else cells
    assert cells >= len(bounds), f"{len(bounds)} cells do not fit {cells}"
    cu_seqlens = np.full(cells, capacity, np.int32)
    cu_seqlens[: len(bounds)] = bounds
    prefix = np.zeros(cells - 1, np.int32)
    prefix[: len(documents)] = [document.prefix_length for document in documents]
    return Pack(
        ids=torch.from_numpy(ids)[:, None],
        labels=torch.from_numpy(labels)[:, None],
        loss_weight=torch.from_numpy(shifted)[:, None],
        positions=torch.from_numpy(np.arange(capacity) - np.repeat(bounds[:-1].astype(np.int64), sizes)),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        prefix_lengths=torch.from_numpy(prefix),
        task_ids=torch.from_numpy(task_ids),
        num_documents=len(documents),
        num_sequences=len(sizes),
        max_seqlen=int(sizes.max()),
        used=used,
        supervised=int(supervised.sum()),
    )
