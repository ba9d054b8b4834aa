"""What a vocoder is given, as frames of vectors: log-mels, codes, or units with pitch and a voice.

B batch, F frames of the network behind, T frames of tokens, M mel bins, Q codebooks, C width, E voice width, D channels
of a frame. A new one is a class here and a line in `generator.CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.encoders.networks.convolution import ConvBlock
from unitok_tokenizers.errors import InputError
from unitok_vocoder.unit_mel import SpeakerEncoder

MOST_SAMPLES = 256
"""Longest frame, in samples, that the network behind is given: longer ones become several."""
LONGEST = 25
"""Most frames of a unit that are predicted."""
MIDDLE_PITCH = 150.0
"""Hz that pitches are measured from, in octaves."""
SPOKEN_MELS = 80
"""Mel bins of the recordings that a voice is taken from."""


def stride_of(samples: int) -> int:
    """Into how many frames one of so many samples is split."""
    return next(one for one in range(1, samples + 1) if samples % one == 0 and samples // one <= MOST_SAMPLES)


def stretched(x: Tensor, stride: int) -> Tensor:
    """(B, T, stride · C) → (B, stride · T, C)."""
    return x.reshape(len(x), x.shape[1] * stride, -1)


class Condition(nn.Module):
    """Inputs of one kind → frames (B, F, D)."""

    stride: int
    """F ÷ frames of the inputs."""
    features: int
    """D."""
    made_by: str
    """Fingerprint of the tokenizer whose tokens it reads; empty for features that no tokenizer makes."""

    def forward(self, *given: Tensor) -> Tensor:
        """Frames (B, F, D)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class MelInput:
    """Log-mels."""

    num_mels: int
    """M."""


class MelCondition(Condition):
    """Log-mels (B, F, M), scaled."""

    Config = MelInput

    def __init__(self, config: MelInput) -> None:
        super().__init__()
        self.config, self.stride, self.features, self.made_by = config, 1, config.num_mels, ""

    def forward(self, *given: Tensor) -> Tensor:
        """Log-mels (B, F, M) → (B, F, M)."""
        (log_mels,) = given
        return (log_mels.float() + 5.0) / 2.5


@dataclass(frozen=True, kw_only=True)
class CodesInput:
    """Codes of one codec."""

    cardinalities: tuple[int, ...]
    """Codes of each codebook."""
    stride: int
    """Frames of the network behind per frame of codes."""
    made_by: str
    """Fingerprint of the codec."""
    width: int = 192
    """C."""


class CodesCondition(Condition):
    """The sum of an embedding per codebook, stretched; codebooks that are left out at the end count as absent."""

    Config = CodesInput

    def __init__(self, config: CodesInput) -> None:
        super().__init__()
        self.config, self.stride, self.features = config, config.stride, config.width
        self.made_by = config.made_by
        self.tables = nn.ModuleList(nn.Embedding(size, config.width) for size in config.cardinalities)
        self.mix = ConvBlock(config.width, 5, 2, 0.0)
        self.stretch = nn.Linear(config.width, config.stride * config.width)

    def forward(self, *given: Tensor) -> Tensor:
        """Codes (B, T, Q' ≤ Q) → (B, stride · T, C)."""
        (codes,) = given
        parts = [table(codes[..., place]) for place, table in enumerate(self.tables) if place < codes.shape[2]]
        x = torch.stack(parts).sum(0) / len(self.tables) ** 0.5
        x = self.mix(x, torch.ones(1, 1, 1, dtype=x.dtype, device=x.device))
        return stretched(self.stretch(x), self.stride)


@dataclass(frozen=True, kw_only=True)
class UnitsInput:
    """Units with their durations, pitch and a voice."""

    units: int
    """Cardinality."""
    stride: int
    """Frames of the network behind per frame of units."""
    made_by: str
    """Fingerprint of the unit tokenizer."""
    width: int = 192
    """C."""
    voice: int = 64
    """E."""


