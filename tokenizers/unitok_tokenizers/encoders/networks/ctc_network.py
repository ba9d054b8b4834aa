"""A small convolutional network with a CTC head: the trunk of the built-in speech encoder and of the judge.

B batch, F mel frames (100 Hz), T frames at the trunk's rate (25 Hz), M mel bins, C width, V characters + blank.
Unusual: the head emits two CTC frames per trunk frame, because 25 Hz is too slow for the characters of quick speech.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok_tokenizers.encoders.networks.convolution import ConvBlock, convolve

STRIDE = 4
"""Mel frames per trunk frame."""
EMISSIONS = 2
"""CTC frames per trunk frame."""
PAUSE_FRAMES = 12
"""CTC frames without a character, .24 s, that part two words: within a word the demo's networks leave as many once in
two thousand characters."""


SPOKEN, ALL = "spoken", "all"
PADDING = 3
"""Trunk frames of silence that are put around what is read and taken off again: recordings that begin with a word look
to the network like those that do not."""
LOUD_FRAMES = 30
"""How many of the loudest frames say how loud an utterance is."""
BELOW_LOUD_DB = 15.0
"""Frames that are not further below those are spoken: silence and noise around them do not count."""


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


def network_config(value: Mapping[str, Any]) -> CtcNetworkConfig:
    """From JSON; a file of before names no statistics, and meant all frames."""
    return CtcNetworkConfig(**{"statistics": ALL, **value, "alphabet": tuple(value["alphabet"])})


class CtcNetwork(nn.Module):
    """Log-mels → hidden layers at 25 Hz → CTC logits at 50 Hz."""

    def __init__(self, config: CtcNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.front = nn.Conv1d(config.num_mels, config.width, 7, stride=2, padding=3)
        self.down = nn.Conv1d(config.width, config.width, 5, stride=2, padding=2)
        self.blocks = nn.ModuleList(
            ConvBlock(config.width, config.kernel, config.expansion, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, EMISSIONS * (len(config.alphabet) + 1))

    @staticmethod
    def trunk_lengths(frames: Tensor) -> Tensor:
        """Trunk frames of utterances of `frames` mel frames."""
        return torch.div(frames, STRIDE, rounding_mode="floor").clamp(min=1)

    def states(self, mels: Tensor, frames: Tensor, layers: int | None = None) -> tuple[list[Tensor], Tensor]:
        """What enters the first block and what each of the first `layers` gives, (B, T, C), and the lengths (B,)."""
        lengths = self.trunk_lengths(frames)
        total = int(mels.shape[1]) // STRIDE or 1
        inside = torch.arange(mels.shape[1], device=mels.device) < frames[:, None]  # (B, F)
        normal = (normalize(mels, frames, self.config.statistics) * inside[..., None]).to(self.front.weight.dtype)
        x = functional.gelu(convolve(self.front, normal))
        half = torch.arange(x.shape[1], device=x.device) < ((frames + 1) // 2)[:, None]
        x = functional.gelu(convolve(self.down, x * half[..., None]))[:, :total]  # (B, T, C)
        mask = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None].to(x.dtype)
        states = [x]
        for block in list(self.blocks)[:layers]:
            states.append(block(states[-1], mask))
        return states, lengths

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


def normalize(mels: Tensor, frames: Tensor, statistics: str = ALL) -> Tensor:
    """Subtract each utterance's mean per bin, and scale by its overall deviation: (B, F, M) → (B, F, M).

    Both are taken over `statistics`: all frames, or the spoken ones, so that a second of silence changes nothing.
    """
    inside = (torch.arange(mels.shape[1], device=mels.device) < frames[:, None])[..., None].to(mels.dtype)
    counted = inside if statistics == ALL else inside * loud_frames(mels, frames)[..., None].to(mels.dtype)
    count = counted.sum(1, keepdim=True).clamp(min=1)
    mean = (mels * counted).sum(1, keepdim=True) / count
    centered = (mels - mean) * inside
    deviation = ((centered**2 * counted).sum((1, 2), keepdim=True) / (count * mels.shape[2])).sqrt()
    return centered / (deviation + 1e-3)


def loud_frames(mels: Tensor, frames: Tensor) -> Tensor:
    """(B, F) bool: frames near the loudest ones of their utterance, of log-mels (B, F, M) with lengths (B,).

    The loudness is that of the loudest so many frames, and not of a share of them, which would depend on the silence.
    """
    inside = torch.arange(mels.shape[1], device=mels.device) < frames[:, None]
    power = torch.logsumexp(2.0 * mels.float(), -1).masked_fill(~inside, -torch.inf)  # (B, F) natural log
    count = (frames // 3).clamp(1, LOUD_FRAMES)
    ranked = power.topk(min(LOUD_FRAMES, power.shape[1]), dim=1).values
    loud = ranked.gather(1, count[:, None] - 1)  # (B, 1)
    return inside & (power >= loud - BELOW_LOUD_DB * math.log(10.0) / 10.0)


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
