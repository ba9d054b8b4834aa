"""Speech encoders behind one interface: samples → frames (F, D) at a fixed rate.

S samples, F frames, D width.
A new encoder is one file and one line in `ENCODERS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from unitok_tokenizers.audio.features import MelConfig, deltas, log_mel, mfcc
from unitok_tokenizers.audio.speech_activity import leveled
from unitok_tokenizers.encoders.ctc_network import (
    EMISSIONS,
    PADDING,
    SPOKEN,
    STRIDE,
    CtcNetwork,
    greedy_text,
    network_config,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json
from unitok_tokenizers.progress import advance_aside

ENCODERS = {
    "mfcc": "unitok_tokenizers.encoders.frozen:MfccEncoder",
    "ctc": "unitok_tokenizers.encoders.frozen:CtcEncoder",
}
"""Name in `config.json` → `module:class`."""

BATCH_SECONDS = 120


class SpeechEncoder(Protocol):
    """What units are clustered from."""

    sample_rate: int
    frame_rate: Fraction
    width: int

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder's content."""

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → (F, D) float32 each, F = max(1, S · frame_rate // sample_rate)."""

    def to(self, device: torch.device | str) -> SpeechEncoder:
        """Move what it computes with; returns itself."""

    def save(self, folder: Path) -> None:
        """Write `config.json`, whose `class` names the entry in `ENCODERS`, and weights."""


def load_encoder(folder: Path) -> SpeechEncoder:
    """Read any registered encoder."""
    name = read_json(folder / "config.json")["class"]
    if name not in ENCODERS:
        raise InputError(f"{folder}: unknown encoder {name!r}; known: {', '.join(ENCODERS)}")
    module, _, attribute = ENCODERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute).load(folder)


