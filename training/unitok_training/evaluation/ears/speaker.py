"""Voice vectors of the GE2E speaker encoder (Wan et al. 2018) with the weights of Resemblyzer.

Three LSTM layers read windows of 1.6 s of mel power, 40 bins at 100 Hz; the last state through a linear layer and ReLU,
scaled to length 1, is the window's vector, and the mean over windows, scaled again, the recording's.

S samples, F frames, M mel bins, W windows, E = 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.audio.speech_activity import Trimming, spoken_parts
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact
from unitok_training.evaluation.ears.mel_power import MelPower

SAMPLE_RATE = 16000
WIDTH, LAYERS, MELS = 256, 3, 40
WINDOW = 160
"""Frames of a window."""
STEP = 77
"""Frames between windows: 1.3 a second."""
COVERAGE = 0.75
"""Share of the last window that must be there."""
LOUDNESS_DB = -30.0
"""Recordings below this level, full scale = 0, are raised to it."""
TRIMMING = Trimming(margin=0.06, pause=0.18)
"""Longer pauses are taken out, by level; Resemblyzer asks WebRTC's voice detector instead."""
OF_TRAINING = ("similarity_weight", "similarity_bias")
"""Weights of the loss, of no use here."""


class Ge2eSpeakerEncoder(nn.Module):
    """A `SpeakerEncoder`."""

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.mels = MelPower(sample_rate=SAMPLE_RATE, n_fft=400, hop_length=160, num_mels=MELS)

    @staticmethod
    def load(file: Path | str) -> Ge2eSpeakerEncoder:
        """Read Resemblyzer's `pretrained.pt`.

        Raises:
            InputError: the file is missing, damaged, or holds other weights.
        """
        if not Path(file).is_file():
            raise InputError(f"no speaker encoder {file}; it is in the package resemblyzer: make install-real")
        with intact(file, "install resemblyzer==0.1.4 again with --no-deps"):
            state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
            encoder = Ge2eSpeakerEncoder()
            encoder.load_state_dict({name: value for name, value in state.items() if name not in OF_TRAINING})
        return encoder.requires_grad_(False).eval()

    def forward(self, windows: Tensor) -> Tensor:
        """Mel power (W, F, M) → vectors (W, E) of length 1."""
        _, (hidden, _) = self.lstm(windows)
        return nn.functional.normalize(torch.relu(self.linear(hidden[-1])), dim=1)

    @torch.inference_mode()
    def embed(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """As `SpeakerEncoder.embed`."""
        vectors = np.zeros((len(recordings), WIDTH), dtype=np.float32)
        for index, spoken in enumerate(spoken_parts(recordings, SAMPLE_RATE, None, TRIMMING)):
            if len(spoken):
                mean = self(self.windows(at_level(spoken))).mean(0)
                vectors[index] = nn.functional.normalize(mean, dim=0).numpy()
        return vectors

    def windows(self, samples: np.ndarray) -> Tensor:
        """(S,) → mel power (W, WINDOW, M), silence behind the end of the last."""
        hop = self.mels.hop_length
        frames = -(-(len(samples) + 1) // hop)
        starts = list(range(0, max(1, frames - WINDOW + STEP + 1), STEP))
        if len(starts) > 1 and (len(samples) - starts[-1] * hop) < COVERAGE * WINDOW * hop:
            starts.pop()
        padded = np.pad(samples, (0, max(0, (starts[-1] + WINDOW) * hop - len(samples))))
        power = self.mels(torch.from_numpy(padded))
        return torch.stack([power[start : start + WINDOW] for start in starts])


def at_level(samples: np.ndarray) -> np.ndarray:
    """(S,) raised to LOUDNESS_DB where it is quieter."""
    level = 10.0 * np.log10(np.mean(samples.astype(np.float64) ** 2))
    return (samples * 10.0 ** (max(0.0, LOUDNESS_DB - level) / 20.0)).astype(np.float32)
