"""The small network with a CTC head, of a judge or behind units: frames of one of its layers, and what its head reads.

B batch, F mel frames (100 Hz), T frames (25 Hz), M mel bins, D width, V characters and the blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unitok_tokenizers.audio.feature_stream import LogMelStream, look_ahead
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.base import FrameEncoder, Frames, FrameStream, Inputs
from unitok_tokenizers.encoders.batches import between_silence, in_batches
from unitok_tokenizers.encoders.filterbank import mel_inputs, padded
from unitok_tokenizers.encoders.networks.ctc_network import (
    EMISSIONS,
    PADDING,
    STRIDE,
    CtcNetwork,
    CtcStream,
    greedy_text,
    network_config,
)
from unitok_tokenizers.encoders.networks.normalization import SPOKEN
from unitok_tokenizers.files import array_fingerprint, fingerprint, read_json, read_tensors, write_json


def before_causal(mel: MelConfig) -> int:
    """Samples of silence before what a causal network reads: the beginning of a recording is like any other word's."""
    return PADDING * STRIDE * mel.hop_length


class CtcEncoder(FrameEncoder):
    """The output of a chosen block, each frame to mean 0 and variance 1, so that k-means sees directions.

    Supervised units keep the words and shed the speaker; the last layers are peaky (mostly blank), hence `layer`. The
    head's characters are no text pieces and come twice a frame, so that there are no `Frames.ctc`.

    Args:
        network: what was trained with CTC on characters.
        mel: features that it was trained on.
        layer: blocks that are run to the output.
    """

    name = "ctc"

    def __init__(self, network: CtcNetwork, mel: MelConfig, layer: int) -> None:
        super().__init__()
        self.network, self.mel, self.layer = network.eval(), mel, layer
        self.sample_rate, self.frame_rate = mel.sample_rate, mel.frame_rate / STRIDE
        self.width, self.depth = network.config.width, len(network.blocks) + 1

    # -- frames -------------------------------------------------------------------------------------------------

    @property
    def knows_noise(self) -> bool:
        """Whether it was trained among silence and noises, and says blank of them; networks of before were not."""
        return self.network.config.statistics == SPOKEN

    @property
    def causal(self) -> bool:
        """Whether the network looks back only."""
        return self.network.config.causal

    @property
    def padding(self) -> int:
        """Frames of silence before what the network reads, and behind it unless it is causal."""
        return PADDING if self.knows_noise else 0

    @property
    def _behind(self) -> int:
        return 0 if self.causal else self.padding

    def inputs(self, samples: np.ndarray) -> Inputs:
        """(S,) → log-mels (F, M): of one level between silence, or as they are for networks of before.

        A causal network cannot know the level of what comes: it has silence before the recording, and no other change.
        """
        if self.causal:
            return mel_inputs(np.pad(samples, (before_causal(self.mel), 0)), self.mel, (PADDING + 1) * STRIDE)
        return mel_inputs(between_silence(samples, self.mel) if self.knows_noise else samples, self.mel, STRIDE)

    def frames_of(self, samples: int) -> int:
        """One for every four hops."""
        return max(1, samples // self.mel.hop_length // STRIDE)

    def forward(self, batch: Sequence[Inputs]) -> Frames:
        """See `FrameEncoder.forward`."""
        states, lengths = self.network.states(*padded(batch))
        layers = tuple(self._inner(state) for state in states)
        return Frames(layers[self.layer], lengths - self.padding - self._behind, layers)

    def hidden_at(self, batch: Sequence[Inputs], layer: int | None = None) -> tuple[Tensor, Tensor]:
        """See `FrameEncoder.hidden_at`; blocks behind the layer are not run."""
        state, lengths = self.network.hidden(*padded(batch), self.layer if layer is None else layer)
        return self._inner(state), lengths - self.padding - self._behind

    def _inner(self, state: Tensor) -> Tensor:
        """A layer's frames between the padding, (B, T, D)."""
        return functional.layer_norm(state[:, self.padding : state.shape[1] - self._behind].float(), (self.width,))

    # -- recordings that come piece by piece ----------------------------------------------------------------------

    @property
    def look_ahead(self) -> int | None:
        """See `FrameEncoder.look_ahead`: the window of the last log-mel, where the network is causal."""
        return look_ahead(self.mel) - self.mel.hop_length if self.causal else None

    def stream(self, layer: int | None = None) -> FrameStream:
        """See `FrameEncoder.stream`."""
        if not self.causal:
            return super().stream(layer)
        return _CtcFrames(self, self.layer if layer is None else layer)

    # -- what the head reads ------------------------------------------------------------------------------------

    def transcribe(self, recordings: Sequence[np.ndarray]) -> list[str]:
        """What the network's own head reads."""
        alphabet = self.network.config.alphabet
        each = [torch.from_numpy(frames) for frames in self.log_probabilities(recordings)]
        return [greedy_text(one[None], torch.tensor([len(one)], device="cpu"), alphabet)[0] for one in each]

    def log_probabilities(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(2 T, V) of the head for each recording, natural logarithms, index 0 the blank."""

        def read(batch: list[Inputs]) -> tuple[Tensor, Tensor]:
            found, sizes = self.network(*padded(batch))
            return found[:, EMISSIONS * self.padding :], sizes - EMISSIONS * (self.padding + self._behind)

        return in_batches(self, recordings, read)

    def activity(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(2 T,) bool for each recording: frames in which the head reads a character."""
        space = 1 + alphabet.index(" ") if " " in (alphabet := self.network.config.alphabet) else 0
        best = [frames.argmax(1) for frames in self.log_probabilities(recordings)]
        return [(labels != 0) & (labels != space) for labels in best]

    # -- files --------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Identifies the content."""
        weights = array_fingerprint(*(value.cpu().numpy() for value in self.network.state_dict().values()))
        return fingerprint({"class": "ctc", "layer": self.layer, "weights": weights, **asdict(self.mel)})

    def to_json(self) -> dict[str, Any]:
        """See `FrameEncoder.to_json`."""
        return {
            "class": self.name,
            "config": self.network.config.described(),
            "mel": asdict(self.mel),
            "layer": self.layer,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CtcEncoder:
        """See `FrameEncoder.from_json`."""
        return cls(CtcNetwork(network_config(value["config"])), MelConfig(**value["mel"]), value["layer"])

    def save(self, folder: Path) -> None:
        """See `FrameEncoder.save`: names of the network's own weights, and its configuration under `network`."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.cpu() for name, value in self.network.state_dict().items()}, folder / "model.safetensors"
        )
        value = self.to_json()
        order = {"class": self.name, "mel": value["mel"], "layer": self.layer, "network": value["config"]}
        write_json(folder / "config.json", order)

    @classmethod
    def load(cls, folder: Path) -> CtcEncoder:
        """Read what `save` wrote."""
        config = read_json(folder / "config.json")
        network = CtcNetwork(network_config(config["network"]))
        network.load_state_dict(read_tensors(folder / "model.safetensors"))
        return cls(network, MelConfig(**config["mel"]), config["layer"])


class _CtcFrames:
    """A causal encoder in the middle of a recording."""

    def __init__(self, encoder: CtcEncoder, layer: int) -> None:
        self.encoder = encoder
        silence = before_causal(encoder.mel)
        self.mels = LogMelStream(encoder.mel, least=silence + encoder.mel.hop_length * STRIDE, device=encoder.device)
        self.network = CtcStream(encoder.network, layer)
        self.skipped = PADDING
        """Frames of the silence that are still to come."""
        self.silence = np.zeros(silence, dtype=np.float32)

    @torch.inference_mode()
    def push(self, samples: np.ndarray) -> Tensor:
        """See `FrameStream.push`."""
        heard = np.concatenate([self.silence, np.asarray(samples, dtype=np.float32)])
        self.silence = self.silence[:0]
        return self._frames(self.mels.push(heard))

    @torch.inference_mode()
    def finish(self) -> Tensor:
        """See `FrameStream.finish`."""
        before = self.push(np.zeros(0, dtype=np.float32))
        return torch.cat([before, self._frames(self.mels.finish())])

    def _frames(self, mels: Tensor) -> Tensor:
        found = functional.layer_norm(self.network(mels)[0].float(), (self.encoder.width,))
        skipped = min(self.skipped, len(found))
        self.skipped -= skipped
        return found[skipped:]
