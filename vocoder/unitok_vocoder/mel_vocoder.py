"""The spectral vocoder that the demo trains: Vocos from log-mels.

B batch, F frames, M mel bins, S samples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.files import read_json, read_tensors, write_json
from unitok_vocoder.vocos import Vocos, VocosConfig


@dataclass(frozen=True, kw_only=True)
class MelVocoderConfig:
    """Sizes of the vocoder."""

    width: int = 192
    """Channels of the backbone."""
    blocks: int = 6
    """Blocks of the backbone."""
    n_fft: int = 640
    """FFT size of the synthesis in samples; the hop is the mel configuration's."""


class MelVocoder(Vocos):
    """Log-mels (B, F, M) → samples (B, F · hop_length)."""

    def __init__(self, config: MelVocoderConfig, mel: MelConfig) -> None:
        super().__init__(VocosConfig(**asdict(config)), mel.num_mels, mel.hop_length)
        self.config, self.mel = config, mel

    def forward(self, log_mels: Tensor) -> Tensor:
        """Log-mels (B, F, M) → samples (B, F · hop_length)."""
        return super().forward((log_mels.float() + 5.0) / 2.5)

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
