"""HuBERT, wav2vec 2.0 and WavLM through transformers, from a local folder; nothing is downloaded.

B batch, S samples, C channels, F positions of a convolution, T frames (50 Hz), D width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from unitok_tokenizers.encoders.base import FrameEncoder, Frames, Inputs
from unitok_tokenizers.encoders.folders.stock import input_of, plain_config, pretrained
from unitok_tokenizers.files import read_json

SPEECH_MODELS = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
"""model_type → prefix of transformers' classes."""
RATE = 16000


@contextmanager
def _no_word_of_masks() -> Iterator[None]:
    """WavLM gives torch masks of two types where rows are of unequal length, and torch says so in every block."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask", UserWarning)
        yield


def _class(kind: str, part: str) -> Any:
    import transformers

    return getattr(transformers, f"{SPEECH_MODELS[kind]}{part}")


class RowNorm(nn.GroupNorm):
    """Normalization over the time of each row alone, (B, C, F): padding behind a row's end does not count."""

    sizes: list[int] | None = None
    """F of each row of the next batch; None where all are as long."""

    @staticmethod
    def put_into(model: Any) -> None:
        """Put one in the place of a model's own, with its weights under their names."""
        first = model.feature_extractor.conv_layers[0]
        own, new = first.layer_norm, RowNorm(first.layer_norm.num_groups, first.layer_norm.num_channels)
        new.eps, new.weight, new.bias = own.eps, own.weight, own.bias
        first.layer_norm = new

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, F) → the same; zeros behind a row's end."""
        if self.sizes is None:
            return super().forward(input)
        rows = [super(RowNorm, self).forward(row[None, :, :size]) for row, size in zip(input, self.sizes)]
        return torch.cat([functional.pad(row, (0, input.shape[2] - row.shape[2])) for row in rows])


class SpeechModelEncoder(FrameEncoder):
    """HuBERT, wav2vec 2.0 or WavLM on samples.

    Args:
        model: transformers' model.
        normalize: shift and scale the samples of a recording to mean 0 and variance 1, as its training did.
    """

    name = "speech_model"
    batch_seconds = 60

    def __init__(self, model: Any, *, normalize: bool) -> None:
        super().__init__()
        self.model, self.normalize = model, normalize
        config = model.config
        # Masks and dropped layers belong to pre-training; short recordings have no room for the masks.
        config.apply_spec_augment, config.layerdrop = False, 0.0
        self.sample_rate = RATE
        self.frame_rate = Fraction(RATE, int(np.prod(config.conv_stride)))
        self.width, self.depth = config.hidden_size, config.num_hidden_layers + 1
        if config.feat_extract_norm == "group":
            RowNorm.put_into(model)
        self.shortest = 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1]):
            self.shortest = (self.shortest - 1) * stride + kernel

    @classmethod
    def from_folder(cls, folder: Path) -> SpeechModelEncoder:
        """Read local weights; a head on top of them is left out."""
        kind = read_json(folder / "config.json")["model_type"]
        model = pretrained(_class(kind, "Model"), folder)
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
        """See `FrameEncoder.forward`."""
        samples, mask, lengths = self._padded(batch)
        with _no_word_of_masks():
            layers = tuple(self.model(samples, attention_mask=mask, output_hidden_states=True).hidden_states)
        return Frames(layers[-1], lengths, layers)

    def hidden_at(self, batch: Sequence[Inputs], layer: int | None = None) -> tuple[Tensor, Tensor]:
        """See `FrameEncoder.hidden_at`; blocks behind the layer are not run."""
        blocks = self.model.encoder.layers
        if layer is None or layer == len(blocks):
            frames = self(batch)
            return frames.layers[-1], frames.lengths
        samples, mask, lengths = self._padded(batch)
        with _no_word_of_masks(), input_of(blocks[layer]) as found:
            self.model(samples, attention_mask=mask)
        return found[0], lengths

    def _padded(self, batch: Sequence[Inputs]) -> tuple[Tensor, Tensor | None, Tensor]:
        """(samples (B, S), which of them are there (B, S), frames of each row (B,)); no mask where all are."""
        rows = [samples for (samples,) in batch]
        sizes = [len(row) for row in rows]
        device = rows[0].device
        lengths = torch.tensor([self.frames_of(size) for size in sizes], device=device)
        even = min(sizes) == max(sizes)
        norm = getattr(self.model.feature_extractor.conv_layers[0], "layer_norm", None)
        if isinstance(norm, RowNorm):
            norm.sizes = None if even else [self._first_positions(size) for size in sizes]
        mask = None if even else torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
        return pad_sequence(rows, batch_first=True).to(self.model.dtype), mask, lengths

    def _first_positions(self, samples: int) -> int:
        """F of the first convolution."""
        config = self.model.config
        return int((samples - config.conv_kernel[0]) // config.conv_stride[0] + 1)

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": plain_config(self.model.config), "normalise": self.normalize}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpeechModelEncoder:
        """See `FrameEncoder.from_json`."""
        kind = value["config"]["model_type"]
        return cls(_class(kind, "Model")(_class(kind, "Config")(**value["config"])), normalize=value["normalise"])
