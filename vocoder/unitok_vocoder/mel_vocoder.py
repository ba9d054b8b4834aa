"""The spectral vocoder: log-mels → ConvNeXt backbone → magnitude and phase → inverse STFT (Siuzdak 2023, Vocos).

B batch, F frames, M mel bins, C width, N FFT bins, S samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.networks.convolution import ConvBlock, convolve
from unitok_tokenizers.files import read_json, read_tensors, write_json
from unitok_tokenizers.float32_buffers import Float32Buffers


@dataclass(frozen=True, kw_only=True)
class MelVocoderConfig:
    """Sizes of the vocoder."""

    width: int = 192
    """Channels of the backbone."""
    blocks: int = 6
    """Blocks of the backbone."""
    n_fft: int = 640
    """FFT size of the synthesis in samples; the hop is the mel configuration's."""


class IstftHead(Float32Buffers):
    """Hidden states → complex spectrum → samples."""

    def __init__(self, width: int, n_fft: int, hop: int) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.out = nn.Linear(width, n_fft + 2)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        self.window: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, C) → (B, F · hop)."""
        # Of a module in half precision the last map is computed in float32: a phase is rounded by what it has turned.
        made = functional.linear(x.float(), self.out.weight.float(), self.out.bias.float())
        log_magnitude, phase = made.float().transpose(1, 2).chunk(2, dim=1)  # (B, N, F)
        spectrum = torch.polar(log_magnitude.clamp(max=6.0).exp(), phase)
        # One repeated frame behind the end, so that the last hop is covered by two windows like every other.
        spectrum = torch.cat([spectrum, spectrum[:, :, -1:]], dim=2)
        length = (spectrum.shape[2] - 1) * self.hop
        return torch.istft(spectrum, self.n_fft, self.hop, self.n_fft, self.window, length=length)


class MelVocoder(nn.Module):
    """Log-mels (B, F, M) → samples (B, F · hop_length)."""

    def __init__(self, config: MelVocoderConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        self.front = nn.Conv1d(mel.num_mels, config.width, 7, padding=3)
        self.norm_in = nn.LayerNorm(config.width)
        self.blocks = nn.ModuleList(ConvBlock(config.width, 7, 3, 0.0) for _ in range(config.blocks))
        self.norm_out = nn.LayerNorm(config.width)
        self.head = IstftHead(config.width, config.n_fft, mel.hop_length)

    def forward(self, log_mels: Tensor) -> Tensor:
        """Log-mels (B, F, M) → samples (B, F · hop_length)."""
        scaled = ((log_mels.float() + 5.0) / 2.5).to(self.front.weight.dtype)
        x = self.norm_in(convolve(self.front, scaled))  # (B, F, C)
        mask = torch.ones(1, 1, 1, dtype=x.dtype, device=x.device)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm_out(x))

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.cpu() for name, value in self.state_dict().items()}, folder / "model.safetensors")
        write_json(folder / "config.json", {"config": asdict(self.config), "mel": asdict(self.mel)})

    @staticmethod
    def load(folder: Path) -> MelVocoder:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        vocoder = MelVocoder(MelVocoderConfig(**config["config"]), MelConfig(**config["mel"]))
        vocoder.load_state_dict(read_tensors(folder / "model.safetensors"))
        return vocoder.eval()
