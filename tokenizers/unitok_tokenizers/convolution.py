"""The residual convolution block that the small networks share.

B batch, T frames, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvBlock(nn.Module):
    """Depthwise convolution, norm, pointwise expansion (Liu et al. 2022, ConvNeXt, in one dimension).

    ReLU, and dropout of whole channels of an utterance, where ConvNeXt has GELU and no dropout: on a CPU they take a
    fifth off a training step, and cost no accuracy that we could measure.
    """

    def __init__(self, width: int, kernel: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout1d(dropout)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, C), mask (B, T, 1) zero behind the end → (B, T, C)."""
        mixed = self.depthwise((x * mask).transpose(1, 2)).transpose(1, 2)  # (B, T, C)
        inner = functional.relu(self.expand(self.norm(mixed)))
        return x + self.scale * self.dropout(self.contract(inner).transpose(1, 2)).transpose(1, 2)
