"""Cross-entropy of the answers to recordings that stand as vectors in a pack, and CTC on the encoder's frames.

B recordings, N vectors, T packed positions, C width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder.model import Decoder
from unitok.frontends.base import Encoded, LatentFrontEnd, Latents
from unitok.frontends.frame_cache import FrameCache, encoded_alone
from unitok_tokenizers.encoders.base import Inputs
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.batch import collate
from unitok_training.data.documents import Document
from unitok_training.data.latent_examples import LatentDocument, with_vectors
from unitok_training.objectives.base import TOKENS, BatchLosses
from unitok_training.objectives.token_loss import supervised_losses

CTC = "ctc"
"""The term of the encoder's CTC losses."""
ROUND = 64
"""Packs are filled up to a multiple of this, so that shapes repeat."""


@dataclass(frozen=True)
class Unencoded:
    """A recording whose frames are to be kept once they are known, on the host."""

    inputs: Inputs
    """What the encoder takes of it."""
    name: str | None
    """Under which they are kept; None where they are not."""


@dataclass(frozen=True, kw_only=True)
class LatentBatch:
    """The documents of a pack with the recordings that they hear, on the host."""

    documents: list[LatentDocument]
    """Documents; how many vectors each holds is known when its recordings are encoded."""
    inputs: list[Inputs | Encoded | Unencoded]
    """What the encoder takes of the recordings, in the documents' order; or, of one that does not move, what it gives
    for them."""
    labels: list[Tensor]
    """CTC labels of the same."""


@dataclass(frozen=True, kw_only=True)
class LatentObjective:
    """See `Objective`."""

    front_end: LatentFrontEnd
    """Encoder and adapter."""
    decoder: Decoder
    """What answers."""
    vocabulary: Vocabulary
    """Its ids."""
    ctc_weight: float
    """Weight of the CTC loss, where the encoder or the adapter has such a head."""
    capacity: int = 0
    """Positions that every pack is filled up to, for one shape of all; 0 for as few as its documents allow."""
    cells: int = 0
    """Sequences that a pack has room for, for one shape of all; 0 for as few as its documents are."""
    smoothing: float = 0.0
    """Probability spread over the whole vocabulary."""
    chunk: int = 0
    """Supervised positions whose logits are held at once; 0 for as many as fit."""
    kept: FrameCache | None = None
    """Frames of an encoder that does not move; None where they are computed anew."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Tokens and CTC."""
        return {TOKENS: 1.0, CTC: self.ctc_weight}

    def counts(self, batch: LatentBatch) -> Mapping[str, float]:
        """Labels of tokens and of CTC."""
        tokens = sum(int(np.count_nonzero(one.loss_weight[1:] > 0)) for one in batch.documents)
        said = sum(len(one) for one in batch.labels) if self.front_end.labels else 0
        return {TOKENS: tokens, CTC: said}

    def _placed(self, one: Inputs | Encoded | Unencoded, device: torch.device) -> Inputs | Encoded:
        """What the front end takes of a recording, on the device; frames that are not known are computed and kept."""
        if isinstance(one, tuple):
            return tuple(part.to(device, non_blocking=True) for part in one)
        if isinstance(one, Unencoded):
            assert self.kept is not None
            known = None if one.name is None else self.kept.get(one.name)  # by now: batches are made ahead
            if known is None:
                inputs = tuple(part.to(device, non_blocking=True) for part in one.inputs)
                found = encoded_alone(self.front_end.encoder, inputs)
                if one.name is not None:
                    self.kept.put(one.name, found.to(torch.device("cpu")))
                return found
            one = known
        return one.to(device)

    def losses(self, batch: LatentBatch) -> BatchLosses:
        """Encode the recordings, lay the documents around their vectors, forward the pack."""
        device = self.decoder.embedding.device
        inputs = [self._placed(one, device) for one in batch.inputs]
        documents: list[Document] = list(batch.documents)
        latents = self.front_end(inputs) if inputs else None
        if latents is not None:
            lengths = iter(latents.lengths)
            documents = [
                with_vectors(one, [next(lengths) for _ in one.heard], self.vocabulary) if one.heard else one
                for one in batch.documents
            ]
        used = sum(len(one.ids) for one in documents)
        capacity = self.capacity or -(-used // ROUND) * ROUND
        laid = collate(documents, capacity=capacity, pad=self.vocabulary.pad, cells=self.cells or None)
        holes = None if latents is None else (laid.ids == self.vocabulary.control("<lat>")).nonzero()[:, 0]
        pack = laid.to(device)
        hidden = self.decoder(
            pack.ids, pack.positions, pack.sequences, pack.max_seqlen,
            prefix_lengths=pack.prefix_lengths[: pack.num_sequences],
            vectors=None if latents is None else latents.vectors,
            vector_index=None if holes is None else holes.to(device),
        )  # fmt: skip
        losses = supervised_losses(
            hidden, self.decoder.head_weight, labels=pack.labels, loss_weight=pack.loss_weight,
            task_ids=pack.task_ids, smoothing=self.smoothing, chunk=self.chunk,
        )  # fmt: skip
        return BatchLosses(
            terms={TOKENS: losses.total, CTC: ctc_loss(latents, batch.labels, device)},
            tokens=losses, used=used, positions=pack.size, supervised=pack.supervised,
        )  # fmt: skip


def ctc_loss(latents: Latents | None, labels: list[Tensor], device: torch.device) -> Tensor:
    """() sum over a batch of the CTC losses (Graves et al. 2006) of a front end with such a head."""
    loss = torch.zeros((), device=device)
    for group in () if latents is None else latents.groups:
        kept = [row for row, place in enumerate(group.places) if len(labels[place])]  # of the others nothing is known
        if group.frames.ctc is None or not kept:
            continue
        chosen = [labels[group.places[row]] for row in kept]
        frames, lengths = group.frames.ctc, group.frames.lengths
        if len(kept) < len(group.places):
            frames, lengths = frames[kept], lengths[kept]
        loss = loss + functional.ctc_loss(
            frames.float().transpose(0, 1),
            torch.cat(chosen).to(device),
            lengths,
            torch.tensor([len(one) for one in chosen], device=device),
            reduction="sum",
            zero_infinity=True,  # more pieces than frames: nothing to learn from
        )
    return loss
