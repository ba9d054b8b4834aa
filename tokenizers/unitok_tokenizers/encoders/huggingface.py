"""HuBERT, wav2vec 2.0, WavLM and Whisper through transformers, from a local folder; nothing is downloaded.

B batch, S samples, T frames (50 Hz), D width, M mel bins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json

SPEECH_MODELS = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
"""model_type → prefix of transformers' classes."""
RATE = 16000
WINDOW = 30 * RATE
"""Whisper reads windows of 30 seconds, filled with silence."""


def pretrained_encoder(folder: Path | str) -> FrameEncoder:
    """The encoder in a local folder as `save_pretrained` writes it; InputError for another kind of model."""
    root = Path(folder)
    kind = read_json(root / "config.json").get("model_type")
    if kind == "whisper":
        return WhisperEncoder.from_folder(root)
    if kind in SPEECH_MODELS:
        return SpeechModelEncoder.from_folder(root)
    raise InputError(f"{root}: model_type {kind!r} is no speech encoder; known: {', '.join(SPEECH_MODELS)}, whisper")


def _class(kind: str, part: str) -> Any:
    import transformers

    return getattr(transformers, f"{SPEECH_MODELS[kind]}{part}")


class SpeechModelEncoder(FrameEncoder):
    """HuBERT, wav2vec 2.0 or WavLM on samples.

    Args:
        model: transformers' model.
        normalize: shift and scale the samples of a recording to mean 0 and variance 1, as its training did.
    """

    name = "speech_model"

    def __init__(self, model: Any, *, normalize: bool) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize
        config = model.config
        # Masks and dropped layers belong to pre-training; short recordings have no room for the masks.
        config.apply_spec_augment, config.layerdrop = False, 0.0
        self.sample_rate = RATE
        self.frame_rate = Fraction(RATE, int(np.prod(config.conv_stride)))
        self.width, self.depth = config.hidden_size, config.num_hidden_layers + 1
        self.shortest = 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1]):
            self.shortest = (self.shortest - 1) * stride + kernel

    @classmethod
    def from_folder(cls, folder: Path) -> SpeechModelEncoder:
        """Read local weights; a head on top of them is left out."""
        kind = read_json(folder / "config.json")["model_type"]
        model = _class(kind, "Model").from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        settings = folder / "preprocessor_config.json"
        normalize = read_json(settings).get("do_normalize", True) if settings.exists() else True
        return cls(model, normalize=bool(normalize))

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → (S,), normalized where the model wants it."""
        samples = np.pad(samples, (0, max(0, self.shortest - len(samples)))).astype(np.float32)
        if self.normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return (torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32)),)

    def frames_of(self, samples: int) -> int:
        """What the convolutions leave."""
        size = max(samples, self.shortest)
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            size = (size - kernel) // stride + 1
        return size

    def frames_in(self, inputs: Inputs) -> int:
        """What the convolutions leave."""
        return self.frames_of(len(inputs[0]))

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`. One recording at a time: group norm over padding would change the frames."""
        rows: list[tuple[Tensor, ...]] = []
        for (samples,) in batch:
            given = samples[None].to(self.model.dtype)
            rows.append(self.model(given, output_hidden_states=True).hidden_states)
        lengths = torch.tensor([row[0].shape[1] for row in rows], device=rows[0][0].device)
        layers = tuple(pad_sequence([row[i][0] for row in rows], batch_first=True) for i in range(self.depth))
        return Frames(layers[-1], lengths, layers)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": _plain(self.model.config), "normalise": self.normalize}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpeechModelEncoder:
        """See `FrameEncoder.from_json`."""
        kind = value["config"]["model_type"]
        return cls(_class(kind, "Model")(_class(kind, "Config")(**value["config"])), normalize=value["normalise"])


class WhisperEncoder(FrameEncoder):
    """Whisper's encoder; longer recordings are read window after window."""

    name = "whisper"

    def __init__(self, model: Any) -> None:
        super().__init__()
        from transformers import WhisperFeatureExtractor

        self.model = model
        model.config.layerdrop = model.config.encoder_layerdrop = 0.0
        self.extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)
        self.sample_rate, self.frame_rate = RATE, Fraction(50)
        self.width, self.depth = model.config.d_model, model.config.encoder_layers + 1

    @classmethod
    def from_folder(cls, folder: Path) -> WhisperEncoder:
        """Read local weights; the decoder is left out."""
        from transformers import WhisperModel

        return cls(WhisperModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).encoder)

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels of every window (W, M, 3000), and the number of frames ()."""
        windows = [samples[start : start + WINDOW] for start in range(0, max(len(samples), 1), WINDOW)]
        mels = self.extractor(windows, sampling_rate=RATE, return_tensors="pt").input_features
        return mels, torch.tensor(self.frames_of(len(samples)), device="cpu")

    def frames_of(self, samples: int) -> int:
        """One for every 20 ms, begun ones included."""
        return max(1, -(-samples // 320))

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        counts = [len(mels) for mels, _ in batch]
        mels = torch.cat([one for one, _ in batch]).to(self.model.dtype)
        states = self.model(mels, output_hidden_states=True).hidden_states
        lengths = torch.stack([frames for _, frames in batch]).to(states[0].device)
        layers = []
        for state in states:
            rows = [part.flatten(0, 1) for part in state.split(counts)]
            layers.append(pad_sequence(rows, batch_first=True)[:, : int(lengths.max())])
        return Frames(layers[-1], lengths, tuple(layers))

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": _plain(self.model.config)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> WhisperEncoder:
        """See `FrameEncoder.from_json`."""
        from transformers import WhisperConfig
        from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

        return cls(Network(WhisperConfig(**value["config"])))


def _plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON, without the version that wrote it and without settings of its own run."""
    return {key: value for key, value in config.to_diff_dict().items() if key not in ("transformers_version", "dtype")}
