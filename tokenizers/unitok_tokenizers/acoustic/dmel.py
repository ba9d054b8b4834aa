"""dMel: every channel of a log-mel spectrogram on a scale of 16 steps, and nothing to be trained (Bai et al. 2024).

S samples, F frames, Q codebooks, M mel bins: Q = M, a codebook a channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from unitok_tokenizers.acoustic.base import codes_info
from unitok_tokenizers.audio.features import LOG_FLOOR, MelConfig, log_mel
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, write_json
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.progress import advance_aside

MOST_CHANNELS = 128
"""Channels beyond this have filters that lie between two frequencies of the spectrum, and are always empty."""


@dataclass(frozen=True, kw_only=True)
class DmelConfig:
    """The scale."""

    bins: int = 16
    """Steps of equal width."""
    low: float = math.log(LOG_FLOOR)
    """Lower edge of the lowest step, a log-mel: the floor of the features."""
    high: float = 4.5
    """Upper edge of the highest; louder values belong to it. Full-scale tones reach 4.9, and of 80
    recordings of real speech the loudest frame of all 4.1."""
    mel: MelConfig = field(default_factory=MelConfig)
    """Features."""


class DmelCodec:
    """Log-mels as codes. `decode` gives no samples: a vocoder turns the log-mels into a waveform."""

    name = "codes"

    def __init__(self, config: DmelConfig | None = None) -> None:
        self.config = config or DmelConfig()
        mel = self.config.mel
        self.sample_rate = mel.sample_rate
        self.frame_rate: Fraction = mel.frame_rate
        self.cardinalities = (self.config.bins,) * mel.num_mels
        self.device = torch.device("cpu")

    @staticmethod
    def open(path: Path | None = None, choice: str = "") -> DmelCodec:
        """It needs no folder; `choice` is the number of channels, 80 where none is named."""
        if path is not None:
            raise InputError(f"dmel has no weights, and {path} is named: write dmel, or dmel@CHANNELS")
        if not choice:
            return DmelCodec()
        if not choice.isascii() or not choice.isdigit() or not 1 <= int(choice) <= MOST_CHANNELS:
            raise InputError(f"dmel@{choice}: choose 1 to {MOST_CHANNELS} channels")
        return DmelCodec(DmelConfig(mel=replace(MelConfig(), num_mels=int(choice))))

    @property
    def mel(self) -> MelConfig:
        """The features that its codes stand for."""
        return self.config.mel

    @property
    def width(self) -> float:
        """Of a step."""
        return (self.config.high - self.config.low) / self.config.bins

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["dmel", asdict(self.config)])

    def to(self, device: torch.device | str) -> DmelCodec:
        """Compute features there; returns itself."""
        self.device = torch.device(device)
        return self

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """(S,) → codes (F, Q)."""
        if len(samples) < self.config.mel.hop_length:
            return np.zeros((0, len(self.cardinalities)), dtype=np.int64)
        heard = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)).to(self.device)
        steps = (log_mel(heard, self.config.mel) - self.config.low) / self.width
        return steps.floor().clamp(0, self.config.bins - 1).long().cpu().numpy()

    def encode_batch(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes of each."""
        out = []
        for done, samples in enumerate(recordings, 1):
            out.append(self.encode(samples))
            advance_aside("recording", done, len(recordings))
        return out

    def decode(self, codes: np.ndarray) -> None:
        """No samples: see `decode_features`."""
        return None

    def decode_features(self, codes: np.ndarray) -> np.ndarray:
        """Codes (F, Q) → log-mels (F, M), the middle of each step; the lowest is the floor: silence stays silent."""
        table = np.asarray(codes)
        middle = self.config.low + (table + 0.5) * self.width
        return np.where(table == 0, self.config.low, middle).astype(np.float32)

    def info(self) -> StreamInfo:
        """The stream that it makes."""
        return codes_info(self)

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", {"class": "dmel", "name": self.name, "config": asdict(self.config)})

    @staticmethod
    def load(folder: Path) -> DmelCodec:
        """Read what `save` wrote."""
        value = dict(read_json(folder / "config.json")["config"])
        return DmelCodec(DmelConfig(**{**value, "mel": MelConfig(**value["mel"])}))
