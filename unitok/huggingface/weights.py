"""Checkpoints in the names and files of Hugging Face: `core/` of a model directory is one.

The name map is explicit and works both ways; a key that it does not know is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok.decoder.model import Decoder, DecoderConfig, FeedForward
from unitok.decoder.moe import mixture_factory, mixtures
from unitok.huggingface.attention_keys import above_zero, rope_of, window_of
from unitok.huggingface.new_rows import NewRows
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_object, write_json

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


# What the stock classes assume where `config.json` leaves a key out.
COMMON_DEFAULTS: Mapping[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "rope_theta": 10000.0,
}
QWEN_WINDOW: Mapping[str, Any] = {"sliding_window": 4096, "max_window_layers": 28}
"""Only with `use_sliding_window`."""
FAMILY_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "max_position_embeddings": 32768, **QWEN_WINDOW},
    "qwen3": {"num_key_value_heads": 32, "max_position_embeddings": 32768, "head_dim": 128, **QWEN_WINDOW},
}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
WEIGHT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types of weights that are what they say: integers and float8 need scales, which the stock names have no place for."""
INV_FREQ = re.compile(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def stock_class(config: DecoderConfig, *, output_bias: bool = False) -> str:
    """The model type that computes the same function as a decoder of this shape."""
    if config.qk_norm:
        return "qwen3"
    if config.attention_bias and not output_bias:
        return "qwen2"
    if config.window is not None and config.attention_bias:
        raise InputError("a decoder with a window and a bias of the attention's output fits no stock class")
    # Stock Llama refuses a width that is no multiple of the heads; Mistral is the same function without that check.
    plain = config.attention_bias or (config.width % config.heads == 0 and config.window is None)
    return "llama" if plain else "mistral"


def to_hf_config(
    config: DecoderConfig, *, bos: int, eos: int, pad: int, dtype: str = "float32", output_bias: bool = False
) -> dict[str, Any]:
    """`config.json` of the stock class that computes the same function.

    Args:
        config: the decoder's shape.
        bos: id of the beginning of a sequence; eos and pad likewise.
        dtype: type of the weights beside it.
        output_bias: whether the attention's output has a bias, as in a Llama with `attention_bias`.
    """
    kind = stock_class(config, output_bias=output_bias)
    scaling = {"rope_type": "default", **(config.rope_scaling or {})}
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
        "rope_parameters": {"rope_theta": config.rope_theta, **scaling},
        # transformers 4 reads these, and without them takes a base of 10,000 and no scaling without a word
        "rope_theta": config.rope_theta,
        **({"rope_scaling": dict(config.rope_scaling)} if config.rope_scaling else {}),
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        "hidden_act": "silu",
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "dtype": dtype,
    }
    if kind in ("llama", "qwen3"):
        value["attention_bias"] = config.attention_bias
    if kind == "mistral":
        value["sliding_window"] = config.window
    elif config.window is not None:  # in every layer
        value |= {"use_sliding_window": True, "sliding_window": config.window, "max_window_layers": 0}
    if config.prefix_lm:
        value["prefix_lm"] = True  # no stock class knows it: `export_hf` refuses such a model
    return value


