"""MFCC: what units are clustered from where no text is known to train an encoder with.

S samples, F frames (50 Hz by default), D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from unitok_tokenizers.audio.features import MelConfig, deltas, log_mel, mfcc
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.filterbank import padded
from unitok_tokenizers.files import fingerprint


class MfccEncoder(FrameEncoder):
    """MFCC with slopes in a window of neighboring frames, normalized per recording."""

    name = "mfcc"
    ready = True
    CONTEXT = 2

    def __init__(self, mel: MelConfig | None = None) -> None:
        super().__init__()
        self.mel = mel or MelConfig(hop_length=320)
        self.sample_rate, self.frame_rate = self.mel.sample_rate, self.mel.frame_rate
        self.width, self.depth = 39 * (2 * self.CONTEXT + 1), 1

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint({"class": "mfcc", **asdict(self.mel)})

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → features (F, D): they are made where recordings are read."""
        padded_samples = np.pad(samples, (0, max(0, self.mel.hop_length - len(samples))))
        cepstra = mfcc(log_mel(torch.from_numpy(padded_samples), self.mel))
        slope = deltas(cepstra)
        features = torch.cat([cepstra, slope, deltas(slope)], dim=1)  # (F, 39)
        features = (features - features.mean(0)) / (features.std(0, correction=0) + 1e-3)
        edges = [features[:1].expand(self.CONTEXT, -1), features, features[-1:].expand(self.CONTEXT, -1)]
        windows = torch.cat(edges).unfold(0, 2 * self.CONTEXT + 1, 1)  # (F, 39, W)
        return (windows.reshape(len(features), -1),)

    def frames_of(self, samples: int) -> int:
        """One a hop."""
        return max(1, samples // self.mel.hop_length)

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        hidden, lengths = padded(batch)
        return Frames(hidden, lengths, (hidden,))

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "mel": asdict(self.mel)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> MfccEncoder:
        """See `FrameEncoder.from_json`."""
        return cls(MelConfig(**value["mel"]))
