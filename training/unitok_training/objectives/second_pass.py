"""Losses of a second pass: the spans of codes that a pack's documents end with, whole, seen both ways.

What a document says is read from its ids and the codes beside them, on the host, where packs are laid out. Which stage
an example trains, and how much of it is given as prompt, is a hash of the seed and its number: the same on resume and
on any number of processes.

D documents, F frames, Q codebooks, S slots, R losses of a second pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unitok.layouts.base import SlotLosses
from unitok.second_passes.base import CodeSpan, SecondPass, SpanBatch, code_span, refined_slots
from unitok_tokenizers.acoustic.base import LatentCodec
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.sequence import Parsed
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.data.batch import Pack
from unitok_training.data.mixture import parse_key
from unitok_training.objectives.span_draws import drawn_beginning, drawn_stages

PROMPT_SECONDS, USUAL_RATE = 3.0, 12.5
"""The longest beginning that is given where no other voice is, and frames a second of codes that do not say theirs."""


@dataclass(frozen=True, kw_only=True)
class TrainedPass:
    """A second pass and what it learns from."""

    second: SecondPass
    """What is trained."""
    codec: LatentCodec | None = None
    """Gives the latents of codes, where it learns these."""


@dataclass(frozen=True, kw_only=True)
class PassBatch:
    """The spans of a pack."""

    spans: SpanBatch
    """What the second pass reads."""
    counts: Mapping[str, float]
    """Term → what its losses are of."""

    def to(self, device: torch.device | str) -> PassBatch:
        """The same on a device, copied without waiting where the memory is pinned."""
        return replace(self, spans=self.spans.to(device))

    def pin(self) -> PassBatch:
        """The same in page-locked memory."""
        return replace(self, spans=self.spans.pin())


class PassBatches:
    """Takes the spans from packs.

    Args:
        trained: whose spans.
        vocabulary: of the ids.
        keys: of the mixture, in the order of the packs' task ids.
        seed: of what is drawn.
    """

    def __init__(self, trained: TrainedPass, vocabulary: Vocabulary, keys: Sequence[str], *, seed: int) -> None:
        self.second, self.codec, self.vocabulary, self.seed = trained.second, trained.codec, vocabulary, seed
        self.pattern = trained.second.pattern
        self.ends = [parse_key(key).of.outputs[-1:] == ("codes",) for key in keys]
        """Which tasks end in codes."""
        rate = vocabulary.streams[self.pattern.stream].frame_rate
        self.most = max(1, round(PROMPT_SECONDS * float(rate or USUAL_RATE)))

    def batch(self, pack: Pack) -> PassBatch | None:
        """The spans of a pack on the host; None where no document ends in codes."""
        assert pack.examples is not None, "packs are laid out by their examples' numbers"
        starts = pack.cu_seqlens[: pack.num_documents + 1].tolist()
        spans, examples = list[CodeSpan](), list[int]()
        for number, (start, stop) in enumerate(zip(starts, starts[1:])):
            if not self.ends[int(pack.task_ids[start])]:
                continue
            example = int(pack.examples[number])
            if (span := self._span(pack, start, stop, example)) is not None:
                spans.append(span)
                examples.append(example)
        if not spans:
            return None
        stages = drawn_stages(self.seed, np.array(examples), len(self.second.refined))
        return PassBatch(spans=SpanBatch.of(spans, stages=stages), counts=self.second.counts(spans, stages))

    def _span(self, pack: Pack, start: int, stop: int, example: int) -> CodeSpan | None:
        said = said_in(pack, start, stop, self.vocabulary)
        span = code_span(said, self.vocabulary, self.pattern)
        if span is None or not len(span.codes):
            return None
        if self.codec is not None:
            span = replace(span, latents=self.codec.latents(span.codes))
        if len(said.outputs) > 1 or len(span.prompt):
            return span
        # Half of the examples have no prompt, as requests may have none; the other half begins with one, which leaves
        # as much to learn from as it takes.
        size = np.array([len(span.codes)])
        most = min(self.most, len(span.codes) // 2)
        given = drawn_beginning(self.seed, np.array([example]), size, least=-most, most=most)
        return span.begun(int(given[0]))


def said_in(pack: Pack, start: int, stop: int, vocabulary: Vocabulary) -> Parsed:
    """What a document says that stands from position `start` of a pack to `stop`, on the host."""
    assert pack.frame_index is not None and pack.slots is not None, "a layout's packs have slots"
    index = pack.frame_index.numpy()
    begin, end = np.searchsorted(index, [start, stop])
    frames = Frames(index[begin:end] - start, pack.slots[begin:end].numpy())
    return parse(pack.ids[start:stop].numpy(), vocabulary, frames)


def spans_in(pack: Pack, vocabulary: Vocabulary, pattern: FramePattern) -> list[CodeSpan]:
    """The spans of codes that documents of a pack on the host end with, nothing of them given as prompt."""
    bounds = pack.cu_seqlens[: pack.num_documents + 1].tolist()
    said = [said_in(pack, start, stop, vocabulary) for start, stop in zip(bounds, bounds[1:])]
    found = [code_span(one, vocabulary, pattern) for one in said]
    return [one for one in found if one is not None and len(one.codes)]


def refined_losses(second: SecondPass, pack: Pack, vocabulary: Vocabulary) -> SlotLosses | None:
    """Losses by slot of the refined codes (S,) that a pack's documents end with, all stages of whole spans, nothing of
    them given as prompt. None where no document ends in codes, or where latents are found in their place.

    Args:
        second: on any device.
        pack: on the host.
        vocabulary: of the ids.
    """
    if second.says_latents:
        return None
    spans = spans_in(pack, vocabulary, second.pattern)
    if not spans:
        return None
    device = next(second.parameters()).device
    nothing = torch.zeros(len(second.pattern.slots), device=device)
    return with_refined(
        SlotLosses(total=nothing, weight=nothing), second, second.losses(SpanBatch.of(spans, device=device))
    )


def pass_terms(second: SecondPass, batch: PassBatch | None) -> tuple[dict[str, Tensor], SlotLosses | None]:
    """(term → sum () of its losses, the losses (R,)) of a batch on the network's device."""
    if batch is None:
        zero = torch.zeros((), device=next(second.parameters()).device)
        return dict.fromkeys(second.loss_terms, zero), None
    losses, terms = second.losses(batch.spans), dict[str, Tensor]()
    for term, total in zip(second.loss_terms, losses.total.unbind(), strict=True):
        terms[term] = terms[term] + total if term in terms else total
    return terms, losses


def with_refined(slots: SlotLosses, second: SecondPass, found: SlotLosses | None) -> SlotLosses:
    """Losses by slot (S,), those of refined codebooks in the places of their slots; latents have none."""
    if found is None or second.says_latents:
        return slots
    total, weight = list(slots.total.unbind()), list(slots.weight.unbind())
    for place, one, count in zip(refined_slots(second.pattern), found.total.unbind(), found.weight.unbind()):
        total[place], weight[place] = total[place] + one, weight[place] + count
    return SlotLosses(total=torch.stack(total), weight=torch.stack(weight))
