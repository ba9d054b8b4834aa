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


class RowFeatures(nn.Module):
    """The convolutions of a model, of each recording alone: nothing behind its end counts, in norms over time either.

    On a processor that is quicker than in batches, too: what one recording takes stays near, and nothing is padded.
    Under the names of the model's own.

    Args:
        own: the model's convolutions.
        over_time: whether they normalize over time; elsewhere than on a processor only those run alone.
    """

    sizes: list[int] | None = None
    """S of each row of the next batch; None where all are as long."""

    def __init__(self, own: nn.Module, *, over_time: bool) -> None:
        super().__init__()
        self.over_time = over_time
        layers = own.conv_layers
        assert isinstance(layers, nn.ModuleList)
        self.conv_layers = layers

    def forward(self, input_values: Tensor) -> Tensor:
        """Samples (B, S) → (B, C, T); zeros behind a row's end."""
        if input_values.device.type != "cpu" and (self.sizes is None or not self.over_time):
            return self._features(input_values)
        sizes = self.sizes or [input_values.shape[1]] * len(input_values)
        rows = [self._features(row[None, :size]) for row, size in zip(input_values, sizes)]
        longest = max(row.shape[2] for row in rows)
        return torch.cat([functional.pad(row, (0, longest - row.shape[2])) for row in rows])

    def _features(self, samples: Tensor) -> Tensor:
        found = samples[:, None]  # (B, 1, S)
        for layer in self.conv_layers:
            found = layer(found)
        return found


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
        model.feature_extractor = RowFeatures(model.feature_extractor, over_time=config.feat_extract_norm == "group")
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
        self.model.feature_extractor.sizes = None if even else sizes
        mask = None if even else torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
        return pad_sequence(rows, batch_first=True).to(self.model.dtype), mask, lengths

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {"class": self.name, "config": plain_config(self.model.config), "normalise": self.normalize}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SpeechModelEncoder:
        """See `FrameEncoder.from_json`."""
        kind = value["config"]["model_type"]
        return cls(_class(kind, "Model")(_class(kind, "Config")(**value["config"])), normalize=value["normalise"])
