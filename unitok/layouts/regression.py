"""The second pass of `first_regress`: the codec's latents of a whole span in one step (LauraGPT's one-step vocoder).

From the first codebook, the conditions and the prompt it predicts, for every frame, the vector that all codebooks of
the codec together stand for (Chen et al. 2023); the codec decodes that (`LatentCodec.decode_latents`), so that there is
nothing to choose. Distances are those of the paper, |x| and x², averaged over a vector's numbers.

B spans, N packed frames, Q codebooks, C width, D latent width.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.model import INITIAL_SCALE, DecoderConfig
from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.second_pass import SecondPass, SpanBatch
from unitok.layouts.span_network import SpanNetwork
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


class Regression(SecondPass):
    """Predicts latents of a codec.

    Args:
        pattern: where codes stand; its refined codebooks are what the latents stand for beside the decoder's.
        network: shape of its blocks; `vocab_size` is the vocabulary's size, whose ids its conditions are.
        latent: D of the codec.
        generator: draws the initial weights; torch's default generator where None.
    """

    def __init__(
        self, pattern: FramePattern, network: DecoderConfig, *, latent: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(pattern)
        self.network = SpanNetwork(pattern.cardinalities, network, generator=generator)
        self.range = LatentRange(latent)
        self.out = nn.Parameter(torch.empty(latent, network.width))
        nn.init.normal_(self.out, 0.0, INITIAL_SCALE, generator=generator)
        self.bias = nn.Parameter(torch.zeros(latent))

    @property
    def loss_names(self) -> tuple[str, ...]:
        """`codes.l1` and `codes.l2`: of latents in units of their deviation."""
        return tuple(f"{self.pattern.stream}.{one}" for one in ("l1", "l2"))

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
        latents, width = batch.latents, len(self.bias)
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

    def config(self) -> dict[str, Any]:
        """What builds it again; JSON."""
        return {
            "class": "first_regress",
            "pattern": self.pattern.to_json(),
            "network": asdict(self.network.decoder.config),
            "latent": len(self.bias),
        }

    @staticmethod
    def from_config(config: dict[str, Any], generator: torch.Generator | None = None) -> Regression:
        """With fresh weights, from what `config` gave."""
        pattern, network = FramePattern.from_json(config["pattern"]), DecoderConfig(**config["network"])
        return Regression(pattern, network, latent=config["latent"], generator=generator)
