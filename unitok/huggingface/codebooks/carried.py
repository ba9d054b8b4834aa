"""Weights that a folder came with and nothing here computes with, such as a codec's: kept in a model directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

CARRIED = "carried"
"""Name of the part."""


class Carried(nn.Module):
    """Tensors of any type and shape, by their makers' names. They have no gradient and are never converted.

    Args:
        tensors: name → tensor.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = sorted(tensors)
        for index, name in enumerate(self.names):
            self.register_buffer(f"tensor{index}", tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """Name → tensor."""
        return {name: self.get_buffer(f"tensor{index}") for index, name in enumerate(self.names)}

    def config(self) -> dict[str, Any]:
        """Names, shapes and types; JSON."""
        found = self.tensors().items()
        return {name: [list(one.shape), str(one.dtype).removeprefix("torch.")] for name, one in found}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Carried:
        """The inverse of `config`, with zeros."""
        return Carried(
            {name: torch.zeros(shape, dtype=getattr(torch, dtype)) for name, (shape, dtype) in config.items()}
        )
