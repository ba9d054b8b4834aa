"""Moshi: at every frame an id of text, its own codes and the user's; a depth decoder with weights of each step.

That is `layouts.step_depth`. Rows of the core are those of the text, the last of them the one that begins: it is never
written, so that its row of the head is zeros. Q codebooks, V codes of each, T ids of text, C width, D width of the
depth decoder, I its inner width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Decoder
from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.helium import DEFAULTS, helium_config, helium_state, load_helium
from unitok.huggingface.codebooks.parts import mimi_rate, nothing_left, prefixed, take, take_all, whole_numbers
from unitok.huggingface.weights import read_state
from unitok.layouts.step_depth import StepBlock, StepDepthConfig, StepDepthLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.held_rows import Held
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.text.huggingface import HostText

DECODER, DEPTH, CODEC = "decoder.", "depth_decoder.", "audio_encoder."
BLOCK: Mapping[str, str] = {
    "norm": "input_layernorm.weight",
    "ffn_norm": "post_attention_layernorm.weight",
    "q": "self_attn.q_proj.linear.weight",
    "k": "self_attn.k_proj.linear.weight",
    "v": "self_attn.v_proj.linear.weight",
    "out": "self_attn.o_proj.linear.weight",
    "gate_up": "mlp.fc1.weight",
    "down": "mlp.fc2.weight",
}
"""Weight of a block of the depth decoder → its maker's name; all are stored as they are used."""


class Moshi:
    """Folders of `MoshiForConditionalGeneration`."""

    name = "moshi"

    def claims(self, folder: HostFolder) -> bool:
        """As `Family`."""
        return folder.config.get("model_type") == "moshi"

    def read(self, folder: HostFolder) -> Brought:
        """As `Family`."""
        config, where = folder.config, folder.root
        sizes = ("num_codebooks", "audio_vocab_size", "vocab_size", "hidden_size")
        books, codes, ids, width = whole_numbers(config, sizes, where)
        state, options = read_state(where), _options(folder)
        decoder = Decoder(helium_config(config, ids + 1, where))
        head = take(state, f"{DECODER}lm_head.weight", (ids, width), where)
        table = take(state, f"{DECODER}model.embed_tokens.weight", (ids + 1, width), where)
        load_helium(decoder, state, f"{DECODER}model.", table, torch.cat([head, head.new_zeros(1, width)]), where)
        stream = StreamInfo(
            "mimi", "codes", f"moshi-mimi-{codes}", mimi_rate(config.get("audio_encoder_config")), (codes,) * books
        )
        layout = StepDepthLayout(options, StepDepthLayout.pattern_for(stream, options), width=width)
        _load_layout(layout, folder, state)
        rest = prefixed(CODEC, take_all(state, CODEC))
        nothing_left(state, where)
        text = HostText.from_folder(where, text_ids=ids)
        held: tuple[Held, ...] = (ids + 1 - text.size, (stream, layout.pattern))
        return Brought(decoder=decoder.eval(), text=text, held=held, layout=layout.eval(), rest=rest)

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """As `Family`."""
        layout, ids = leaving.layout, int(leaving.config["vocab_size"])
        assert isinstance(layout, StepDepthLayout), "a Moshi has a depth decoder"
        weights, table, head = helium_state(leaving.decoder, f"{DECODER}model.")
        return {
            **weights,
            f"{DECODER}model.embed_tokens.weight": table[: ids + 1],
            f"{DECODER}lm_head.weight": head[:ids],
            **_layout_state(layout),
            **leaving.rest,
        }


def _options(folder: HostFolder) -> StepDepthConfig:
    """The depth decoder's shape; InputError where it does not go with the rest, or computes what nothing here does."""
    config, where = folder.config, folder.root
    found = config.get("depth_decoder_config")
    if not isinstance(found, Mapping):
        raise InputError(f"{where}: config.json has no depth_decoder_config; give the whole file of the model")
    full: dict[str, Any] = {**DEFAULTS, "hidden_act": "silu", **found}
    for mine, theirs in (("hidden_size", "input_size"), *((one, one) for one in ("audio_vocab_size", "num_codebooks"))):
        if full.get(theirs, config[mine]) != config[mine]:
            raise InputError(
                f"{where}: {mine} is {config[mine]}, {theirs} of depth_decoder_config {full[theirs]}; "
                "give the whole file of the model"
            )
    if full["hidden_act"] != "silu":
        raise InputError(f"{where}: hidden_act {full['hidden_act']!r} of depth_decoder_config is not supported (silu)")
    window = full["sliding_window"]
    if window is not None and window < config["num_codebooks"]:
        raise InputError(f"{where}: the depth decoder's window of {window} is shorter than its steps")
    size, layers, heads, inner = whole_numbers(
        full, ("hidden_size", "num_hidden_layers", "num_attention_heads", "ffn_dim"), where
    )
    return StepDepthConfig(
        text_rows=int(config["vocab_size"]) + 1,
        size=size,
        layers=layers,
        heads=heads,
        kv_heads=int(full.get("num_key_value_heads") or heads),
        head_size=int(full.get("head_dim") or size // heads),
        ffn=inner // 2,
        norm_eps=float(full["rms_norm_eps"]),
    )


@torch.no_grad()
def _load_layout(layout: StepDepthLayout, folder: HostFolder, state: dict[str, Tensor]) -> None:
    """Fill the layout with weights, which leave `state`."""
    for name, wanted in _layout_state(layout).items():
        wanted.copy_(take(state, name, tuple(wanted.shape), folder.root))


def _layout_state(layout: StepDepthLayout) -> dict[str, Tensor]:
    """The layout's weights by their makers' names: the very ones, or views of them."""
    found = {
        f"{DEPTH}text_embed_tokens.weight": layout.id_table.detach(),
        f"{DEPTH}input_projections.weight": layout.projection.detach(),
        f"{DEPTH}lm_heads.weight": layout.heads.weight.detach(),
    }
    for prefix, tables in (("", layout.tables), (DEPTH, layout.own_tables)):
        weight, rows = tables.weight.detach(), layout.pattern.slots[0].size + 1
        for index, table in enumerate(weight.chunk(len(weight) // rows)):
            found[f"{prefix}embed_tokens.{index}.weight"] = table
    for index, block in enumerate(layout.blocks):
        assert isinstance(block, StepBlock)
        for name, stock in BLOCK.items():
            found[f"{DEPTH}layers.{index}.{stock}"] = getattr(block, name).detach()
    return found
