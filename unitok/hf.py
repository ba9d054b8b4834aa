"""Checkpoints in the names and files of Hugging Face: `core/` of a model directory is one.

The name map is explicit and works both ways; a key that it does not know is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.decoder import Decoder, DecoderConfig
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, write_json

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def to_hf_config(config: DecoderConfig, *, bos: int, eos: int, pad: int, dtype: str = "float32") -> dict[str, Any]:
    """`config.json` of the stock class that computes the same function."""
    kind = "qwen3" if config.qk_norm else "qwen2" if config.attention_bias else "llama"
    value: dict[str, Any] = {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.ffn_dim,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default", **dict(config.rope_scaling or {})},
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        "hidden_act": "silu",
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": dtype,
    }
    if kind != "qwen2":
        value["attention_bias"] = config.attention_bias
    return value


def from_hf_config(value: Mapping[str, Any], where: Path) -> DecoderConfig:
    """The shape that a `config.json` describes.

    Raises:
        InputError: a model type or option that the decoder does not compute.
    """
    kind = value.get("model_type")
    if kind not in MODEL_TYPES:
        raise InputError(f"{where}: model_type is {kind!r}; {', '.join(MODEL_TYPES)} can be imported")
    if value.get("hidden_act", "silu") != "silu" or value.get("mlp_bias"):
        raise InputError(
            f"{where}: hidden_act {value.get('hidden_act')!r} or mlp_bias is not supported (silu, no bias)"
        )
    sliding = value.get("sliding_window") if value.get("use_sliding_window", kind == "mistral") else None
    positions = int(value.get("max_position_embeddings", 4096))
    if sliding is not None and sliding < positions:
        positions = int(sliding)  # within one window, windowed attention is plain causal attention
    rope = dict(value.get("rope_parameters") or {})
    old = value.get("rope_scaling")
    theta = rope.pop("rope_theta", value.get("rope_theta", 10000.0))
    scaling = dict(old) if old else rope
    if scaling.get("rope_type", scaling.get("type", "default")) == "default":
        scaling = {}
    heads = int(value["num_attention_heads"])
    return DecoderConfig(
        vocab_size=int(value["vocab_size"]),
        width=int(value["hidden_size"]),
        layers=int(value["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(value.get("num_key_value_heads") or heads),
        head_size=value.get("head_dim"),
        ffn=int(value["intermediate_size"]),
        rope_theta=float(theta),
        rope_scaling=scaling or None,
        norm_eps=float(value["rms_norm_eps"]),
        qk_norm=kind == "qwen3",
        attention_bias=kind == "qwen2" or bool(value.get("attention_bias")),
        tied=bool(value.get("tie_word_embeddings", kind != "mistral" and kind != "llama")),
        max_positions=positions,
    )


def to_hf_state(decoder: Decoder) -> dict[str, Tensor]:
    """Weights under the stock names: the joined matrices split."""
    config = decoder.config
    head, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    state = {"model.embed_tokens.weight": decoder.embedding, "model.norm.weight": decoder.norm}
    if decoder.head is not None:
        state["lm_head.weight"] = decoder.head
    for index, block in enumerate(decoder.blocks):
        prefix = f"model.layers.{index}"
        attention = f"{prefix}.self_attn"
        state[f"{prefix}.input_layernorm.weight"] = block.norm
        state[f"{prefix}.post_attention_layernorm.weight"] = block.feed_forward.norm
        for name, part in zip("qkv", block.qkv.split([head, group, group])):
            state[f"{attention}.{name}_proj.weight"] = part
        state[f"{attention}.o_proj.weight"] = block.out
        if block.qkv_bias is not None:
            for name, part in zip("qkv", block.qkv_bias.split([head, group, group])):
                state[f"{attention}.{name}_proj.bias"] = part
            if config.qk_norm or block.out_bias is not None:  # Qwen2 has no output bias, the others have one
                bias = block.out_bias if block.out_bias is not None else torch.zeros(config.width)
                state[f"{attention}.o_proj.bias"] = bias
        if block.q_norm is not None:
            state[f"{attention}.q_norm.weight"] = block.q_norm
            state[f"{attention}.k_norm.weight"] = block.k_norm
        gate, up = block.feed_forward.gate_up.chunk(2)
        state[f"{prefix}.mlp.gate_proj.weight"] = gate
        state[f"{prefix}.mlp.up_proj.weight"] = up
        state[f"{prefix}.mlp.down_proj.weight"] = block.feed_forward.down
    return {name: value.detach().contiguous() for name, value in state.items()}


@torch.no_grad()
def load_hf_state(decoder: Decoder, state: Mapping[str, Tensor], where: Path | str = "the checkpoint") -> None:
    """Copy stock-named weights into a decoder.

    Raises:
        InputError: a missing, unknown or wrongly shaped weight, by name.
    """
    rest = {name: value for name, value in state.items() if not name.endswith("rotary_emb.inv_freq")}
    if decoder.config.tied:
        rest.pop("lm_head.weight", None)
    for index, block in enumerate(decoder.blocks):
        if f"model.layers.{index}.self_attn.o_proj.bias" in rest and block.out_bias is None:
            block.out_bias = torch.nn.Parameter(torch.zeros(decoder.config.width))
    wanted = to_hf_state(decoder)
    for name in wanted:
        if name not in rest:
            raise InputError(
                f"{where}: weight {name!r} is missing; the folder is incomplete or of another architecture"
            )
    for name, value in rest.items():
        if name not in wanted:
            raise InputError(f"{where}: unknown weight {name!r}; the architecture differs from its config.json")
        if wanted[name].shape != value.shape:
            raise InputError(
                f"{where}: {name!r} is {tuple(value.shape)}, config.json means {tuple(wanted[name].shape)}"
            )
    _copy(decoder, {name: value for name, value in rest.items()})


def _copy(decoder: Decoder, state: Mapping[str, Tensor]) -> None:
    decoder.embedding.copy_(state["model.embed_tokens.weight"])
    decoder.norm.copy_(state["model.norm.weight"])
    if decoder.head is not None:
        decoder.head.copy_(state["lm_head.weight"])
    for index, block in enumerate(decoder.blocks):
        prefix = f"model.layers.{index}"
        attention = f"{prefix}.self_attn"
        block.norm.copy_(state[f"{prefix}.input_layernorm.weight"])
        block.feed_forward.norm.copy_(state[f"{prefix}.post_attention_layernorm.weight"])
        block.qkv.copy_(torch.cat([state[f"{attention}.{name}_proj.weight"] for name in "qkv"]))
        block.out.copy_(state[f"{attention}.o_proj.weight"])
        if block.qkv_bias is not None:
            block.qkv_bias.copy_(torch.cat([state[f"{attention}.{name}_proj.bias"] for name in "qkv"]))
        if block.out_bias is not None and f"{attention}.o_proj.bias" in state:
            block.out_bias.copy_(state[f"{attention}.o_proj.bias"])
        if block.q_norm is not None and block.k_norm is not None:
            block.q_norm.copy_(state[f"{attention}.q_norm.weight"])
            block.k_norm.copy_(state[f"{attention}.k_norm.weight"])
        names = ("gate_proj", "up_proj")
        block.feed_forward.gate_up.copy_(torch.cat([state[f"{prefix}.mlp.{name}.weight"] for name in names]))
        block.feed_forward.down.copy_(state[f"{prefix}.mlp.down_proj.weight"])


def read_state(folder: Path) -> dict[str, Tensor]:
    """All weights of `model.safetensors`, or of the files that its index names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    names = sorted(set(read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: file name {name!r} leaves the folder; the index is not to be trusted")
        if not (folder / name).exists():
            raise InputError(f"{folder}: {name} is missing; give a folder with safetensors weights")
        try:
            state.update(load_file(folder / name))
        except SafetensorError as error:
            raise InputError(f"{folder / name}: not readable ({error}); copy the file again") from error
    return state


def save_core(decoder: Decoder, folder: Path, *, bos: int, eos: int, pad: int) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` opens."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_hf_config(decoder.config, bos=bos, eos=eos, pad=pad))
    save_file(to_hf_state(decoder), folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "do_sample": False}
    write_json(folder / "generation_config.json", generation)


def load_core(folder: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """Read such a folder into a decoder."""
    decoder = Decoder(from_hf_config(read_json(folder / "config.json"), folder))
    load_hf_state(decoder, read_state(folder), folder)
    return decoder.to(dtype).eval()


@torch.no_grad()
def expand_vocabulary(decoder: Decoder, size: int, old_size: int, *, generator: torch.Generator) -> Decoder:
    """The same decoder with `size` rows: the first `old_size` are kept, the new ones drawn on the old ones' scale.

    `old_size` is the length of the host's tokenizer; rows behind it are padding of its embedding and are dropped.
    """
    values = {**decoder.config.__dict__, "vocab_size": size}
    grown = Decoder(DecoderConfig(**values), generator=generator)
    for (_, new), (name, old) in zip(grown.named_parameters(), decoder.named_parameters()):
        if name in ("embedding", "head"):
            kept = old[:old_size]
            new[:old_size].copy_(kept)
            new[old_size:].normal_(0.0, 1.0, generator=generator).mul_(kept.std()).add_(kept.mean(0))
        else:
            new.copy_(old)
    return grown.eval()


def hf_tokenizer_json(pieces: list[tuple[str, float]], names: list[str], text_size: int, unk: int) -> str:
    """`tokenizer.json` of unigram pieces with byte fallback and our tokens added behind them.

    Every added token is one id and is matched as a whole; the pieces reproduce sentencepiece without a dummy prefix.
    """
    added = [
        {
            "id": index,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": False,
        }
        for index, name in enumerate(names)
        if index >= text_size
    ]
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {"type": "Unigram", "unk_id": unk, "vocab": pieces, "byte_fallback": True},
    }
    return json.dumps(value, ensure_ascii=False)
