"""Convolution over frames, and the residual block that the small networks share.

B batch, T frames, C channels, K taps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def convolve(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """What `layer` makes of x (B, T, C), frames before channels: (B, T', C').

    The same sums as `layer` itself, asked for in two dimensions: laid out so, channels last, a CPU computes a
    depthwise convolution and its gradients in two fifths of the time, and needs no transposed copy.

    A depthwise one stays in float32 where a CPU computes in mixed precision: it has no products of matrices that
    bfloat16 would make quicker, and takes two thirds of the time that it takes in bfloat16.
    """
    whole = layer.weight.dtype == torch.float32 and x.device.type == "cpu"
    if layer.groups > 1 and whole and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return _convolved(layer, x.float())
    return _convolved(layer, x)


def _convolved(layer: nn.Conv1d, x: Tensor) -> Tensor:
    assert not isinstance(layer.padding, str)
    made = functional.conv2d(
        x.transpose(1, 2)[:, :, None],  # (B, C, 1, T)
        layer.weight[:, :, None],  # (C', C, 1, K)
        layer.bias,
        (1, *layer.stride),
        (0, *layer.padding),
        groups=layer.groups,
    )
    return made[:, :, 0].transpose(1, 2)


def padded_back(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """What a layer without padding makes of x (B, T, C) where its windows end at the last of their frames."""
    assert layer.padding == (0,)
    return convolve(layer, functional.pad(x, (0, 0, layer.kernel_size[0] - layer.stride[0], 0)))


class HeldConvolution:
    """A convolution over frames that come piece by piece, whose windows end at the last of their frames."""

    def __init__(self, layer: nn.Conv1d) -> None:
        assert not isinstance(layer.padding, str)
        self.layer, self.around = layer, layer.padding[0]
        size = layer.kernel_size[0] - layer.stride[0]
        self.held = layer.weight.new_zeros(1, size, layer.in_channels)
        """(1, K - stride, C) what windows to come still look at."""

    def __call__(self, x: Tensor) -> Tensor:
        """The next frames (1, T, C), a multiple of the stride → (1, T ÷ stride, C')."""
        joined = torch.cat([self.held, x], dim=1)
        self.held = joined[:, x.shape[1] :].clone()
        made = convolve(self.layer, joined)
        return made[:, self.around : made.shape[1] - self.around]


class ConvBlock(nn.Module):
    """Depthwise convolution, norm, pointwise expansion (Liu et al. 2022, ConvNeXt, in one dimension).

    ReLU, and dropout of whole channels of an utterance, where ConvNeXt has GELU and no dropout: on a CPU they take a
    fifth off a training step, and cost no accuracy that we could measure.
    """

    def __init__(self, width: int, kernel: int, expansion: int, dropout: float, *, causal: bool = False) -> None:
        """`causal` blocks look at the last `kernel` frames, others at as many on either side."""
        super().__init__()
        self.causal = causal
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout1d(dropout)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, C), mask (B, T, 1) zero behind the end → (B, T, C)."""
        inside = x * mask.to(x.dtype)
        if self.causal:  # half a kernel later: what is centered then looks back only
            inside = functional.pad(inside, (0, 0, self.depthwise.kernel_size[0] // 2, 0))
        return self.mixed_in(x, convolve(self.depthwise, inside)[:, : x.shape[1]])

    def mixed_in(self, x: Tensor, mixed: Tensor) -> Tensor:
        """x (B, T, C) and what the convolution makes of it (B, T, C) → (B, T, C)."""
        inner = functional.relu(self.expand(self.norm(mixed)))
        return x + self.scale * self.dropout(self.contract(inner).transpose(1, 2)).transpose(1, 2)


class BlockStream:
    """A causal block at the beginning of one recording."""

    def __init__(self, block: ConvBlock) -> None:
        assert block.causal, "what looks forward must wait"
        self.block, self.held = block, HeldConvolution(block.depthwise)

    def __call__(self, x: Tensor) -> Tensor:
        """The next frames (1, T, C) → what the block makes of them."""
        return self.block.mixed_in(x, self.held(x))
