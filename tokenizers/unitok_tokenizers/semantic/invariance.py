"""What makes units less sensitive to how a recording sounds: a small network between an encoder's frames and centroids.

It begins as the identity, so that units begin as those of k-means; `unitok_training.fitting.units` trains it.

B batch, F frames, D width of the encoder's frames, H hidden width, K units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.encoders.networks.convolution import convolve
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json

CONFIG_FILE, WEIGHTS_FILE = "invariance.json", "invariance.safetensors"


@dataclass(frozen=True, kw_only=True)
class CorrectionConfig:
    """Sizes of the network."""

    width: int
    """D."""
    hidden: int = 256
    """H."""
    kernel: int = 5
    """Frames that each of the two convolutions sees; odd."""
    dropout: float = 0.2
    """Of the hidden channels, while it learns."""


class FrameCorrection(nn.Module):
    """Frames → frames that centroids lie nearer to: x + spread · what two convolutions make of (x - mean) ÷ spread."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: CorrectionConfig) -> None:
        super().__init__()
        assert config.kernel % 2, "a frame lies in the middle of what is seen"
        self.config = config
        self.register_buffer("mean", torch.zeros(config.width))
        self.register_buffer("spread", torch.ones(config.width))
        self.first = nn.Conv1d(config.width, config.hidden, config.kernel, padding=config.kernel // 2)
        self.second = nn.Conv1d(config.hidden, config.hidden, config.kernel, padding=config.kernel // 2)
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(config.hidden, config.width)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, D) of rows of `lengths` (B,) → (B, F, D); a row's end is as silent as its beginning."""
        mask = torch.arange(frames.shape[1], device=frames.device)[None, :, None] < lengths[:, None, None]
        inside = (frames - self.mean) / self.spread * mask
        hidden = self.dropout(functional.relu(convolve(self.first, inside))) * mask
        hidden = hidden + self.dropout(functional.relu(convolve(self.second, hidden)))
        moved: Tensor = self.last(hidden)
        return frames + self.spread * moved

    @torch.inference_mode()
    def corrected(self, rows: Sequence[Tensor]) -> list[Tensor]:
        """Frames (F, D) of each recording alone → the same; a row does not depend on those beside it."""
        return [self(row[None], torch.tensor([len(row)], device=row.device))[0] for row in rows]

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        weights = array_fingerprint(*(value.cpu().numpy() for _, value in sorted(self.state_dict().items())))
        return fingerprint(["invariance", asdict(self.config), weights])

    def save(self, folder: Path) -> None:
        """Write the files that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS_FILE)
        write_json(folder / CONFIG_FILE, asdict(self.config))

    @staticmethod
    def load(folder: Path) -> FrameCorrection:
        """Read what `save` wrote."""
        made = FrameCorrection(CorrectionConfig(**read_json(folder / CONFIG_FILE)))
        made.load_state_dict(read_tensors(folder / WEIGHTS_FILE))
        return made.eval()
