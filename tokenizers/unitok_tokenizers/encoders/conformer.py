"""Encoders to train from scratch: convolutional subsampling to 25 Hz, then Transformer or Conformer layers.

B batch, F mel frames (100 Hz), T frames (25 Hz), M mel bins, D width, V labels of the CTC head, blank included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.filterbank import mel_inputs, padded
from unitok_tokenizers.encoders.networks.attention import ConformerLayer, TransformerLayer, inside
from unitok_tokenizers.encoders.networks.convolution import convolve
from unitok_tokenizers.encoders.networks.normalization import ALL, SPOKEN, normalize
from unitok_tokenizers.errors import InputError

STRIDE = 4
"""Mel frames per frame."""


@dataclass(frozen=True, kw_only=True)
class TrunkConfig:
    """Sizes of an encoder that is trained from scratch."""

    width: int = 192
    """D."""
    layers: int = 6
    """Transformer or Conformer layers."""
    heads: int = 4
    """Heads of their attention; the width must be a multiple of twice as many."""
    inner: int = 768
    """Width inside a feed-forward."""
    dropout: float = 0.1
    """Share of activations dropped in training."""
    labels: int = 0
    """Labels of the CTC head, blank included; 0 for none."""
    statistics: str = SPOKEN
    """What log-mels are normalized by; see `CtcNetworkConfig`."""

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "inner"):
            if getattr(self, name) < 1:
                raise InputError(f"encoder.{name} is {getattr(self, name)}: it must be 1 or more")
        if self.width % (2 * self.heads):
            raise InputError(f"encoder.width is {self.width}: it must be a multiple of twice the heads ({self.heads})")


class TrunkEncoder(FrameEncoder):
    """Log-mels, two strided convolutions, layers, and a CTC head where it has labels."""

    layer: ClassVar[type[nn.Module]]
    """Makes a layer: (width, heads, inner, dropout)."""

    def __init__(self, config: TrunkConfig, mel: MelConfig | None = None) -> None:
        super().__init__()
        self.config, self.mel = config, mel or MelConfig()
        self.sample_rate, self.frame_rate = self.mel.sample_rate, self.mel.frame_rate / STRIDE
        self.width, self.depth, self.labels = config.width, config.layers + 1, config.labels
        self.front = nn.Conv1d(self.mel.num_mels, config.width, 7, stride=2, padding=3)
        self.down = nn.Conv1d(config.width, config.width, 5, stride=2, padding=2)
        sizes = (config.width, config.heads, config.inner, config.dropout)
        self.stack = nn.ModuleList(self.layer(*sizes) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.labels) if config.labels else None

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels (F, M)."""
        return mel_inputs(samples, self.mel, STRIDE)

    def frames_of(self, samples: int) -> int:
        """One for every four hops."""
        return max(1, samples // self.mel.hop_length // STRIDE)

    def frames_in(self, inputs: Inputs) -> int:
        """One for every four log-mels."""
        return max(1, len(inputs[0]) // STRIDE)

    def _subsample(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, M) → (B, T, D), zero behind the ends, and the lengths (B,)."""
        lengths = torch.div(frames, STRIDE, rounding_mode="floor").clamp(min=1)
        normal = normalize(mels, frames, self.config.statistics).to(self.front.weight.dtype)
        x = functional.gelu(convolve(self.front, normal))
        x = functional.gelu(convolve(self.down, x * inside((frames + 1) // 2, x.shape[1])[..., None]))
        x = x[:, : max(1, mels.shape[1] // STRIDE)]  # room for the longest row, without asking the device
        return x * inside(lengths, x.shape[1])[..., None], lengths

    def hidden(self, mels: Tensor, frames: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, F, M), lengths (B,) → (B, T, D), where what enters the first layer is changed, such as masked."""
        x, lengths = self._subsample(mels, frames)
        x = x[:, : int(lengths.max())]
        return self.norm(self._layers(change(x), lengths)[-1])

    def _layers(self, x: Tensor, lengths: Tensor) -> list[Tensor]:
        mask = inside(lengths, x.shape[1])
        layers = [x]
        for layer in self.stack:
            layers.append(layer(layers[-1], mask))
        return layers

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        x, lengths = self._subsample(*padded(batch))
        layers = self._layers(x, lengths)
        hidden = self.norm(layers[-1])
        ctc = None if self.head is None else self.head(hidden).float().log_softmax(-1)
        return Frames(hidden, lengths, tuple(layers), ctc)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": asdict(self.config), "mel": asdict(self.mel)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrunkEncoder:
        """See `FrameEncoder.from_json`."""
        sizes = {"statistics": ALL, **value["config"]}  # what trunks of before took
        return cls(TrunkConfig(**sizes), MelConfig(**value["mel"]))


class TransformerEncoder(TrunkEncoder):
    """Self-attention and feed-forward (Dong et al. 2018, without its decoder)."""

    name, layer = "transformer", TransformerLayer


class ConformerEncoder(TrunkEncoder):
    """Feed-forward, self-attention, convolution, feed-forward (Gulati et al. 2020)."""

    name, layer = "conformer", ConformerLayer
