"""What a training step reads: rendered documents laid one after another in a pack of fixed size.

Shapes: T positions of the pack, D documents, K cells of `cu_seqlens`, P positions with slots, S slots. A position holds
one id; codes of a layout with slots stand beside some of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.grammar.positions import Frames
from unitok_training.data.columns import counting
from unitok_training.data.documents import Document, Documents, ListedDocuments

NO_LABEL = -100
NO_TASK = -1


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A batch: documents in one row, between which attention never looks.

    The last cells of `cu_seqlens` repeat T. The unfilled rest, if any, is one more document of padding without labels,
    so that every position belongs to some document and the kernel writes all of its output.
    """

    ids: Tensor
    """(T,) int64 input ids."""
    labels: Tensor
    """(T,) int64; the id to predict at each position (already shifted), -100 where there is none."""
    loss_weight: Tensor
    """(T,) float32; weight of that prediction, 0 where there is no label."""
    positions: Tensor
    """(T,) int32; restarts at 0 with every document."""
    cu_seqlens: Tensor
    """(K,) int32; start of each document, then T repeated."""
    prefix_lengths: Tensor
    """(K - 1,) int32; positions at the head of each document that attend in both directions."""
    task_ids: Tensor
    """(T,) int32 index of the task line, -1 on padding."""
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
    frame_index: Tensor | None = None
    """(P,) int64 positions with slots, those of conditions among them; None where the vocabulary has no slots."""
    slots: Tensor | None = None
    """(P, S) int64 codes there, -1 where a slot holds none."""
    frame_weight: Tensor | None = None
    """(P,) float32; weight of predicting what stands there, 0 where it is given."""
    examples: np.ndarray | None = None
    """(D,) int64 numbers of the examples that the documents are, by which more is drawn for them; never on a device."""

    def __post_init__(self) -> None:
        assert self.ids.ndim == self.labels.ndim == self.loss_weight.ndim == 1, "a position holds one id"

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
        return replace(self, **{name: one.to(device, non_blocking=True) for name, one in self._tensors()})

    def pin(self) -> Pack:
        """The same pack in page-locked memory, from which a copy to a GPU runs beside computation."""
        return replace(self, **{name: one.pin_memory() for name, one in self._tensors()})

    def _tensors(self) -> list[tuple[str, Any]]:
        """Those that are there, by their names."""
        found = ((one.name, getattr(self, one.name)) for one in fields(self))
        return [(name, value) for name, value in found if isinstance(value, Tensor)]


