"""Acoustic tokenizers behind one interface: samples ↔ codes (F, Q).

S samples, F frames, Q codebooks, M mel bins.
A new codec is one file and one line in `acoustic.registry.CODECS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch

from unitok_tokenizers.files import write_json
from unitok_tokenizers.grammar.streams import StreamInfo


class AcousticTokenizer(Protocol):
    """What codes are made by, and turned back by."""

    name: str
    sample_rate: int
    frame_rate: Fraction
    cardinalities: tuple[int, ...]

    @property
    def fingerprint(self) -> str:
        """Identifies the codec's content."""

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → codes (F, Q) int64 each."""

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) float32 → codes (F, Q) int64."""

    def decode(self, codes: np.ndarray) -> np.ndarray | None:
        """Codes (F, Q) → samples (S,), or None where a vocoder is needed (see `decode_features`)."""

    def decode_features(self, codes: np.ndarray) -> np.ndarray | None:
        """Codes (F, Q) → log-mels (F', M) for a vocoder, or None where `decode` gives samples."""

    def to(self, device: torch.device | str) -> AcousticTokenizer:
        """Move what it computes with; returns itself."""

    def info(self) -> StreamInfo:
        """The stream of codes."""

    def save(self, folder: Path) -> None:
        """Write `config.json`, whose `class` names the entry in `acoustic.registry.CODECS`, and weights."""


class NetworkCodec:
    """What codecs that are one network, and give samples, have in common."""

    name: str
    model: Any
    """The network."""

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        where: torch.device = next(self.model.parameters()).device
        return where

    def to(self, device: torch.device | str) -> Self:
        """Move the network; returns itself."""
        self.model.to(device)
        return self

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) → codes (F, Q)."""
        raise NotImplementedError

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes of each; one at a time, because padding would change a recording's last frames."""
        return [self.encode(samples) for samples in recordings]

    def decode_features(self, codes: np.ndarray) -> None:
        """No features: `decode` gives samples."""
        return None

    def save_network(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Write weights and `config.json`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.cpu().contiguous().clone() for name, value in self.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        write_json(folder / "config.json", config)


def codes_info(codec: AcousticTokenizer) -> StreamInfo:
    """The stream description that every codec gives of itself."""
    return StreamInfo(codec.name, "codes", codec.fingerprint, codec.frame_rate, codec.cardinalities)
