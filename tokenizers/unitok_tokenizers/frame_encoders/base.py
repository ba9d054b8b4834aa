"""What a frame encoder is, and the registry of them: samples → frames at a fixed rate, with gradients.

B batch, S samples, F input positions, T frames, D width, L hidden layers, V labels of the CTC head, blank included.
`unitok_tokenizers.encoders` holds the encoders behind units, which are frozen and give numpy arrays; these here are
trained with a decoder. A new one is a class and a line in `FRAME_ENCODERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, read_tensors

FRAME_ENCODERS = {
    "filterbank": "unitok_tokenizers.frame_encoders.filterbank:FilterbankEncoder",
    "transformer": "unitok_tokenizers.frame_encoders.trunks:TransformerEncoder",
    "conformer": "unitok_tokenizers.frame_encoders.trunks:ConformerEncoder",
    "speech_model": "unitok_tokenizers.frame_encoders.hf:SpeechModelEncoder",
    "whisper": "unitok_tokenizers.frame_encoders.hf:WhisperEncoder",
    "ctc": "unitok_tokenizers.frame_encoders.ctc:CtcFrameEncoder",
    "layer_mix": "unitok_tokenizers.frame_encoders.combined:LayerMix",
    "pitch": "unitok_tokenizers.frame_encoders.pitch:PitchEncoder",
    "side_by_side": "unitok_tokenizers.frame_encoders.combined:SideBySide",
}
"""Name in a configuration → `module:class`."""

Inputs = tuple[Tensor, ...]
"""What one recording becomes on the host: log-mels (F, M), samples (S,), or one of each for two encoders."""


@dataclass(frozen=True)
class Frames:
    """A batch of encoded recordings; what stands behind a row's end means nothing."""

    hidden: Tensor
    """(B, T, D) what an adapter reads."""
    lengths: Tensor
    """(B,) int64 frames of each row, at least 1."""
    layers: tuple[Tensor, ...] = ()
    """Hidden layers (B, T, D), what enters the first one included."""
    ctc: Tensor | None = None
    """(B, T, V) log-probabilities of a CTC head: label 0 is the blank, label i + 1 text piece i."""


class FrameEncoder(nn.Module):
    """Samples → frames. A row gives the same alone as in a batch."""

    name: ClassVar[str]
    """Entry in `FRAME_ENCODERS`."""
    sample_rate: int
    """Hz of the samples that it takes."""
    frame_rate: Fraction
    """Frames a second."""
    width: int
    """D."""
    depth: int
    """L, the number of `Frames.layers`."""
    labels: int = 0
    """V; 0 without a CTC head."""

    def inputs(self, samples: np.ndarray) -> Inputs:
        """What `forward` takes of one recording (S,) float32: cheap, without gradient, on the host."""
        raise NotImplementedError

    def frames_of(self, samples: int) -> int:
        """T of so many samples."""
        raise NotImplementedError

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """Encode a batch; inputs are on the module's device."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """What `frame_encoder_from_json` reads; weights are apart."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FrameEncoder:
        """The inverse of `to_json`, with fresh weights."""
        raise NotImplementedError

    def encode(self, recordings: Sequence[np.ndarray]) -> Frames:
        """Encode recordings (S,) float32 each."""
        device = next((value.device for value in (*self.parameters(), *self.buffers())), torch.device("cpu"))
        return self([tuple(part.to(device) for part in self.inputs(samples)) for samples in recordings])


def frame_encoder_from_json(value: Mapping[str, Any]) -> FrameEncoder:
    """A registered encoder; InputError where there is none of that name."""
    name = value.get("class")
    if name not in FRAME_ENCODERS:
        raise InputError(f"unknown frame encoder {name!r}; known: {', '.join(FRAME_ENCODERS)}")
    module, _, attribute = FRAME_ENCODERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute).from_json(value)


def load_frame_encoder(folder: Path) -> FrameEncoder:
    """An encoder with its weights, from a folder with `encoder.json` and `encoder.safetensors`."""
    encoder = frame_encoder_from_json(read_json(folder / "encoder.json"))
    encoder.load_state_dict(read_tensors(folder / "encoder.safetensors"))
    return encoder
