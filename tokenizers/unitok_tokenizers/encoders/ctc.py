"""The small network with a CTC head, of a judge or behind units, as an encoder that a decoder may be trained with.

B batch, F mel frames (100 Hz), T frames (25 Hz), M mel bins, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from torch.nn import functional

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.ctc_network import PADDING, SPOKEN, STRIDE, CtcNetwork, network_config
from unitok_tokenizers.encoders.filterbank import mel_inputs, padded
from unitok_tokenizers.encoders.frozen import between_silence


class CtcFrameEncoder(FrameEncoder):
    """The output of a chosen block, each frame to mean 0 and variance 1.

    Its characters are no text pieces and come twice a frame, so that there are no `Frames.ctc`.

    Args:
        network: from `unitok_tokenizers.encoders.frozen.CtcEncoder`.
        mel: features that it was trained on.
        layer: blocks that are run to the output; the last ones of a trained network are mostly blank.
    """

    name = "ctc"

    def __init__(self, network: CtcNetwork, mel: MelConfig, layer: int) -> None:
        super().__init__()
        self.network, self.mel, self.layer = network, mel, layer
        self.sample_rate, self.frame_rate = mel.sample_rate, mel.frame_rate / STRIDE
        self.width, self.depth = network.config.width, len(network.blocks) + 1

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels (F, M)."""
        if self.network.config.statistics == SPOKEN:
            samples = between_silence(samples, self.mel)
        return mel_inputs(samples, self.mel, STRIDE)

    def frames_of(self, samples: int) -> int:
        """One for every four hops."""
        return max(1, samples // self.mel.hop_length // STRIDE)

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        states, lengths = self.network.states(*padded(batch))
        edge = PADDING if self.network.config.statistics == SPOKEN else 0
        inner = (state[:, edge : state.shape[1] - edge] for state in states)
        layers = tuple(functional.layer_norm(state.float(), (self.width,)) for state in inner)
        return Frames(layers[self.layer], lengths - 2 * edge, layers)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": asdict(self.network.config), "mel": asdict(self.mel), "layer": self.layer}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CtcFrameEncoder:
        """See `FrameEncoder.from_json`."""
        return cls(CtcNetwork(network_config(value["config"])), MelConfig(**value["mel"]), value["layer"])
