"""The unit synthesizer: deduplicated units and a voice → predicted durations → log-mels.

B batch, N units, T frames at the units' rate, F mel frames, M mel bins, C width, E voice width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.networks.convolution import ConvBlock, convolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, read_tensors, write_json


@dataclass(frozen=True, kw_only=True)
class UnitMelConfig:
    """Sizes of the unit synthesizer."""

    units: int
    """Cardinality of the units."""
    stride: int = 4
    """Mel frames per unit frame."""
    width: int = 192
    """Channels."""
    blocks: int = 5
    """Blocks of the decoder."""
    voice: int = 64
    """E."""


class SpeakerEncoder(nn.Module):
    """Log-mels of a recording → one voice vector: convolutions, then mean and deviation over time."""

    def __init__(self, num_mels: int, width: int, voice: int) -> None:
        super().__init__()
        self.front = nn.Conv1d(num_mels, width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(ConvBlock(width, 5, 2, 0.0) for _ in range(2))
        self.out = nn.Linear(2 * width, voice)

    def forward(self, log_mels: Tensor) -> Tensor:
        """(B, F, M) → (B, E)."""
        scaled = ((log_mels.float() + 5.0) / 2.5).to(self.front.weight.dtype)
        x = functional.gelu(convolve(self.front, scaled))
        mask = torch.ones(1, 1, 1, dtype=x.dtype, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        wide = x.float()
        found = torch.cat([wide.mean(1), (wide.var(1, correction=0) + 1e-6).sqrt()], dim=-1)
        return self.out(found.to(self.out.weight.dtype))


class UnitMel(nn.Module):
    """Units and a voice to log-mels, with the speaker encoder that was trained with it."""

    def __init__(self, config: UnitMelConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        width = config.width
        self.embedding = nn.Embedding(config.units, width)
        self.speaker = SpeakerEncoder(mel.num_mels, 128, config.voice)
        self.to_voice = nn.Linear(config.voice, width)
        self.duration = nn.ModuleList(ConvBlock(width, 5, 2, 0.1) for _ in range(2))
        self.duration_out = nn.Linear(width, 1)
        self.encoder = nn.ModuleList(ConvBlock(width, 5, 3, 0.0) for _ in range(2))
        self.upsample = nn.Linear(width, config.stride * width)
        self.decoder = nn.ModuleList(ConvBlock(width, 9, 3, 0.0) for _ in range(config.blocks))
        self.out = nn.Linear(width, mel.num_mels)

    def log_durations(self, units: Tensor, voice: Tensor, mask: Tensor) -> Tensor:
        """Deduplicated units (B, N), voice (B, E), mask (B, N, 1) → log frames (B, N)."""
        x = self.embedding(units) + self.to_voice(voice.to(self.to_voice.weight.dtype))[:, None]
        for block in self.duration:
            x = block(x, mask)
        return self.duration_out(x)[..., 0].float()

    def mels(self, frames: Tensor, voice: Tensor, mask: Tensor) -> Tensor:
        """Units repeated for their durations (B, T) → log-mels (B, stride · T, M)."""
        x = self.embedding(frames) + self.to_voice(voice.to(self.to_voice.weight.dtype))[:, None]
        for block in self.encoder:
            x = block(x, mask)
        x = self.upsample(x).unflatten(2, (self.config.stride, -1)).flatten(1, 2)  # (B, stride · T, C)
        long_mask = mask.repeat_interleave(self.config.stride, 1)
        for block in self.decoder:
            x = block(x, long_mask)
        return self.out(x).float() * 2.5 - 5.0

    def durations(self, units: Tensor, voice: Tensor) -> Tensor:
        """Deduplicated units (1, N), voice (E,) → frames (N,) of each, at least one."""
        logs = self.log_durations(units, voice[None], torch.ones(1, units.shape[1], 1, device=units.device))[0]
        return logs.exp().round().clamp(1, 25).long()

    @torch.inference_mode()
    def synthesize(self, units: np.ndarray, voice: Tensor, durations: np.ndarray | None = None) -> Tensor:
        """Deduplicated units (N,), voice (E,), optional durations (N,) in frames → log-mels (F, M)."""
        table = torch.from_numpy(np.asarray(units, dtype=np.int64)).to(voice.device)[None]
        if durations is None:
            counts = self.durations(table, voice)
        else:
            counts = torch.from_numpy(np.asarray(durations, dtype=np.int64)).to(voice.device)
            if counts.shape != table[0].shape:
                raise InputError(f"{len(counts)} durations are given for {table.shape[1]} units; give one for each")
        frames = torch.repeat_interleave(table[0], counts)[None]
        return self.mels(frames, voice[None], torch.ones(1, frames.shape[1], 1, device=frames.device))[0]

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.cpu() for name, value in self.state_dict().items()}, folder / "model.safetensors")
        write_json(folder / "config.json", {"config": asdict(self.config), "mel": asdict(self.mel)})

    @staticmethod
    def load(folder: Path) -> UnitMel:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        model = UnitMel(UnitMelConfig(**config["config"]), MelConfig(**config["mel"]))
        model.load_state_dict(read_tensors(folder / "model.safetensors"))
        return model.eval()
