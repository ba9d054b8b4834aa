"""Rotary positions: how fast each pair of a head's numbers turns. D head size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError


def rotary_frequencies(head_size: int, theta: float, rope_scaling: Mapping[str, Any] | None = None) -> Tensor:
    """Angles per position (D / 2,) of heads of D, for the base `theta`, scaled as Hugging Face's `rope_scaling` says.

    Raises:
        InputError: a scaling that is neither `linear` nor `llama3`.
    """
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    frequencies = 1.0 / (theta**exponents)
    scaling = dict(rope_scaling or {})
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return frequencies
    factor = float(scaling["factor"])
    if kind == "linear":
        return frequencies / factor
    if kind != "llama3":
        raise InputError(f"rope_scaling type {kind!r} is not supported; linear and llama3 are")
    # Llama 3.1: keep short wavelengths, divide long ones, blend between.
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * frequencies / (2 * math.pi)
    blend = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return blend * frequencies + (1 - blend) * frequencies / factor
