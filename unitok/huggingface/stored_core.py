"""A `core/` folder whose weights stay in their file: opened by the decoder's own names, and written from such.

C width, H query heads, G key/value heads, D head size, I feed-forward size. What one of our matrices joins is several
stock weights, rows after rows: `qkv` (H D + 2 G D, C), `gate_up` (2 I, C).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from unitok.decoder.lora import LoraConfig, add_lora
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.weights import from_hf_config, to_hf_state, write_core_config
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json
from unitok_tokenizers.stored_tensors import StoredTensor, joined, open_tensors, write_stored

WEIGHTS = "model.safetensors"
TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
BLOCK = {
    "norm": ("input_layernorm.weight",),
    "qkv": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "qkv_bias": tuple(f"self_attn.{part}_proj.bias" for part in "qkv"),
    "out": ("self_attn.o_proj.weight",),
    "q_norm": ("self_attn.q_norm.weight",),
    "k_norm": ("self_attn.k_norm.weight",),
    "feed_forward.norm": ("post_attention_layernorm.weight",),
    "feed_forward.gate_up": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "feed_forward.down": ("mlp.down_proj.weight",),
}
"""Weight of a block → stock weights that it joins."""
ZEROS = ".self_attn.o_proj.bias"
"""What some stock classes want and the decoder does without."""


def stock_names(name: str) -> tuple[str, ...]:
    """Stock weights, rows after rows, of one of the decoder's."""
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
        return tuple(f"model.layers.{found[1]}.{part}" for part in BLOCK[found[2]])
    return (TOP[name],)


def bare_decoder(config: DecoderConfig, lora: LoraConfig | None = None) -> Decoder:
    """A decoder on the meta device, with low-rank updates where these are given: shapes, no weights."""
    with torch.device("meta"):
        decoder = Decoder(config).eval()
        if lora is not None:
            add_lora(decoder, lora)
    return decoder


def open_core(folder: Path) -> tuple[DecoderConfig, dict[str, StoredTensor]] | None:
    """(shape, stored weights by the decoder's names) of a folder that `save_core` wrote.

    None for one that only `load_core` understands: of several files, with output biases, or with a head of its own
    where its configuration says that it has none.

    Raises:
        InputError: no such folder, or weights that are not those of its configuration.
    """
    if not (folder / WEIGHTS).is_file():
        return None
    stored, _ = open_tensors(folder / WEIGHTS)
    config = from_hf_config(read_json(folder / "config.json"), folder)
    if (config.tied and TOP["head"] in stored) or any(
        name.endswith(ZEROS) and bool(value.whole().any()) for name, value in stored.items()
    ):
        return None
    left = {name: value for name, value in stored.items() if not name.endswith(ZEROS)}
    found = {}
    for name, weight in bare_decoder(config).named_parameters():
        parts = stock_names(name)
        if lost := [part for part in parts if part not in left]:
            raise InputError(f"{folder}: weight {lost[0]!r} is missing; copy the folder again")
        found[name] = joined([left.pop(part) for part in parts])
        if found[name].shape != tuple(weight.shape):
            raise InputError(
                f"{folder}: {parts[0]!r} is of another shape than config.json means ({found[name].shape}, "
                f"{tuple(weight.shape)}); copy the folder again"
            )
    if left:
        raise InputError(f"{folder}: unknown weight {min(left)!r}; the architecture differs from its config.json")
    return config, found


def save_stored_core(
    config: DecoderConfig, stored: Mapping[str, StoredTensor], folder: Path, *, bos: int, eos: int, pad: int
) -> None:
    """What `save_core` writes of a decoder with these weights, none of which is whole in memory meanwhile."""
    write_core_config(config, folder, bos=bos, eos=eos, pad=pad)
    bare = bare_decoder(config)
    shapes = {name: value.shape for name, value in to_hf_state(bare).items()}
    found = {}
    for name, _ in bare.named_parameters():
        at = 0
        for part in stock_names(name):
            rows = shapes[part][0]
            found[part] = stored[name].part(at, at + rows)
            at += rows
    for name in shapes.keys() - found.keys():
        assert name.endswith(ZEROS), name
        found[name] = StoredTensor.of(torch.zeros(shapes[name]))
    write_stored(folder / WEIGHTS, found, {"format": "pt"})
