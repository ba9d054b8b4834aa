"""The second pass of `first_regress`: the codec's latents of a whole span in one step (LauraGPT's one-step vocoder).

From the first codebook, the conditions and the prompt it predicts, for every frame, the vector that all codebooks of
the codec together stand for (Chen et al. 2023); the codec decodes that (`LatentCodec.decode_latents`), so that there is
nothing to choose. Distances are those of the paper, |x| and x², averaged over a vector's numbers.

B spans, N packed frames, Q codebooks, C width, D latent width.
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
from unitok.second_passes.base import CodeSpan, SecondPass, SecondPassConfig, SpanBatch
from unitok.second_passes.span_network import SpanNetwork
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.float32_buffers import Float32Buffers
from unitok_tokenizers.grammar.frames import FramePattern

LEAST_DEVIATION = 1e-5
"""Of a number of the latents that hardly moves."""


class LatentRange(Float32Buffers):
    """Mean and deviation of a codec's latents: what is predicted has about unit size, whatever the codec's has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.mean: Tensor
        self.deviation: Tensor


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(SecondPassConfig):
    """Options of a regression."""

    latent: int
    """D of the codec."""


class Regression(SecondPass):
    """Predicts latents of a codec; see the module."""

    name = "first_regress"
    Config = RegressionConfig
    says_latents = True
    options: RegressionConfig

    def __init__(
        self, options: RegressionConfig, pattern: FramePattern, *, ids: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, ids=ids, generator=generator)
        shape = replace(options.decoder, vocab_size=ids)
        self.network = SpanNetwork(pattern.cardinalities, shape, generator=generator)
        self.range = LatentRange(options.latent)
        self.out = drawn(options.latent, shape.width, generator=generator)
        self.bias = nn.Parameter(torch.zeros(options.latent))

    @property
    def loss_names(self) -> tuple[str, ...]:
        """`codes.l1` and `codes.l2`: of latents in units of their deviation."""
        return tuple(f"{self.pattern.stream}.{one}" for one in self.loss_terms)

    @property
    def loss_terms(self) -> tuple[str, ...]:
        """`l1` and `l2`, which are added."""
        return "l1", "l2"

    def counts(self, spans: Sequence[CodeSpan], stages: np.ndarray) -> dict[str, float]:
        """See `SecondPass.counts`: frames."""
        return dict.fromkeys(self.loss_terms, float(sum(len(one.codes) for one in spans)))

    @torch.no_grad()
    def fit_range(self, latents: Tensor) -> None:
        """Take mean and deviation from latents (N, D) of training speech; before training."""
        self.range.mean.copy_(latents.float().mean(0))
        self.range.deviation.copy_(latents.float().std(0, correction=0).clamp(min=LEAST_DEVIATION))

    def predicted(self, batch: SpanBatch) -> Tensor:
        """(N, D) float32 in units of the deviation."""
        read = torch.full((len(batch.codes),), self.known, device=batch.codes.device)
        hidden = self.network(batch, read)
        return functional.linear(hidden, self.out.to(hidden.dtype)).float() + self.bias.float()

    def losses(self, batch: SpanBatch) -> SlotLosses:
        """Sums of both distances over frames; InputError where the batch has no latents of this width."""
        latents, width = batch.latents, self.options.latent
        if latents is None or latents.shape != (len(batch.codes), width):
            shape = "none" if latents is None else f"of shape {tuple(latents.shape)}"
            raise InputError(
                f"latents of {len(batch.codes)} frames are {shape}, not {width} wide: take them from the codec "
                "(`latents`) that this model was made for"
            )
        error = self.predicted(batch) - (latents.float() - self.range.mean) / self.range.deviation
        count = error.new_full((), float(len(error)))
        total = torch.stack([error.abs().mean(-1).sum(), error.square().mean(-1).sum()])
        return SlotLosses(total=total, weight=torch.stack([count, count]))

    @torch.no_grad()
    def finish(self, batch: SpanBatch, choose: Choose) -> Tensor:
        """Latents (N, D) float32, as the codec has them; nothing is chosen."""
        assert bool((batch.codes[:, : self.known] >= 0).all()), "the decoder's codebooks are not known"
        return self.predicted(batch) * self.range.deviation + self.range.mean
