"""Equal training of every layout, and what held-out audio costs it.

Updates read the same utterances in the same order whatever the layout; each code counts the same, be it an id or one
beside it, so that the loss is nats a code everywhere.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn import functional

from benchmarks.layout_material import Sizes, System
from unitok.second_passes.base import SecondPass, SpanBatch
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_training.data.batch import Pack, collate
from unitok_training.data.documents import Document
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.objectives.pack_losses import hidden_states, supervised_positions
from unitok_training.objectives.second_pass import PassBatch, refined_losses, spans_in
from unitok_training.objectives.slot_losses import framed_states, slot_losses
from unitok_training.objectives.span_draws import drawn_stages
from unitok_training.objectives.tokens import TokenBatch, TokenObjective

TASK, CODES = "vtts", "codes"
HELD = "test_seen"
"""Split: other sentences than the training's, by its voices."""
LEARNING_RATE, WARMUP, NORM = 3e-3, 10, 1.0
AT_ONCE = 8
"""Held-out utterances that are read together."""


def source(one: System, shards: Shards, split: str, seed: int) -> ExampleSource:
    """Text, then codes; which utterance comes when does not depend on the layout."""
    options = ExampleOptions(split=split, voice_share=0.0, target_row="fixed")
    return ExampleSource(shards, one.vocabulary, Mixture(tasks={TASK: 1.0}), seed=seed, options=options)


def packed(one: System, documents: list[Document]) -> Pack:
    """Documents one after another, without padding."""
    return collate(documents, capacity=sum(len(each.ids) for each in documents), pad=one.vocabulary.pad)


def trained(one: System, shards: Shards, sizes: Sizes, seed: int) -> int:
    """Train in place; returns the codes that were learned from."""
    examples = source(one, shards, "train", seed)
    objective = TokenObjective(decoder=one.decoder, layout=one.layout, second=one.second)
    weights = [weight for part in one.parts for weight in part.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    seen = 0
    for step in range(sizes.steps):
        rising, falling = (step + 1) / WARMUP, 1 - step / sizes.steps
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(rising, falling)
        documents = [examples.document(step * sizes.batch + number) for number in range(sizes.batch)]
        pack = packed(one, documents)
        count = codes_of(one, pack)
        finished = None if one.second is None else spans_of(one, one.second, pack, step * sizes.batch, seed)
        losses = objective.losses(TokenBatch(pack=pack, supervised=supervised_positions(pack), finished=finished))
        loss = torch.stack([weight_of(one, name) * value for name, value in losses.terms.items()]).sum() / count
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, NORM)
        optimizer.step()
        seen += count
    return seen


def spans_of(one: System, second: SecondPass, pack: Pack, first: int, seed: int) -> PassBatch:
    """The utterances of a pack, whole, each at one stage of the second pass that its number draws."""
    spans = spans_in(pack, one.vocabulary, second.pattern)
    assert len(spans) == pack.num_documents, "every document ends in codes"
    stages = drawn_stages(seed, np.arange(first, first + len(spans)), len(second.refined))
    return PassBatch(spans=SpanBatch.of(spans, stages=stages), counts=second.counts(spans, stages))


def weight_of(one: System, term: str) -> float:
    """Of a term of the loss: a stage of several is drawn for each utterance, and stands for all of them."""
    return float(len(one.second.refined)) if one.second is not None and term in one.second.loss_terms else 1.0


def ranges(one: System) -> list[tuple[int, int]]:
    """Ids [start, stop) of each codebook that has any."""
    books = (CODES,) if one.vocabulary.framed is None else ()
    count = len(one.vocabulary.streams[CODES].cardinalities) if books else 1
    return [found for book in range(count) for found in one.vocabulary.block_ranges(CODES, book)]


def codes_of(one: System, pack: Pack) -> int:
    """Codes that a pack is to say."""
    said = pack.labels[pack.loss_weight > 0]
    inline = sum(int(((said >= start) & (said < stop)).sum()) for start, stop in ranges(one))
    if pack.slots is None or pack.frame_weight is None:
        return inline
    return inline + int((pack.slots[pack.frame_weight > 0] != ABSENT).sum())


@torch.inference_mode()
def held_out_bits(one: System, shards: Shards, rate: float, books: int) -> float:
    """Bits a second of held-out audio: an id among those of its codebook, what stands beside it among its slot's."""
    examples = source(one, shards, HELD, 0)
    documents = [examples.document(index) for index in range(examples.usable()[TASK])]
    nats, codes = 0.0, 0
    for part in one.parts:
        part.eval()
    for start in range(0, len(documents), AT_ONCE):
        pack = packed(one, documents[start : start + AT_ONCE])
        if one.layout is None:
            hidden = hidden_states(one.decoder, pack)
        else:
            states = framed_states(one.decoder, one.layout, pack)
            hidden, nats = states.hidden, nats + float(slot_losses(one.layout, states, pack).total.sum())
        if one.second is not None and (found := refined_losses(one.second, pack, one.vocabulary)) is not None:
            nats += float(found.total.sum())
        for first, stop in ranges(one):
            own = ((pack.labels >= first) & (pack.labels < stop) & (pack.loss_weight > 0)).nonzero()[:, 0]
            logits = functional.linear(hidden[own], one.decoder.head_weight[first:stop]).float()
            nats += float(functional.cross_entropy(logits, pack.labels[own] - first, reduction="sum"))
        codes += codes_of(one, pack)
    return nats / math.log(2) * rate * books / codes
