"""What a frame encoder is: samples → frames at a fixed rate, with gradients where it is trained.

B batch, S samples, F input positions, T frames, D width, L hidden layers, V labels of the CTC head, blank included.
The same encoder stands behind units (k-means over one of its layers), before an adapter and under a scorer. A new one
is a class and a line in `registry.FRAME_ENCODERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, write_json

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


class FrameStream(Protocol):
    """An encoder in the middle of one recording; put together, its frames are those of the whole."""

    def push(self, samples: np.ndarray) -> Tensor:
        """The next samples (S,) float32 → frames (T, D) that are known now, perhaps none."""

    def finish(self) -> Tensor:
        """The remaining frames (T, D)."""


class FrameEncoder(nn.Module):
    """Samples → frames. A row gives the same alone as in a batch."""

    name: ClassVar[str]
    """Entry in `registry.FRAME_ENCODERS`."""
    ready: ClassVar[bool] = False
    """Whether it is made without arguments: it has nothing that is trained, and recipes and units may name it."""
    batch_seconds: ClassVar[int] = 120
    """Longest recording × recordings of a batch, in seconds, where many are encoded: what memory holds beside them."""
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
    parts: int = 1
    """Tensors that `inputs` gives."""

    def inputs(self, samples: np.ndarray) -> Inputs:
        """What `forward` takes of one recording (S,) float32: cheap, without gradient, on the host."""
        raise NotImplementedError

    def frames_of(self, samples: int) -> int:
        """T of so many samples."""
        raise NotImplementedError

    def read_samples(self, samples: int) -> int:
        """How many samples are encoded for so many: more where an encoder fills up what it is given."""
        return samples

    def frames_in(self, inputs: Inputs) -> int | None:
        """T of one recording's inputs, without asking the device; None where only the encoding says."""
        return None

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """Encode a batch; inputs are on the module's device."""
        raise NotImplementedError

    def hidden_at(self, batch: Sequence[Inputs], layer: int | None = None) -> tuple[Tensor, Tensor]:
        """Hidden layer (B, T, D), or what an adapter reads where None, and lengths (B,)."""
        frames = self(batch)
        return (frames.hidden if layer is None else frames.layers[layer]), frames.lengths

    def to_json(self) -> dict[str, Any]:
        """What `registry.frame_encoder_from_json` reads; weights are apart."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FrameEncoder:
        """The inverse of `to_json`, with fresh weights; encoders inside have been made already."""
        raise NotImplementedError

    def encode(self, recordings: Sequence[np.ndarray]) -> Frames:
        """Encode recordings (S,) float32 each."""
        return self(self.placed_inputs(recordings))

    def placed_inputs(self, recordings: Sequence[np.ndarray]) -> list[Inputs]:
        """Inputs of recordings, where the weights lie."""
        return [tuple(part.to(self.device) for part in self.inputs(samples)) for samples in recordings]

    @property
    def device(self) -> torch.device:
        """Where its weights lie; the processor where it has none."""
        return next((value.device for value in (*self.parameters(), *self.buffers())), torch.device("cpu"))

    # -- recordings that come piece by piece ----------------------------------------------------------------------

    @property
    def look_ahead(self) -> int | None:
        """Samples behind a frame's own that it waits for; None where that has no bound (see `stream`)."""
        return None

    def stream(self, layer: int | None = None) -> FrameStream:
        """The encoder at the beginning of a recording: frames of a hidden layer, or what an adapter reads where None.

        Raises:
            InputError: the encoder looks forward, so that frames are known at the end only.
        """
        raise InputError(
            f"the {self.name} encoder looks forward over the whole recording and cannot read it as it comes; "
            "fit one that looks back only: unitok fit-tokenizers … --causal"
        )

    # -- files --------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Identifies the content: configuration and weights."""
        weights = array_fingerprint(*(value.detach().cpu().float().numpy() for value in self.state_dict().values()))
        return fingerprint([self.to_json(), weights])

    def save(self, folder: Path) -> None:
        """Write `config.json`, whose `class` names the entry in the registry, and weights where it has any."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        if weights:
            save_file(weights, folder / "model.safetensors")
        write_json(folder / "config.json", self.to_json())
