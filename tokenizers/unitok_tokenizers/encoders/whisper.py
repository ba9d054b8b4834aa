"""Whisper's encoder through transformers, from a local folder of Hugging Face or CTranslate2; nothing is downloaded.

B batch, W windows, S samples, T frames (50 Hz), D width, M mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.folders.stock import input_of, plain_config
from unitok_tokenizers.encoders.folders.whisper import load_whisper_encoder

RATE, WINDOW = 16000, 30 * 16000
"""Hz; and the samples that the encoder reads at once: longer recordings are read window after window."""
STRIDE = 2
"""Mel frames of a frame."""


class WhisperEncoder(FrameEncoder):
    """Frames of Whisper's encoder.

    Args:
        model: transformers' `WhisperEncoder`.
        padded: fill every window up to thirty seconds with silence, as Whisper was trained; else only what was said is
            read, several times as fast, and frames are a little others.
    """

    name = "whisper"
    parts = 2

    def __init__(self, model: Any, *, padded: bool = True) -> None:
        super().__init__()
        from transformers import WhisperFeatureExtractor

        self.model, self.padded = model, padded
        model.config.layerdrop = model.config.encoder_layerdrop = 0.0
        self.extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        self.sample_rate, self.frame_rate = RATE, Fraction(50)
        self.width, self.depth = model.config.d_model, model.config.encoder_layers + 1

    @classmethod
    def from_folder(cls, folder: Path, *, padded: bool = True) -> WhisperEncoder:
        """Read local weights; the decoder is left out."""
        return cls(load_whisper_encoder(folder), padded=padded)

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels of every window (W, M, 3000), or (M, F) without padding; and the number of frames ()."""
        windows = [samples[start : start + WINDOW] for start in range(0, max(len(samples), 1), WINDOW)]
        mels = self.extractor(windows, sampling_rate=RATE, return_tensors="pt").input_features
        frames = self.frames_of(len(samples))
        if not self.padded:
            mels = mels.transpose(0, 1).flatten(1)[:, : STRIDE * frames].contiguous()  # (W, M, 3000) -> (M, F)
        return mels, torch.tensor(frames, device="cpu")

    def frames_of(self, samples: int) -> int:
        """One for every 20 ms, begun ones included."""
        return max(1, -(-samples // 320))

    def read_samples(self, samples: int) -> int:
        """Whole windows of 30 s, but for what is read alone."""
        return max(1, -(-samples // WINDOW)) * WINDOW if self.padded else samples

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        if self.padded:
            states = self.model(self._windows(batch), output_hidden_states=True).hidden_states
        else:
            states = self._said(batch, self.depth - 1)
        lengths, layers = self._joined(batch, states)
        return Frames(layers[-1], lengths, layers)

    def hidden_at(self, batch: Sequence[Inputs], layer: int | None = None) -> tuple[Tensor, Tensor]:
        """See `FrameEncoder.hidden_at`; blocks behind the layer are not run."""
        last = self.depth - 1
        layer = last if layer is None else layer
        if not self.padded:
            states = self._said(batch, layer)[-1:]
        elif layer == last:
            states = (self.model(self._windows(batch)).last_hidden_state,)
        else:
            with input_of(self.model.layers[layer]) as found:
                self.model(self._windows(batch))
            states = tuple(found)
        lengths, layers = self._joined(batch, states)
        return layers[0], lengths

    # -- whole windows ------------------------------------------------------------------------------------------

    def _windows(self, batch: Sequence[Inputs]) -> Tensor:
        """(all W, M, 3000) of a batch."""
        return torch.cat([mels for mels, _ in batch]).to(self.model.dtype)

    def _rows(self, batch: Sequence[Inputs]) -> list[int]:
        """W of each recording."""
        if self.padded:
            return [len(mels) for mels, _ in batch]
        return [-(-mels.shape[1] // self._reach) for mels, _ in batch]

    @property
    def _reach(self) -> int:
        """Mel frames of a whole window."""
        return STRIDE * int(self.model.config.max_source_positions)

    def _joined(self, batch: Sequence[Inputs], states: Sequence[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(frames of each recording (B,), states (B, T, D)) of the states of windows (all W, T, D)."""
        lengths = torch.stack([frames for _, frames in batch]).to(states[0].device)
        counts, longest, layers = self._rows(batch), int(lengths.max()), []
        for state in states:
            rows = [part.flatten(0, 1) for part in state.split(counts)]
            layers.append(pad_sequence(rows, batch_first=True)[:, :longest])
        return lengths, tuple(layers)

    # -- what was said alone ------------------------------------------------------------------------------------

    def _said(self, batch: Sequence[Inputs], layer: int) -> tuple[Tensor, ...]:
        """Hidden states (all W, T, D) up to a layer, of windows that end where their recording does."""
        model = self.model
        windows = [part for mels, _ in batch for part in mels.split(self._reach, dim=1)]
        sizes = [part.shape[1] // STRIDE for part in windows]
        mels = pad_sequence([part.T for part in windows], batch_first=True).transpose(1, 2).to(model.dtype)
        state = functional.gelu(model.conv2(functional.gelu(model.conv1(mels)))).transpose(
            1, 2
        )  # (W, D, T) -> (W, T, D)
        state = state + model.embed_positions.weight[: state.shape[1]]
        state = functional.dropout(state, p=model.dropout, training=model.training)
        mask = None
        if min(sizes) != max(sizes):
            places = torch.arange(state.shape[1], device=state.device)
            said = places < torch.tensor(sizes, device=state.device)[:, None]
            mask = torch.zeros(said.shape, dtype=state.dtype, device=state.device)
            mask = mask.masked_fill(~said, torch.finfo(state.dtype).min)[:, None, None]  # (W, 1, 1, T)
        states = [state]
        for block in model.layers[:layer]:
            state = block(state, mask)
            states.append(state)
        if layer == self.depth - 1:
            states[-1] = model.layer_norm(state)
        return tuple(states)

    # -- files --------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        value = {"class": self.name, "config": plain_config(self.model.config)}
        return value if self.padded else {**value, "padded": False}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WhisperEncoder:
        """See `FrameEncoder.from_json`."""
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

        return cls(Network(WhisperConfig(**value["config"])), padded=value.get("padded", True))