class UnitsCondition(Condition):
    """Units, pitch and a voice, added up; durations and pitch are predicted where they are not given."""

    Config = UnitsInput

    def __init__(self, config: UnitsInput) -> None:
        super().__init__()
        self.config, self.stride, self.features = config, config.stride, config.width
        self.made_by, width = config.made_by, config.width
        self.embedding = nn.Embedding(config.units, width)
        self.speaker = SpeakerEncoder(SPOKEN_MELS, 128, config.voice)
        self.to_voice = nn.Linear(config.voice, width)
        self.from_pitch = nn.Linear(2, width)
        self.duration = nn.ModuleList(ConvBlock(width, 5, 2, 0.1) for _ in range(2))
        self.duration_out = nn.Linear(width, 1)
        self.pitch = nn.ModuleList(ConvBlock(width, 5, 2, 0.1) for _ in range(2))
        self.pitch_out = nn.Linear(width, 2)
        self.mix = nn.ModuleList(ConvBlock(width, 5, 3, 0.0) for _ in range(2))
        self.stretch = nn.Linear(width, config.stride * width)

    def spoken(self, units: Tensor, voice: Tensor) -> Tensor:
        """Units (B, T), voice (B, E) → (B, T, C)."""
        said: Tensor = self.embedding(units)
        by: Tensor = self.to_voice(voice.to(self.to_voice.weight.dtype))
        return said + by[:, None]

    def log_durations(self, units: Tensor, voice: Tensor, mask: Tensor) -> Tensor:
        """Deduplicated units (B, N), voice (B, E), mask (B, N, 1) → log frames (B, N)."""
        x = self.spoken(units, voice)
        for block in self.duration:
            x = block(x, mask)
        logs: Tensor = self.duration_out(x)[..., 0]
        return logs.float()

    def pitch_of(self, frames: Tensor, voice: Tensor) -> tuple[Tensor, Tensor]:
        """Units (B, T), voice (B, E) → octaves from `MIDDLE_PITCH` (B, T), and above 0 for a pitch (B, T)."""
        x = self.spoken(frames, voice)
        for block in self.pitch:
            x = block(x, torch.ones(1, 1, 1, dtype=x.dtype, device=x.device))
        octaves, voiced = self.pitch_out(x).float().unbind(-1)
        return octaves, voiced

    def forward(self, *given: Tensor) -> Tensor:
        """Units (B, T), pitch (B, T) in Hz, 0 for none, and voice (B, E) → (B, stride · T, C)."""
        frames, pitch, voice = given
        heard = torch.stack([octaves(pitch), (pitch > 0).float()], dim=-1)
        x = self.spoken(frames, voice) + self.from_pitch(heard.to(self.from_pitch.weight.dtype))
        for block in self.mix:
            x = block(x, torch.ones(1, 1, 1, dtype=x.dtype, device=x.device))
        return stretched(self.stretch(x), self.stride)

    @torch.inference_mode()
    def inputs(
        self, units: np.ndarray, voice: Tensor, durations: np.ndarray | None = None, pitch: np.ndarray | None = None
    ) -> Sequence[Tensor]:
        """What `forward` takes for deduplicated units (N,) in a voice (E,), of a batch of one.

        Args:
            units: local unit ids.
            voice: on the network's device.
            durations: (N,) frames of each; predicted where None.
            pitch: (T,) Hz of each frame, 0 for none; predicted where None.

        Raises:
            InputError: durations of other units, or pitches of other frames.
        """
        table = torch.from_numpy(np.asarray(units, dtype=np.int64)).to(voice.device)[None]
        if durations is None:
            logs = self.log_durations(table, voice[None], torch.ones(1, table.shape[1], 1, device=voice.device))
            counts = logs[0].exp().round().clamp(1, LONGEST).long()
        else:
            counts = torch.from_numpy(np.asarray(durations, dtype=np.int64)).to(voice.device)
        if counts.shape != table[0].shape:
            raise InputError(f"{len(counts)} durations are given for {table.shape[1]} units; give one for each")
        frames = torch.repeat_interleave(table[0], counts)[None]
        if pitch is None:
            found, voiced = self.pitch_of(frames, voice[None])
            hertz = torch.where(voiced > 0, MIDDLE_PITCH * 2**found, torch.zeros_like(found))
        else:
            hertz = torch.from_numpy(np.asarray(pitch, dtype=np.float32)).to(voice.device)[None]
        if hertz.shape != frames.shape:
            raise InputError(f"{hertz.shape[1]} pitches are given for {frames.shape[1]} frames; give one for each")
        return frames, hertz, voice[None]


def octaves(pitch: Tensor) -> Tensor:
    """Hz → octaves from `MIDDLE_PITCH`, 0 where there is no pitch."""
    return torch.where(pitch > 0, (pitch.clamp(min=1.0) / MIDDLE_PITCH).log2(), torch.zeros_like(pitch))
