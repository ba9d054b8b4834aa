"""The second pass of `first_nar`: codebook after codebook, each for all frames of a span at once (VALL-E's NAR).

A stage is a codebook: it reads the conditions, the prompt's frames with all their codebooks and the span's frames with
those before it, and predicts its own of every frame (Wang et al. 2023; USLM, VioLA, SpeechX and AnyGPT have the same).

B spans, N packed frames, Q codebooks, R refined ones, C width, V codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.slots import drawn
from unitok.second_passes.base import CodeSpan, SecondPass, SecondPassConfig, SpanBatch, refined_slots
from unitok.second_passes.span_network import SpanNetwork
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern


@dataclass(frozen=True, kw_only=True)
class RefinerConfig(SecondPassConfig):
    """Options of a refiner."""

    tied: bool = True
    """A codebook's table is its head as well, as in the paper."""


class Refiner(SecondPass):
    """Predicts the refined codebooks of a pattern; see the module."""

    name = "first_nar"
    Config = RefinerConfig
    options: RefinerConfig

    def __init__(
        self, options: RefinerConfig, pattern: FramePattern, *, ids: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, ids=ids, generator=generator)
        self.slots = refined_slots(pattern)
        shape, sizes = replace(options.decoder, vocab_size=ids), pattern.cardinalities
        self.network = SpanNetwork(sizes, shape, stages=len(self.refined), generator=generator)
        self.heads: nn.ParameterList | None = None
        if not options.tied:
            self.heads = nn.ParameterList(drawn(sizes[book], shape.width, generator=generator) for book in self.refined)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """`codes.1` and so on: stream and codebook."""
        return tuple(f"{self.pattern.stream}.{book}" for book in self.refined)

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """`refined`: all codes count alike."""
        return ("refined",) * len(self.refined)

    def counts(self, spans: Sequence[CodeSpan], stages: np.ndarray) -> dict[str, float]:
        """See `SecondPass.counts`: codes of the stages' codebooks."""
        books = [self.refined[stage] for stage in stages.tolist()]
        there = sum(np.count_nonzero(one.codes[:, book] != ABSENT) for one, book in zip(spans, books, strict=True))
        return {"refined": float(there)}

    def logits(self, hidden: Tensor, stage: int) -> Tensor:
        """(N, C) → (N, V) float32 of the codebook of a stage."""
        head: Tensor = self.network.tables[self.refined[stage]] if self.heads is None else self.heads[stage]
        return functional.linear(hidden, head.to(hidden.dtype)).float()

    def hidden(self, batch: SpanBatch, stages: Tensor) -> Tensor:
        """(N, C) of all frames, each span at its stage (B,)."""
        found: Tensor = self.network(batch, self.known + stages[batch.owner], stages)
        return found

    def losses(self, batch: SpanBatch) -> SlotLosses:
        """Cross-entropy in nats, summed by codebook; each span at the stage that was drawn for it, or at all."""
        zero = torch.zeros((), device=batch.codes.device)
        # Heads of stages that nobody drew hang on it as well: each has a gradient on every rank.
        nothing = sum((0 * head.sum().float() for head in self.heads or ()), zero)
        total, weight = [nothing] * len(self.refined), [zero] * len(self.refined)
        for stages in self._stages(batch):
            hidden, of_frame = self.hidden(batch, stages), stages[batch.owner]
            total[0] = total[0] + 0 * hidden.sum().float()
            for stage, book in enumerate(self.refined):
                labels = torch.where(of_frame == stage, batch.codes[:, book], ABSENT)
                here = (labels != ABSENT).nonzero().squeeze(-1)
                if not len(here):
                    continue
                nll = functional.cross_entropy(self.logits(hidden[here], stage), labels[here], reduction="sum")
                total[stage] = total[stage] + nll
                weight[stage] = weight[stage] + len(here)
        return SlotLosses(total=torch.stack(total), weight=torch.stack(weight))

    def _stages(self, batch: SpanBatch) -> list[Tensor]:
        """(B,) stages of each run of the network."""
        if batch.stages is not None:
            return [batch.stages]
        return [torch.full_like(batch.bounds[1:], stage, dtype=torch.int64) for stage in range(len(self.refined))]

    @torch.no_grad()
    def finish(self, batch: SpanBatch, choose: Choose) -> Tensor:
        """Codes (N, Q): the decoder's as they are, the others stage by stage, whatever stood in their places."""
        assert bool((batch.codes[:, : self.known] >= 0).all()), "the decoder's codebooks are not known"
        codes = batch.codes.clone()
        codes[:, self.known :] = ABSENT
        for stage, stages in enumerate(self._stages(replace(batch, stages=None))):
            if len(codes):
                logits = self.logits(self.hidden(replace(batch, codes=codes), stages), stage)
                codes[:, self.refined[stage]] = choose(self.slots[stage], logits)[0]
        return codes
