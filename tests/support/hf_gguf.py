"""GGUF files of small hosts, as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def write_gguf(host: Path, path: Path, *, pre: str, quantized: bool = False, **more: Any) -> None:
    """Write the weights and the byte-level tokenizer of a host's folder; `more` are further fields."""
    import gguf

    from unitok.huggingface.weights import read_state

    config = json.loads((host / "config.json").read_text())
    state = {name: value.float().numpy() for name, value in read_state(host).items()}
    kind, heads = config["model_type"], config["num_attention_heads"]
    writer = gguf.GGUFWriter(path, kind)
    writer.add_name("tiny")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    for name, value in more.items():
        writer.add_string(name.replace("__", "."), value)
    _add_tokenizer(writer, host, config, pre)
    for theirs, ours in TOP.items():
        if f"{ours}.weight" in state:
            _add(writer, f"{theirs}.weight", state.pop(f"{ours}.weight"), quantized)
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in LAYER.items():
            for part in ("weight", "bias"):
                value = state.pop(f"model.layers.{layer}.{ours}.{part}", None)
                if value is None:
                    continue
                if kind == "llama" and theirs in ("attn_q", "attn_k"):  # rotary pairs stand beside each other there
                    count = heads if theirs == "attn_q" else config["num_key_value_heads"]
                    value = value.reshape(count, 2, -1, *value.shape[1:]).swapaxes(1, 2).reshape(value.shape)
                _add(writer, f"blk.{layer}.{theirs}.{part}", value, quantized)
    assert not state, f"no place for {min(state)}"
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: Any, name: str, value: np.ndarray, quantized: bool) -> None:
    import gguf

    value = np.ascontiguousarray(value)
    if quantized and value.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(value, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, value)


def _add_tokenizer(writer: Any, host: Path, config: dict[str, Any], pre: str) -> None:
    value = json.loads((host / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"[PAD{index}]" for index in range(config["vocab_size"])]
    types = [5] * len(tokens)  # unused
    for token, index in value["model"]["vocab"].items():
        tokens[index], types[index] = token, 1
    for one in value["added_tokens"]:
        tokens[one["id"]], types[one["id"]] = one["content"], 3 if one["special"] else 4
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = value["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}")
