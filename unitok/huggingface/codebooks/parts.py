"""Pieces that several families are made of: a codec's frame rate, blocks of a small decoder, weights by prefixes.

C width, D width of a small decoder, V codes of a codebook.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.weights import load_hf_state, to_hf_state
from unitok_tokenizers.errors import InputError

EMBEDDING = "model.embed_tokens.weight"


def whole_numbers(config: Mapping[str, Any], names: Iterable[str], where: Path) -> tuple[int, ...]:
    """Sizes of a `config.json`; InputError for one that is missing or none."""
    names = tuple(names)
    for name in names:
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{where}: {name} is {value!r} in config.json; give the whole file of the model")
    return tuple(config[name] for name in names)


def mimi_rate(codec: Mapping[str, Any] | None) -> Fraction:
    """Frames a second of the Mimi that a `config.json` describes; of the published one what it leaves out."""
    codec = codec or {}
    stated = codec.get("frame_rate") or codec.get("_frame_rate")
    if stated:
        return Fraction(str(stated))
    ratios = codec.get("upsampling_ratios") or (8, 6, 5, 4)
    return Fraction(int(codec.get("sampling_rate", 24000)), 2 * math.prod(int(ratio) for ratio in ratios))


def take(state: dict[str, Tensor], name: str, shape: tuple[int, ...], where: Path) -> Tensor:
    """A weight, which leaves `state`; InputError where it is missing or of another shape."""
    if name not in state:
        raise InputError(f"{where}: weight {name!r} is missing; the folder is incomplete or of another architecture")
    found = state.pop(name)
    if tuple(found.shape) != shape:
        raise InputError(f"{where}: {name!r} is {tuple(found.shape)}, config.json means {shape}")
    return found


def take_all(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights under a prefix, by their names behind it, which leave `state`."""
    return {name.removeprefix(prefix): state.pop(name) for name in [one for one in state if one.startswith(prefix)]}


def nothing_left(state: Mapping[str, Tensor], where: Path) -> None:
    """InputError for a weight that nothing has taken."""
    if state:
        raise InputError(f"{where}: unknown weight {min(state)!r}; the architecture differs from its config.json")


@torch.no_grad()
def load_blocks(decoder: nn.Module, config: DecoderConfig, state: Mapping[str, Tensor], where: Path) -> None:
    """Fill a decoder without rows, of this shape, with stock-named weights."""
    whole = Decoder(replace(config, vocab_size=1, tied=True))
    load_hf_state(whole, {**state, EMBEDDING: torch.zeros(1, config.width)}, where)
    own = dict(decoder.named_parameters())
    for name, value in whole.named_parameters():
        if name != "embedding":
            if name not in own:
                raise InputError(f"{where}: biases of attention outputs have no place in a small decoder here")
            own[name].copy_(value)


def blocks_state(decoder: nn.Module, config: DecoderConfig) -> dict[str, Tensor]:
    """The inverse of `load_blocks`."""
    whole = Decoder(replace(config, vocab_size=1, tied=True))
    whole.load_state_dict({**dict(decoder.named_parameters()), "embedding": torch.zeros(1, config.width)})
    return {name: value for name, value in to_hf_state(whole).items() if name != EMBEDDING}


def prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with a prefix before their names."""
    return {f"{prefix}{name}": value for name, value in state.items()}