class MfccEncoder:
    """MFCC with slopes in a window of neighboring frames, at 50 Hz, normalized per recording."""

    CONTEXT = 2

    def __init__(self, mel: MelConfig | None = None) -> None:
        self.mel = mel or MelConfig(hop_length=320)
        self.sample_rate = self.mel.sample_rate
        self.frame_rate = self.mel.frame_rate
        self.width = 39 * (2 * self.CONTEXT + 1)

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint({"class": "mfcc", **asdict(self.mel)})

    def to(self, device: torch.device | str) -> MfccEncoder:
        """Nothing to move: features are computed where recordings are read, on the processor."""
        return self

    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → (F, D) float32 each."""
        return [self._encode_one(samples) for samples in recordings]

    def _encode_one(self, samples: np.ndarray) -> np.ndarray:
        padded = np.pad(samples, (0, max(0, self.mel.hop_length - len(samples))))
        cepstra = mfcc(log_mel(torch.from_numpy(padded), self.mel))
        slope = deltas(cepstra)
        features = torch.cat([cepstra, slope, deltas(slope)], dim=1)  # (F, 39)
        features = (features - features.mean(0)) / (features.std(0, correction=0) + 1e-3)
        edges = [features[:1].expand(self.CONTEXT, -1), features, features[-1:].expand(self.CONTEXT, -1)]
        windows = torch.cat(edges).unfold(0, 2 * self.CONTEXT + 1, 1)  # (F, 39, W)
        return windows.reshape(len(features), -1).numpy()

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        write_json(folder / "config.json", {"class": "mfcc", "mel": asdict(self.mel)})

    @staticmethod
    def load(folder: Path) -> MfccEncoder:
        """Read what `save` wrote."""
        return MfccEncoder(MelConfig(**read_json(folder / "config.json")["mel"]))


class CtcEncoder:
    """A middle layer of a network that was trained with CTC on characters, at 25 Hz.

    Supervised units keep the words and shed the speaker; the last layers are peaky (mostly blank), hence `layer`.
    """

    def __init__(self, network: CtcNetwork, mel: MelConfig, layer: int) -> None:
        self.network = network.eval()
        self.mel = mel
        self.layer = layer
        self.sample_rate = mel.sample_rate
        self.frame_rate = mel.frame_rate / STRIDE
        self.width = network.config.width

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        weights = array_fingerprint(*(value.cpu().numpy() for value in self.network.state_dict().values()))
        return fingerprint({"class": "ctc", "layer": self.layer, "weights": weights, **asdict(self.mel)})

    def to(self, device: torch.device | str) -> CtcEncoder:
        """Move the network; returns itself."""
        self.network.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.network.head.weight.device

    @torch.inference_mode()
    def encode(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Frames are normalized to zero mean and unit deviation across channels, so that k-means sees directions."""
        out: list[np.ndarray | None] = [None] * len(recordings)
        for batch in self._batches(recordings):
            mels, frames = padded_mels([self._prepared(recordings[index]) for index in batch], self.mel, self.device)
            hidden, lengths = self.network.hidden(mels, frames, self.layer)
            hidden = torch.nn.functional.layer_norm(hidden.float(), (self.width,)).cpu()
            for row, (index, length) in enumerate(zip(batch, lengths.tolist())):
                out[index] = hidden[row, self.padding : length - self.padding].numpy().copy()
        assert all(frames is not None for frames in out)
        return out  # type: ignore[return-value]

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """What the network's own head reads."""
        alphabet = self.network.config.alphabet
        each = [torch.from_numpy(frames) for frames in self.log_probabilities(recordings)]
        return [greedy_text(one[None], torch.tensor([len(one)], device="cpu"), alphabet)[0] for one in each]

    @torch.inference_mode()
    def log_probabilities(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(2 F, characters + blank) of the head for each recording, natural logarithms, index 0 the blank."""
        out: list[np.ndarray | None] = [None] * len(recordings)
        for batch in self._batches(recordings):
            mels, frames = padded_mels([self._prepared(recordings[index]) for index in batch], self.mel, self.device)
            found, sizes = self.network(mels, frames)
            found, around = found.cpu(), EMISSIONS * self.padding
            for row, (index, size) in enumerate(zip(batch, sizes.tolist())):
                out[index] = found[row, around : size - around].numpy().copy()
        assert all(frames is not None for frames in out)
        return out  # type: ignore[return-value]

    @property
    def knows_noise(self) -> bool:
        """Whether it was trained among silence and noises, and says blank of them; networks of before were not."""
        return self.network.config.statistics == SPOKEN

    def activity(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(2 F,) bool for each recording: frames in which the head reads a character."""
        space = 1 + alphabet.index(" ") if " " in (alphabet := self.network.config.alphabet) else 0
        best = [frames.argmax(1) for frames in self.log_probabilities(recordings)]
        return [(labels != 0) & (labels != space) for labels in best]

    @property
    def padding(self) -> int:
        """Trunk frames of silence on either side of what the network reads."""
        return PADDING if self.knows_noise else 0

    def _prepared(self, samples: np.ndarray) -> np.ndarray:
        """What the network was trained on: recordings of one level, or as they are in networks of before."""
        return between_silence(samples, self.mel) if self.knows_noise else samples

    def _batches(self, recordings: Sequence[np.ndarray]) -> Iterator[list[int]]:
        """Indices of recordings of similar length; those of a batch count as done when the next is asked for."""
        done = 0
        for batch in batches_by_length([len(samples) for samples in recordings], BATCH_SECONDS * self.sample_rate):
            yield batch
            done += len(batch)
            advance_aside("recording", done, len(recordings))

    def save(self, folder: Path) -> None:
        """Write the folder that `load` reads."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.cpu() for name, value in self.network.state_dict().items()}, folder / "model.safetensors"
        )
        config = {"class": "ctc", "mel": asdict(self.mel), "layer": self.layer, "network": asdict(self.network.config)}
        write_json(folder / "config.json", config)

    @staticmethod
    def load(folder: Path) -> CtcEncoder:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        network = CtcNetwork(network_config(config["network"]))
        network.load_state_dict(read_tensors(folder / "model.safetensors"))
        return CtcEncoder(network, MelConfig(**config["mel"]), config["layer"])


def between_silence(samples: np.ndarray, mel: MelConfig) -> np.ndarray:
    """(S,) samples at the level that networks are trained on, with `PADDING` frames of silence on either side."""
    short = max(0, mel.hop_length * STRIDE - len(samples))  # one frame at least lies between them
    size = PADDING * STRIDE * mel.hop_length
    return np.pad(leveled(samples, mel.sample_rate), (size, size + short))


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group indices of similar length so that (longest × count) stays within `budget`; at least one each."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batches and lengths[index] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def padded_mels(
    recordings: Sequence[np.ndarray], mel: MelConfig, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mels (B, F, M) of recordings padded with zero frames, and their frame counts (B,), on a device."""
    each = []
    for samples in recordings:
        short = max(0, mel.hop_length * STRIDE - len(samples))
        padded = torch.from_numpy(np.pad(samples, (0, short)).astype(np.float32))
        each.append(log_mel(padded.to(device), mel))
    frames = torch.tensor([len(one) for one in each], device=device)
    return torch.nn.utils.rnn.pad_sequence(each, batch_first=True), frames
