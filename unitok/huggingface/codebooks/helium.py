"""The Llama that Kyutai's models are built on (Helium), in the names of Moshi's classes: gate and up in one matrix.

C width, I inner width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.codebooks.parts import prefixed, take_all
from unitok.huggingface.weights import from_hf_config, load_hf_state, to_hf_state
from unitok_tokenizers.errors import InputError

DEFAULTS: Mapping[str, Any] = {"rms_norm_eps": 1e-8, "sliding_window": None}
"""What their classes assume where `config.json` leaves a key out, and Llama's do not."""
FUSED, DOWN = re.compile(r"(.*\.mlp\.)fc1\.weight"), re.compile(r"(.*\.mlp\.)fc2\.weight")


def helium_config(config: Mapping[str, Any], rows: int, where: Path) -> DecoderConfig:
    """The shape that a `config.json` describes, with so many rows.

    Raises:
        InputError: an option that is not computed here.
    """
    inner = config.get("ffn_dim")
    if not isinstance(inner, int) or inner < 2 or inner % 2:
        raise InputError(f"{where}: ffn_dim is {inner!r} in config.json; give the whole file of the model")
    full = {**DEFAULTS, **config}
    return from_hf_config(
        {
            **full,
            "model_type": "mistral",
            "vocab_size": rows,
            "intermediate_size": inner // 2,
            "num_key_value_heads": full.get("num_key_value_heads"),
            "max_position_embeddings": full.get("max_position_embeddings", 2048),
            "tie_word_embeddings": False,
        },
        where,
    )


@torch.no_grad()
def load_helium(
    decoder: Decoder, state: dict[str, Tensor], prefix: str, table: Tensor, head: Tensor, where: Path
) -> None:
    """Fill a decoder with the weights under a prefix, which leave `state`, and with tables (V, C)."""
    stock: dict[str, Tensor] = {"model.embed_tokens.weight": table, "lm_head.weight": head}
    for name, value in take_all(state, prefix).items():
        if found := FUSED.fullmatch(name):
            stock[f"model.{found[1]}gate_proj.weight"], stock[f"model.{found[1]}up_proj.weight"] = value.chunk(2)
        elif found := DOWN.fullmatch(name):
            stock[f"model.{found[1]}down_proj.weight"] = value
        else:
            stock[f"model.{name.replace('_proj.linear.weight', '_proj.weight')}"] = value
    load_hf_state(decoder, stock, where)


def helium_state(decoder: Decoder, prefix: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The inverse of `load_helium`: (weights, rows, head)."""
    state = to_hf_state(decoder)
    table, head = (state.pop(name) for name in ("model.embed_tokens.weight", "lm_head.weight"))
    found = {}
    for name, value in state.items():
        name = name.removeprefix("model.")
        if name.endswith("gate_proj.weight"):
            up = state[f"model.{name.replace('gate_proj', 'up_proj')}"]
            found[name.replace("gate_proj", "fc1")] = torch.cat([value, up])
        elif name.endswith("down_proj.weight"):
            found[name.replace("down_proj", "fc2")] = value
        elif not name.endswith("up_proj.weight"):
            found[name.replace("_proj.weight", "_proj.linear.weight")] = value
    return prefixed(prefix, found), table, head
