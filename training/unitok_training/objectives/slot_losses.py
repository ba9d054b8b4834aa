"""Losses of the codes beside ids: a layout of codebooks predicts them, groups of slots are averaged apart.

A group's loss is the sum of its slots' losses, each times the slot's weight, ÷ the sum of these weights over all codes
that are to be predicted. Where a layout predicts that a slot holds nothing, this costs what it costs and counts as part
of the codes around it.

T positions of a pack, P positions with slots, S slots, C width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder.model import Decoder
from unitok.layouts.base import CodebookLayout, SlotLosses
from unitok.layouts.first import readable
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_training.data.batch import Pack
from unitok_training.objectives.base import TOKENS


def slot_groups(pattern: FramePattern) -> dict[str, list[int]]:
    """Group → its predicted slots. InputError for a group that is named like the loss of tokens."""
    found: dict[str, list[int]] = {}
    for number, slot in enumerate(pattern.slots):
        if slot.role == "predicted":
            found.setdefault(slot.group, []).append(number)
    if TOKENS in found:
        raise InputError(f"layout {pattern.layout!r} has a loss group {TOKENS!r}, which the ids' loss is called")
    return found


def slot_names(pattern: FramePattern) -> list[str]:
    """What the loss of each slot is called: as in a flat stream, where the same codes would be ids."""
    return [f"{slot.stream}.{slot.codebook}" for slot in pattern.slots]


def slot_counts(pattern: FramePattern, pack: Pack) -> dict[str, float]:
    """Group → sum of the weights of the codes that are to be predicted, of a pack on the host."""
    assert pack.slots is not None and pack.frame_weight is not None, "a layout's packs have slots"
    there = ((pack.slots != ABSENT) & (pack.frame_weight > 0)[:, None]).sum(0).tolist()
    groups = slot_groups(pattern).items()
    return {name: sum(pattern.slots[one].weight * there[one] for one in slots) for name, slots in groups}


def slot_terms(pattern: FramePattern, losses: SlotLosses) -> dict[str, Tensor]:
    """Group → sum () of its slots' weighted losses."""
    found = {}
    for name, slots in slot_groups(pattern).items():
        weighted = [losses.total[one] * pattern.slots[one].weight for one in slots]
        found[name] = torch.stack(weighted).sum()
    return found


@dataclass(frozen=True, kw_only=True)
class FramedStates:
    """What a decoder makes of a pack with codes beside its ids."""

    hidden: Tensor
    """(T, C) final hidden states."""
    rows: Tensor
    """(P, C) embedding rows of the ids at positions with slots."""


def framed_states(decoder: Decoder, layout: CodebookLayout, pack: Pack) -> FramedStates:
    """Forward a pack that is on the decoder's device, what the layout says of the codes added to the ids' rows."""
    assert pack.slots is not None and pack.frame_index is not None and pack.vectors is None
    slots = pack.slots
    if pack.frame_weight is not None and any(slot.role == "refined" for slot in layout.pattern.slots):
        slots = readable(layout.pattern, slots, pack.frame_weight)
    rows = functional.embedding(pack.ids[pack.frame_index], decoder.embedding)
    hidden = decoder(
        pack.ids, pack.positions, pack.sequences, pack.max_seqlen,
        prefix_lengths=pack.prefix_lengths[: pack.num_sequences],
        vectors=rows + layout.vectors(slots).to(rows.dtype), vector_index=pack.frame_index,
    )  # fmt: skip
    read = layout.id_rows(pack.ids[pack.frame_index], lambda _: rows)
    return FramedStates(hidden=hidden, rows=read)


def slot_losses(layout: CodebookLayout, states: FramedStates, pack: Pack) -> SlotLosses:
    """Losses of a pack's slots: the state before a position knows nothing of it, its id is then known."""
    assert pack.slots is not None and pack.frame_index is not None and pack.frame_weight is not None
    return layout.losses(states.hidden[pack.frame_index - 1], states.rows, pack.slots, pack.frame_weight)


def bits_per_second(rates: Mapping[str, tuple[float, int]], losses: Mapping[str, float]) -> dict[str, float]:
    """Stream of codes → bits in which a second of its audio is said, the marks around it left out.

    Args:
        rates: stream → frames a second and codebooks.
        losses: mean loss in nats by stream, each codebook one of its own; a stream that lacks one is left out.
    """
    found = {}
    for name, (rate, books) in rates.items():
        of = [losses.get(f"{name}.{book}") for book in range(books)]
        known = [one for one in of if one is not None]
        if len(known) == books:
            found[name] = rate * sum(known) / math.log(2)
    return found
