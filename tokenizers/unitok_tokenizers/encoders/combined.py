"""Encoders made of encoders: one layer or a learned mix of all, and two encoders side by side.

B batch, T frames, D width, L hidden layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.errors import InputError


class LayerMix(FrameEncoder):
    """One hidden layer of an encoder, or a learned weighted sum of all of them (Yang et al. 2021, SUPERB).

    Args:
        encoder: whose layers they are.
        layer: which one, 0 being what enters the first; None learns weights, which begin equal.
    """

    name = "layer_mix"

    def __init__(self, encoder: FrameEncoder, layer: int | None = None) -> None:
        super().__init__()
        if layer is not None and not 0 <= layer < encoder.depth:
            raise InputError(f"encoder.layer is {layer}: this encoder has layers 0 to {encoder.depth - 1}")
        self.encoder, self.choice = encoder, layer
        self.scores = nn.Parameter(torch.zeros(encoder.depth)) if layer is None else None
        self.sample_rate, self.frame_rate = encoder.sample_rate, encoder.frame_rate
        self.width, self.depth, self.labels = encoder.width, encoder.depth, encoder.labels
        self.parts = encoder.parts

    @property
    def weights(self) -> Tensor:
        """(L,) share of each layer; they sum to 1."""
        if self.scores is None:
            return torch.eye(self.depth, device="cpu")[self.choice or 0]
        return self.scores.softmax(0, dtype=torch.float32)

    def inputs(self, samples: np.ndarray) -> Inputs:
        """Those of the encoder."""
        return self.encoder.inputs(samples)

    def frames_of(self, samples: int) -> int:
        """As many as the encoder's."""
        return self.encoder.frames_of(samples)

    def read_samples(self, samples: int) -> int:
        """As many as the encoder's."""
        return self.encoder.read_samples(samples)

    def frames_in(self, inputs: Inputs) -> int | None:
        """As many as the encoder's."""
        return self.encoder.frames_in(inputs)

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        found = self.encoder(batch)
        if self.choice is not None:
            hidden = found.layers[self.choice]
        else:
            layers = torch.stack(found.layers)
            hidden = torch.einsum("l,lbtd->btd", self.weights.to(layers.dtype), layers)
        return Frames(hidden, found.lengths, found.layers, found.ctc)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "encoder": self.encoder.to_json(), "layer": self.choice}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LayerMix:
        """See `FrameEncoder.from_json`."""
        return cls(value["encoder"], value["layer"])


class SideBySide(FrameEncoder):
    """Two encoders whose frames stand side by side (Tang et al. 2024, SALMONN: one for speech, one for sound).

    The frame rate is the first one's; of the second, the frame that lies at the same moment is taken.
    """

    name = "side_by_side"

    def __init__(self, first: FrameEncoder, second: FrameEncoder) -> None:
        super().__init__()
        if first.sample_rate != second.sample_rate:
            raise InputError(
                f"two encoders side by side take {first.sample_rate} and {second.sample_rate} Hz; "
                "take encoders of one sample rate"
            )
        self.first, self.second = first, second
        self.sample_rate, self.frame_rate = first.sample_rate, first.frame_rate
        self.width, self.depth, self.labels = first.width + second.width, 1, first.labels
        self.parts = first.parts + second.parts

    def inputs(self, samples: np.ndarray) -> Inputs:
        """Those of the first, then those of the second."""
        return self.first.inputs(samples) + self.second.inputs(samples)

    def frames_of(self, samples: int) -> int:
        """As many as the first one's."""
        return self.first.frames_of(samples)

    def read_samples(self, samples: int) -> int:
        """As many as of the one that takes more."""
        return max(self.first.read_samples(samples), self.second.read_samples(samples))

    def frames_in(self, inputs: Inputs) -> int | None:
        """As many as the first one's."""
        return self.first.frames_in(inputs[: self.first.parts])

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        own = self.first.parts
        one = self.first([inputs[:own] for inputs in batch])
        two = self.second([inputs[own:] for inputs in batch])
        ratio = float(self.second.frame_rate / self.first.frame_rate)
        place = (torch.arange(one.hidden.shape[1], device=one.lengths.device) * ratio).long()
        place = torch.minimum(place[None], two.lengths[:, None] - 1)  # (B, T)
        other = two.hidden.gather(1, place[..., None].expand(-1, -1, two.hidden.shape[2]))
        hidden = torch.cat([one.hidden, other.to(one.hidden.dtype)], dim=-1)
        return Frames(hidden, one.lengths, (hidden,), one.ctc)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "first": self.first.to_json(), "second": self.second.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SideBySide:
        """See `FrameEncoder.from_json`."""
        return cls(value["first"], value["second"])