def from_hf_config(value: Mapping[str, Any], where: Path) -> DecoderConfig:
    """The shape that a `config.json` describes, in the keys of transformers 4 or 5.

    Raises:
        InputError: a model type or option that the decoder does not compute, or a size that is missing.
    """
    kind = value.get("model_type")
    if kind not in MODEL_TYPES:
        raise InputError(f"{where}: model_type is {kind!r}; {', '.join(MODEL_TYPES)} can be imported")
    full = {**COMMON_DEFAULTS, **FAMILY_DEFAULTS[kind], **value}
    _check_options(full, where)
    heads = int(full["num_attention_heads"])
    theta, scaling = rope_of(full, where)
    window, everywhere = window_of(full, where)
    positions = int(full["max_position_embeddings"])
    return DecoderConfig(
        vocab_size=int(full["vocab_size"]),
        width=int(full["hidden_size"]),
        layers=int(full["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(full.get("num_key_value_heads") or heads),
        head_size=full.get("head_dim"),
        ffn=int(full["intermediate_size"]),
        rope_theta=theta,
        rope_scaling=scaling,
        norm_eps=float(full["rms_norm_eps"]),
        qk_norm=kind == "qwen3",
        attention_bias=kind == "qwen2" or (kind != "mistral" and bool(full["attention_bias"])),
        tied=bool(full["tie_word_embeddings"]),
        # Where some layers alone have a window, it ends what is read: within it, their attention is that of the others.
        max_positions=positions if window is None or everywhere else min(positions, window),
        prefix_lm=bool(value.get("prefix_lm")),
        window=window if everywhere else None,
    )


def _check_options(full: Mapping[str, Any], where: Path) -> None:
    for key in SIZES:
        if not isinstance(full.get(key), int) or full[key] < 1:
            raise InputError(f"{where}: {key} is {full.get(key)!r} in config.json; give the whole file of the model")
    for key in ("head_dim", "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta"):
        value, left_out = full.get(key), key in ("head_dim", "num_key_value_heads")
        wanted = int | float if key in ("rms_norm_eps", "rope_theta") else int
        if not (left_out and value is None) and not above_zero(value, wanted):
            raise InputError(
                f"{where}: {key} is {value!r} in config.json: it is a number above 0; take the model's file again"
            )
    for key in ("tie_word_embeddings", "attention_bias"):
        if not isinstance(full[key], bool):
            raise InputError(f"{where}: {key} is {full[key]!r} in config.json: true or false; take the file again")
    if full.get("quantization_config"):
        raise InputError(f"{where}: the weights are quantized; give the folder of the unquantized model")
    if full["hidden_act"] != "silu" or full.get("mlp_bias"):
        raise InputError(
            f"{where}: hidden_act {full['hidden_act']!r} or mlp_bias is not supported (silu, no bias); "
            "give a model without them"
        )


def _blocks(decoder: Decoder) -> list[Any]:
    """The blocks; torch types the items of a list of modules as plain modules."""
    return list(decoder.blocks)


def to_hf_state(decoder: Decoder, *, output_bias: bool = False) -> dict[str, Tensor]:
    """Weights under the stock names: the joined matrices split.

    `output_bias` gives the attention's output a bias of zeros where the decoder has none, for classes that want one.
    """
    config = decoder.config
    head, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    state: dict[str, Tensor] = {"model.embed_tokens.weight": decoder.embedding, "model.norm.weight": decoder.norm}
    if decoder.head is not None:
        state["lm_head.weight"] = decoder.head
    for index, block in enumerate(_blocks(decoder)):
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
            # Qwen2 has no output bias, the others have one.
            if config.qk_norm or output_bias or block.out_bias is not None:
                bias = block.out_bias if block.out_bias is not None else block.out.new_zeros(config.width)
                state[f"{attention}.o_proj.bias"] = bias
        if block.q_norm is not None:
            state[f"{attention}.q_norm.weight"] = block.q_norm
            state[f"{attention}.k_norm.weight"] = block.k_norm
        gate, up = block.feed_forward.gate_up.chunk(2)
        state[f"{prefix}.mlp.gate_proj.weight"] = gate
        state[f"{prefix}.mlp.up_proj.weight"] = up
        state[f"{prefix}.mlp.down_proj.weight"] = block.feed_forward.down
    return {name: value.detach().contiguous() for name, value in state.items()}


def with_its_head(config: DecoderConfig, state: Mapping[str, Tensor]) -> DecoderConfig:
    """The shape of a checkpoint: not tied where it holds a head of its own, whatever its `config.json` says.

    So does stock transformers 5: `tie_word_embeddings` beside a head that differs from the embedding is overruled. A
    head that is the embedding once more, as some tools write it, is what being tied means.
    """
    head, embedding = state.get("lm_head.weight"), state.get("model.embed_tokens.weight")
    if not config.tied or head is None or embedding is None or _same(head, embedding):
        return config
    return replace(config, tied=False)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.float(), other.float())


def _kept(decoder: Decoder, state: Mapping[str, Tensor], where: Path | str) -> dict[str, Tensor]:
    """A state without what a decoder computes by itself: rotary frequencies, and a head that is its embedding.

    Raises:
        InputError: numbers that are no floating-point weights, or a head that a tied decoder has no place for.
    """
    rest = {}
    for name, value in state.items():
        if INV_FREQ.fullmatch(name):  # a buffer that transformers before 4.31 stored; config.json says what it holds
            continue
        if value.dtype not in WEIGHT_TYPES:
            raise InputError(f"{where}: {name!r} is {value.dtype}; give the folder of the unquantized model")
        rest[name] = value
    if decoder.config.tied and (head := rest.pop("lm_head.weight", None)) is not None:
        embedding = rest.get("model.embed_tokens.weight")
        if embedding is not None and not _same(head, embedding):
            raise InputError(
                f"{where}: 'lm_head.weight' is not the embedding, which a tied decoder uses as its head; "
                "set tie_word_embeddings to false in config.json"
            )
    return rest


@torch.no_grad()
def load_hf_state(decoder: Decoder, state: Mapping[str, Tensor], where: Path | str = "the checkpoint") -> None:
    """Copy stock-named weights into a decoder.

    Raises:
        InputError: a missing, unknown, quantized or wrongly shaped weight, or a head of a tied decoder, by name.
    """
    rest = _kept(decoder, state, where)
    output_biases = [value for name, value in rest.items() if name.endswith(".self_attn.o_proj.bias")]
    if any(value.any() for value in output_biases):  # zeros are what a class wants that the decoder does without
        for block in _blocks(decoder):
            block.out_bias = torch.nn.Parameter(torch.zeros(decoder.config.width))
    wanted = to_hf_state(decoder, output_bias=bool(output_biases))
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
    _copy(decoder, rest)


def _copy(decoder: Decoder, state: Mapping[str, Tensor]) -> None:
    decoder.embedding.copy_(state["model.embed_tokens.weight"])
    decoder.norm.copy_(state["model.norm.weight"])
    if decoder.head is not None:
        decoder.head.copy_(state["lm_head.weight"])
    for index, block in enumerate(_blocks(decoder)):
        prefix = f"model.layers.{index}"
        attention = f"{prefix}.self_attn"
        block.norm.copy_(state[f"{prefix}.input_layernorm.weight"])
        block.feed_forward.norm.copy_(state[f"{prefix}.post_attention_layernorm.weight"])
        block.qkv.copy_(torch.cat([state[f"{attention}.{name}_proj.weight"] for name in "qkv"]))
        block.out.copy_(state[f"{attention}.o_proj.weight"])
        if block.qkv_bias is not None:
            block.qkv_bias.copy_(torch.cat([state[f"{attention}.{name}_proj.bias"] for name in "qkv"]))
        if block.out_bias is not None:
            block.out_bias.copy_(state[f"{attention}.o_proj.bias"])
        if block.q_norm is not None and block.k_norm is not None:
            block.q_norm.copy_(state[f"{attention}.q_norm.weight"])
            block.k_norm.copy_(state[f"{attention}.k_norm.weight"])
        names = ("gate_proj", "up_proj")
        block.feed_forward.gate_up.copy_(torch.cat([state[f"{prefix}.mlp.{name}.weight"] for name in names]))
        block.feed_forward.down.copy_(state[f"{prefix}.mlp.down_proj.weight"])


def read_state(folder: Path) -> dict[str, Tensor]:
    """All weights of `model.safetensors`, or of the files that an index names: the first that is there, as in stock.

    Raises:
        InputError: no such file, one that is damaged, or a weight that two files hold.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    index = folder / "model.safetensors.index.json"
    single = (folder / "model.safetensors").exists() or not index.exists()
    names = ["model.safetensors"] if single else _indexed(index)
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: file name {name!r} leaves the folder; the index is not to be trusted")
        if not (folder / name).exists():
            raise InputError(f"{folder}: {name} is missing; give a folder with safetensors weights")
        try:
            found = load_file(folder / name)
        except SafetensorError as error:
            raise InputError(f"{folder / name}: not readable ({error}); copy the file again") from error
        if twice := sorted(found.keys() & state.keys()):
            raise InputError(f"{folder / name}: weight {twice[0]!r} is in another file too; copy the folder again")
        state.update(found)
    return state


def _indexed(index: Path) -> list[str]:
    """Names of the files that an index sends weights to."""
    named = read_object(index).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(one, str) for one in named.values()):
        raise InputError(f"{index}: weight_map names no file for each weight; copy the file again")
    return sorted(set(named.values()))


def save_core(decoder: Decoder, folder: Path, *, bos: int, eos: int, pad: int, output_bias: bool = False) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` opens; `output_bias` as in `to_hf_state`."""
    from safetensors.torch import save_file

    output_bias = output_bias or any(block.out_bias is not None for block in _blocks(decoder))
    write_core_config(decoder.config, folder, bos=bos, eos=eos, pad=pad, output_bias=output_bias)
    state = {name: value.cpu() for name, value in to_hf_state(decoder, output_bias=output_bias).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def write_core_config(
    config: DecoderConfig, folder: Path, *, bos: int, eos: int, pad: int, output_bias: bool = False
) -> None:
    """What stands beside the weights of `save_core`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", to_hf_config(config, bos=bos, eos=eos, pad=pad, output_bias=output_bias))
    generation = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "do_sample": False}
    write_json(folder / "generation_config.json", generation)


def load_core(folder: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    """Read such a folder into a decoder."""
    state = read_state(folder)
    decoder = Decoder(with_its_head(from_hf_config(read_object(folder / "config.json"), folder), state))
    load_hf_state(decoder, state, folder)
    return decoder.to(dtype).eval()


@torch.no_grad()
def expand_vocabulary(
    decoder: Decoder, size: int, old_size: int, *, generator: torch.Generator, rows: NewRows = NewRows()
) -> Decoder:
    """The same decoder with `size` rows: the first `old_size` are kept, the new ones are what `rows` makes of them.

    `old_size` is the length of the host's tokenizer; rows behind it are padding of its embedding and are dropped.
    """
    feeds = mixtures(decoder)
    factory = mixture_factory(feeds[0].mixture) if feeds else FeedForward
    grown = Decoder(replace(decoder.config, vocab_size=size), generator=generator, feed_forward=factory)
    for block, old_block in zip(_blocks(grown), _blocks(decoder)):
        if old_block.out_bias is not None:
            block.out_bias = torch.nn.Parameter(torch.zeros(decoder.config.width))
    made = rows.of(old_size, size - old_size, generator)
    old_parameters = dict(decoder.named_parameters())
    for name, new in grown.named_parameters():
        old = old_parameters.pop(name)
        if name in ("embedding", "head"):
            kept = old[:old_size]
            new[:old_size].copy_(kept)
            new[old_size:].copy_(made(kept))
        else:
            new.copy_(old)
    assert not old_parameters, f"not carried over: {list(old_parameters)}"
    return grown.to(decoder.embedding.dtype).eval()
