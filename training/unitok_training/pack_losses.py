"""The losses of a pack: a decoder's forward pass, and the loss of every position with a label by task and stream.

Shapes: T positions of a pack, C width, N supervised positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unitok.decoder import Decoder
from unitok_tokenizers.vocabulary import Vocabulary
from unitok_training.batch import NO_LABEL, Pack
from unitok_training.loss import LossTable, TokenLosses, supervised_losses


def stream_table(vocabulary: Vocabulary) -> tuple[tuple[str, ...], Tensor]:
    """(names of the streams, (V,) int64 index of the stream of every id); each codebook is a stream of its own."""
    names: list[str] = []
    table = torch.zeros(vocabulary.size, dtype=torch.int64)
    for extent in vocabulary.extents:
        name = extent.tokenizer if extent.block not in ("control", "language") else "control"
        name = f"{name}.{extent.codebook}" if extent.block == "codes" else name
        if name not in names:
            names.append(name)
        table[extent.start : extent.start + extent.size] = names.index(name)
    return tuple(names), table


def supervised_positions(pack: Pack) -> Tensor:
    """(N,) positions with a label that counts, found on the host before the pack moves to its device."""
    return ((pack.labels[:, 0] != NO_LABEL) & (pack.loss_weight[:, 0] > 0)).nonzero().squeeze(-1)


def pack_losses(
    decoder: Decoder, pack: Pack, index: Tensor, *, smoothing: float = 0.0, chunk: int = 4096
) -> TokenLosses:
    """Forward one pack that is on the decoder's device. `index` (N,) are its supervised positions."""
    lengths = pack.prefix_lengths[: pack.num_sequences]
    hidden = decoder(pack.ids[:, 0], pack.positions, pack.sequences, pack.max_seqlen, prefix_lengths=lengths)  # (T, C)
    return supervised_losses(
        hidden,
        decoder.head_weight,
        labels=pack.labels[:, 0],
        loss_weight=pack.loss_weight[:, 0],
        task_ids=pack.task_ids,
        index=index,
        smoothing=smoothing,
        chunk=chunk,
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
