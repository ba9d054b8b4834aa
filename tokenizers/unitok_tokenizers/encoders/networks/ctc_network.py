"""A small convolutional network with a CTC head: the trunk of the built-in speech encoder and of the judge.

B batch, F mel frames (100 Hz), T frames at the trunk's rate (25 Hz), M mel bins, C width, V characters + blank.
Unusual: the head emits two CTC frames per trunk frame, because 25 Hz is too slow for the characters of quick speech.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.encoders.networks.convolution import (
    BlockStream,
    ConvBlock,
    HeldConvolution,
    convolve,
    padded_back,
)
from unitok_tokenizers.encoders.networks.normalization import (
    ALL,
    SPOKEN,
    RunningState,
    RunningStatistics,
    normalize,
)

STRIDE = 4
"""Mel frames per trunk frame."""
EMISSIONS = 2
"""CTC frames per trunk frame."""
PAUSE_FRAMES = 12
"""CTC frames without a character, .24 s, that part two words: within a word the demo's networks leave as many once in
two thousand characters."""
PADDING = 3
"""Trunk frames of silence that are put around what is read and taken off again: recordings that begin with a word look
to the network like those that do not."""


@dataclass(frozen=True, kw_only=True)
class CtcNetworkConfig:
    """Sizes of the network."""

    num_mels: int = 80
    """Mel bins."""
    width: int = 256
    """Channels of the trunk."""
    blocks: int = 8
    """Residual blocks."""
    kernel: int = 9
    """Kernel of the depthwise convolutions, in trunk frames."""
    expansion: int = 3
    """Inner width of a block over its outer width."""
    dropout: float = 0.1
    """Share of channels dropped in training."""
    statistics: str = SPOKEN
    """What log-mels are normalized by: "spoken", the loud frames alone, or "all" frames, as networks of before were."""
    alphabet: tuple[str, ...] = ()
    """Characters; index 0 of the head is the blank, character i has index i + 1."""
    causal: bool = False
    """Whether nothing looks forward: convolutions end at the frame, and statistics are those of what was heard."""

    def described(self) -> dict[str, Any]:
        """As JSON; what the first version did not have stands there only where it is used."""
        return {name: value for name, value in asdict(self).items() if name != "causal" or value}


def network_config(value: Mapping[str, Any]) -> CtcNetworkConfig:
    """From JSON; a file of before names no statistics, and meant all frames."""
    return CtcNetworkConfig(**{"statistics": ALL, **value, "alphabet": tuple(value["alphabet"])})


class CtcNetwork(nn.Module):
    """Log-mels → hidden layers at 25 Hz → CTC logits at 50 Hz."""

    def __init__(self, config: CtcNetworkConfig) -> None:
        super().__init__()
        self.config = config
        causal = config.causal
        self.front = nn.Conv1d(config.num_mels, config.width, 7, stride=2, padding=0 if causal else 3)
        self.down = nn.Conv1d(config.width, config.width, 5, stride=2, padding=0 if causal else 2)
        self.blocks = nn.ModuleList(
            ConvBlock(config.width, config.kernel, config.expansion, config.dropout, causal=causal)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, EMISSIONS * (len(config.alphabet) + 1))
        self.running = RunningStatistics(config.num_mels) if causal else None

    @staticmethod
    def trunk_lengths(frames: Tensor) -> Tensor:
        """Trunk frames of utterances of `frames` mel frames."""
        return torch.div(frames, STRIDE, rounding_mode="floor").clamp(min=1)

    def states(self, mels: Tensor, frames: Tensor, layers: int | None = None) -> tuple[list[Tensor], Tensor]:
        """What enters the first block and what each of the first `layers` gives, (B, T, C), and the lengths (B,)."""
        lengths = self.trunk_lengths(frames)
        x = self._subsampled(mels, frames) if self.running is None else self._heard(self.running, mels)
        mask = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None].to(x.dtype)
        states = [x]
        for block in list(self.blocks)[:layers]:
            states.append(block(states[-1], mask))
        return states, lengths

    def _subsampled(self, mels: Tensor, frames: Tensor) -> Tensor:
        """(B, F, M) → (B, T, C), what lies behind the ends of rows left out."""
        total = int(mels.shape[1]) // STRIDE or 1
        inside = torch.arange(mels.shape[1], device=mels.device) < frames[:, None]  # (B, F)
        normal = (normalize(mels, frames, self.config.statistics) * inside[..., None]).to(self.front.weight.dtype)
        x = functional.gelu(convolve(self.front, normal))
        half = torch.arange(x.shape[1], device=x.device) < ((frames + 1) // 2)[:, None]
        return functional.gelu(convolve(self.down, x * half[..., None]))[:, :total]

    def _heard(self, running: RunningStatistics, mels: Tensor) -> Tensor:
        """(B, F, M) → (B, T, C), of a network that looks back only: what lies behind a row reaches nothing in it."""
        normal = running(mels[:, : mels.shape[1] // STRIDE * STRIDE])[0].to(self.front.weight.dtype)
        x = functional.gelu(padded_back(self.front, normal))
        return functional.gelu(padded_back(self.down, x))

    def hidden(self, mels: Tensor, frames: Tensor, layers: int | None = None) -> tuple[Tensor, Tensor]:
        """Output (B, T, C) of the first `layers` blocks (all by default) and the lengths (B,) in trunk frames."""
        states, lengths = self.states(mels, frames, layers)
        return states[-1], lengths

    def forward(self, mels: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, 2T, V) and their lengths (B,)."""
        x, lengths = self.hidden(mels, frames)
        logits = self.head(self.norm(x))  # (B, T, 2V)
        logits = logits.reshape(x.shape[0], -1, logits.shape[-1] // EMISSIONS)  # (B, 2T, V)
        return functional.log_softmax(logits.float(), dim=-1), lengths * EMISSIONS


class CtcStream:
    """Log-mels of one recording as they come → the output of the first `layers` blocks, of a causal network."""

    def __init__(self, network: CtcNetwork, layers: int) -> None:
        assert network.running is not None, "what looks forward must wait for the end"
        self.running: RunningStatistics = network.running
        self.state: RunningState | None = None
        self.waiting = torch.zeros(0, network.config.num_mels, device=network.front.weight.device)
        """Log-mels (F, M) that fill no trunk frame yet."""
        self.front, self.down = HeldConvolution(network.front), HeldConvolution(network.down)
        blocks = list(network.blocks)[:layers]
        self.blocks = [BlockStream(block) for block in blocks if isinstance(block, ConvBlock)]

    def __call__(self, mels: Tensor) -> Tensor:
        """The next log-mels (F, M) → frames (1, T, C) that they fill, perhaps none."""
        self.waiting = torch.cat([self.waiting, mels])
        whole = len(self.waiting) // STRIDE * STRIDE
        if not whole:
            return self.front.layer.weight.new_zeros(1, 0, self.down.layer.out_channels)
        normal, self.state = self.running(self.waiting[None, :whole], self.state)
        self.waiting = self.waiting[whole:].clone()
        x = functional.gelu(self.front(normal.to(self.front.layer.weight.dtype)))
        x = functional.gelu(self.down(x))
        for block in self.blocks:
            x = block(x)
        return x


def greedy_text(log_probabilities: Tensor, lengths: Tensor, alphabet: tuple[str, ...]) -> list[str]:
    """Best-path decoding (Graves et al. 2006): merge repeats, drop blanks, tidy spaces.

    Where words have spaces between them, `PAUSE_FRAMES` of blanks are one too: a network that read single sentences
    says nothing between two of them.
    """
    texts = []
    for row, length in zip(log_probabilities.argmax(-1), lengths.tolist()):
        path, runs = torch.unique_consecutive(row[:length], return_counts=True)
        heard = [
            alphabet[index - 1] if index else " " * (run >= PAUSE_FRAMES and " " in alphabet)
            for index, run in zip(path.tolist(), runs.tolist())
        ]
        texts.append(" ".join("".join(heard).split()))
    return texts
