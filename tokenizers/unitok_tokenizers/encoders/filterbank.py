"""Filterbanks as an encoder: log-mels at 100 Hz, normalized per recording or by constants, with nothing to train.

F frames, M mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.networks.normalization import ALL, SPOKEN, normalize

FILTERBANK = MelConfig(n_fft=512, win_length=400)
"""80 bins, windows of 25 ms, a frame every 10 ms."""
MEAN, DEVIATION = -2.5, 2.0
"""Of log-mels of speech, roughly: constants where a recording keeps its own mean (Gong et al. 2021, AST; BEATs)."""


def mel_inputs(samples: np.ndarray, mel: MelConfig, least: int = 1) -> Inputs:
    """Log-mels (F, M) of samples (S,), of at least `least` frames."""
    short = max(0, least * mel.hop_length - len(samples))
    with torch.no_grad():
        return (log_mel(torch.from_numpy(np.pad(samples, (0, short)).astype(np.float32)), mel),)


def padded(batch: Sequence[Inputs]) -> tuple[Tensor, Tensor]:
    """First inputs of a batch: (B, F, M) padded with zeros, and their lengths (B,)."""
    mels = [inputs[0] for inputs in batch]
    lengths = torch.tensor([len(one) for one in mels], device="cpu").to(mels[0].device, non_blocking=True)
    return pad_sequence(mels, batch_first=True), lengths


class FilterbankEncoder(FrameEncoder):
    """The features themselves.

    Args:
        mel: their configuration.
        centered: each recording's mean is taken out; a voice is known by that mean, which constants leave in.
        statistics: what that mean is taken over; see `CtcNetworkConfig`.
    """

    name = "filterbank"
    ready = True

    def __init__(self, mel: MelConfig = FILTERBANK, *, centered: bool = True, statistics: str = SPOKEN) -> None:
        super().__init__()
        self.statistics = statistics
        self.mel, self.centered = mel, centered
        self.sample_rate, self.frame_rate = mel.sample_rate, mel.frame_rate
        self.width, self.depth = mel.num_mels, 1

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels (F, M)."""
        return mel_inputs(samples, self.mel)

    def frames_of(self, samples: int) -> int:
        """One per hop."""
        return max(1, samples // self.mel.hop_length)

    def frames_in(self, inputs: Inputs) -> int:
        """As many as log-mels."""
        return len(inputs[0])

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        mels, lengths = padded(batch)
        hidden = normalize(mels, lengths, self.statistics) if self.centered else (mels - MEAN) / DEVIATION
        return Frames(hidden, lengths, (hidden,))

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        kept = {"centred": self.centered, "statistics": self.statistics}
        return {"class": self.name, "mel": asdict(self.mel), **kept}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FilterbankEncoder:
        """See `FrameEncoder.from_json`."""
        statistics = value.get("statistics", ALL)  # what filterbanks of before took
        return cls(MelConfig(**value["mel"]), centered=value.get("centred", True), statistics=statistics)