def collate_packs(
    documents: Documents, order: np.ndarray, bounds: np.ndarray, *, capacity: int, pad: int, cells: int, first: int = 0
) -> list[Pack]:
    """Lay documents into packs of `capacity` positions, all packs at once.

    Args:
        documents: D of them.
        order: (N,) numbers of the documents, those of one pack side by side in the order in which they are laid.
        bounds: (P + 1,) where each pack begins in `order`, and N.
        cells: length of `cu_seqlens`.
        first: number of the example that the first document is; the others follow it.

    The packs are views of arrays that they share. Nothing is truncated: what does not fit is a defect of the packer.
    """
    packs, lengths = len(bounds) - 1, documents.lengths[order]
    assert packs and (np.diff(bounds) > 0).all() and lengths.min() > 0, "a pack holds documents with ids"
    used = np.add.reduceat(lengths, bounds[:-1])
    assert used.max() <= capacity, f"{used.max()} positions do not fit {capacity}"
    # Sequences: the documents of each pack, and one of padding where it is not full.
    padded = np.flatnonzero(used < capacity)
    place = bounds[1:][padded]
    sizes = np.insert(lengths, place, capacity - used[padded])
    starts = np.cumsum(sizes) - sizes
    tasks = np.insert(documents.tasks[order], place, NO_TASK)
    begins = bounds[:-1] + np.searchsorted(padded, np.arange(packs))  # (P,) the first sequence of each pack
    sequences = np.diff(np.append(begins, len(sizes)))
    row = np.repeat(np.arange(packs), sequences)
    column = np.arange(len(sizes)) - np.repeat(begins, sequences)
    assert sequences.max() < cells, f"{sequences.max() + 1} cells do not fit {cells}"
    cu_seqlens = np.full((packs, cells), capacity, np.int32)
    cu_seqlens[row, column] = starts - row * capacity
    prefix = np.zeros((packs, cells - 1), np.int32)
    prefix[row, column] = np.insert(documents.prefix_lengths[order], place, 0)

    ids, weight = np.empty((packs, capacity), np.int64), np.zeros(packs * capacity + 1, np.float32)
    found_ids, found_weight = documents.rendered(order)
    framed = _framed(documents.frames(order), found_weight, np.append(0, np.cumsum(used)))
    begin = 0
    for pack, size in enumerate(used.tolist()):  # whole packs are copied, which costs less than an index would
        ids[pack, :size], ids[pack, size:] = found_ids[begin : begin + size], pad
        weight[pack * capacity : pack * capacity + size] = found_weight[begin : begin + size]
        begin += size

    # Labels: what stands one position on, never across the beginning of a sequence.
    weight[starts] = 0.0
    of_label = weight[1:]  # a view: each position's label is the next one's id, and weighs what that weighs
    learnt = of_label > 0
    labels = np.empty(packs * capacity, np.int64)
    np.subtract(ids.reshape(-1)[1:], NO_LABEL, out=labels[:-1])
    labels *= learnt  # arithmetic takes an eighth of what choosing takes, which guesses at every position
    labels += NO_LABEL
    positions = np.repeat(starts.astype(np.int32), sizes)
    np.subtract(counting(len(positions), positions.dtype), positions, out=positions)
    arrays = (
        ids, labels.reshape(ids.shape), of_label.reshape(ids.shape),
        positions.reshape(ids.shape), cu_seqlens, prefix,
        np.repeat(tasks.astype(np.int32), sizes).reshape(ids.shape),
    )  # fmt: skip
    supervised = [np.count_nonzero(learnt[start : start + capacity]) for start in range(0, len(learnt), capacity)]
    counts = (np.diff(bounds), sequences, np.maximum.reduceat(sizes, begins), used, np.array(supervised))
    tensors = zip(*(torch.from_numpy(array).unbind(0) for array in arrays))
    return [
        Pack(
            ids=t[0], labels=t[1], loss_weight=t[2], positions=t[3], cu_seqlens=t[4], prefix_lengths=t[5],
            task_ids=t[6], num_documents=n[0], num_sequences=n[1], max_seqlen=n[2], used=n[3], supervised=n[4],
            frame_index=f[0], slots=f[1], frame_weight=f[2], examples=examples,
        )
        for t, n, f, examples in zip(
            tensors, zip(*(count.tolist() for count in counts)), framed, np.split(first + order, bounds[1:-1])
        )
    ]  # fmt: skip


def _framed(
    frames: Frames | None, weight: np.ndarray, starts: np.ndarray
) -> list[tuple[Tensor | None, Tensor | None, Tensor | None]]:
    """(positions with slots, codes there, their weights) of each pack.

    Args:
        frames: beside the ids of all packs, one after another.
        weight: (N,) loss weights of these ids.
        starts: (packs + 1,) where each pack begins among them, and N.
    """
    if frames is None:
        return [(None, None, None)] * (len(starts) - 1)
    index, slots, own = frames.index, torch.from_numpy(frames.slots), torch.from_numpy(weight[frames.index])
    cuts = np.searchsorted(index, starts).tolist()
    return [
        (torch.from_numpy(index[begin:end] - start), slots[begin:end], own[begin:end])
        for begin, end, start in zip(cuts, cuts[1:], starts.tolist())
    ]


def collate(documents: Sequence[Document], *, capacity: int, pad: int, cells: int | None = None) -> Pack:
    """Lay documents into one pack. `cells` is the length of `cu_seqlens`; default: as short as the documents allow."""
    assert documents, "a pack holds documents with ids"
    number, used = len(documents), sum(len(one.ids) for one in documents)
    cells = number + 1 + (used < capacity) if cells is None else cells
    whole = ListedDocuments(documents)
    (pack,) = collate_packs(whole, np.arange(number), np.array([0, number]), capacity=capacity, pad=pad, cells=cells)
    return pack
