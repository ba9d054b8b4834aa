"""The weights that a decoder begins with, one after another: for a decoder whose own are nowhere whole.

A decoder that is built draws the same numbers in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unitok.decoder.model import Decoder, DecoderConfig, initial_scale


def initial_values(config: DecoderConfig, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """(name, float32 weight on the processor) of each parameter of `Decoder(config, generator=generator)`."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Decoder(config).named_parameters()}
    for name, shape in shapes.items():
        if len(shape) == 2:
            yield name, torch.empty(shape, device="cpu").normal_(0.0, initial_scale(name, config), generator=generator)
        else:
            yield name, (torch.zeros if name.endswith("bias") else torch.ones)(shape, device="cpu")
