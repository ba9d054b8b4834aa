"""The losses of a pack: a decoder's forward pass, and the loss of every position with a label by task and stream.

Shapes: T positions of a pack, C width, N supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok_tokenizers.grammar.positions import FINE, FLUSH, FRAME
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS, SPEECH_KINDS, opener
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.batch import NO_LABEL, Pack
from unitok_training.objectives.token_loss import HeadSlice, LossTable, TokenLosses, supervised_losses


def stream_table(vocabulary: Vocabulary) -> tuple[tuple[str, ...], Tensor]:
    """(names of the streams, (V,) int64 index of the stream of every id); each codebook is a stream of its own."""
    names: list[str] = []
    table = torch.zeros(vocabulary.size, dtype=torch.int64, device="cpu")
    for extent in vocabulary.extents:
        name = extent.tokenizer or "control"
        name = f"{name}.{extent.codebook}" if extent.block == "codes" else name
        if name not in names:
            names.append(name)
        table[extent.start : extent.start + extent.size] = names.index(name)
    return tuple(names), table


@dataclass(frozen=True)
class OutputSlices:
    """The two halves of a vocabulary that a label can be looked for in: text, and speech; control ids are in both.

    A model change, not a saving alone: logits of text and speech are never compared in training, so that only decoding
    held to the grammar, which does not compare them either, means anything afterwards.
    """

    speech_follows: Tensor
    """(V,) bool; ids behind which speech stands: speech itself and the marks that open it."""
    text_stop: int
    """Behind the last id of text, control and languages."""
    speech_start: int
    """First control id; speech reaches from there to the end."""

    @staticmethod
    def of(vocabulary: Vocabulary) -> OutputSlices:
        """The slices of a vocabulary. Text that was appended behind speech stretches the slice of text over both."""
        texts = [one for one in vocabulary.extents if one.block in ("text", "control", "language")]
        follows = torch.ones(vocabulary.size, dtype=torch.bool, device="cpu")
        for extent in texts:
            follows[extent.start : extent.start + extent.size] = False
        marks = [mark for kind in (*SPEECH_KINDS, *PROSODY_KINDS) for mark in (f"<gen:{kind}>", opener(kind))]
        follows[[vocabulary.control(mark) for mark in (*marks, FRAME, FLUSH, FINE)]] = True
        start = next(one.start for one in texts if one.block == "control")
        return OutputSlices(follows, max(one.start + one.size for one in texts), start)

    def split(self, given: Tensor, labels: Tensor) -> tuple[Tensor, tuple[HeadSlice, ...]]:
        """((N,) order with the rows of text first, the slices of rows in that order) of given ids and labels (N,)."""
        speech = self.speech_follows[given] & (labels >= self.speech_start)
        order = torch.cat([(~speech).nonzero(), speech.nonzero()]).squeeze(-1)
        spoken = int(speech.sum())
        size = len(self.speech_follows)
        return order, (
            HeadSlice(len(order) - spoken, 0, self.text_stop),
            HeadSlice(spoken, self.speech_start, size),
        )


@dataclass(frozen=True)
class Supervised:
    """The positions of a pack with a label that counts."""

    index: Tensor
    """(N,) int64 positions."""
    slices: tuple[HeadSlice, ...] = ()
    """Slices of the vocabulary for them in turn; empty for the whole."""

    def __len__(self) -> int:
        return len(self.index)

    def pin(self) -> Supervised:
        """The same in page-locked memory."""
        return replace(self, index=self.index.pin_memory())

    def to(self, device: torch.device | str) -> Supervised:
        """The same on a device, copied without waiting where the memory is pinned."""
        return replace(self, index=self.index.to(device, non_blocking=True))


def supervised_positions(pack: Pack, slices: OutputSlices | None = None) -> Supervised:
    """Positions with a label that counts, found on the host before the pack moves to its device."""
    index = ((pack.labels != NO_LABEL) & (pack.loss_weight > 0)).nonzero().squeeze(-1)
    if slices is None:
        return Supervised(index)
    order, found = slices.split(pack.ids[index], pack.labels[index])
    return Supervised(index[order], found)


def hidden_states(decoder: Decoder, pack: Pack) -> Tensor:
    """(T, C) final hidden states of a pack that is on the decoder's device, and has no codes beside its ids."""
    assert pack.frame_index is None or not len(pack.frame_index), "codes beside ids are a layout's to read"
    lengths = pack.prefix_lengths[: pack.num_sequences]
    hidden: Tensor = decoder(pack.ids, pack.positions, pack.sequences, pack.max_seqlen, prefix_lengths=lengths)
    return hidden


def pack_losses(
    decoder: Decoder, pack: Pack, supervised: Supervised, *, smoothing: float = 0.0, chunk: int = 0
) -> TokenLosses:
    """Forward one pack that is on the decoder's device, as its supervised positions are."""
    hidden = hidden_states(decoder, pack)
    return losses_of_states(hidden, decoder, pack, supervised, smoothing=smoothing, chunk=chunk)


def losses_of_states(
    hidden: Tensor, decoder: Decoder, pack: Pack, supervised: Supervised, *, smoothing: float = 0.0, chunk: int = 0
) -> TokenLosses:
    """Losses of a pack's ids, given the hidden states (T, C)."""
    return supervised_losses(
        hidden,
        decoder.head_weight,
        labels=pack.labels,
        loss_weight=pack.loss_weight,
        task_ids=pack.task_ids,
        index=supervised.index,
        smoothing=smoothing,
        chunk=chunk,
        slices=supervised.slices,
    )


@torch.no_grad()
def mean_losses(
    decoder: Decoder, packs: Sequence[Pack], tasks: Sequence[str], vocabulary: Vocabulary
) -> dict[str, Any]:
    """{"task": …, "stream": …, "task_tokens": …} mean negative log-likelihoods (nats) on packs, without training."""
    device = next(decoder.parameters()).device
    names, table = stream_table(vocabulary)
    sums = LossTable(tasks, names, table, device)
    for pack in packs:
        sums.add(pack_losses(decoder, pack.to(device), supervised_positions(pack).to(device)))
    return sums.read()
