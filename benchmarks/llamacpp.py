"""The peer of decoding on processors: llama.cpp on the same weights, written as GGUF with ids and no tokenizer."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitok.decoder.model import Decoder
from unitok.huggingface.weights import to_hf_state

TYPES = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
"""Our precisions → ggml's nearest."""
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def missing() -> str:
    """Why llama.cpp cannot run here; empty where it can."""
    try:
        import gguf  # noqa: F401
        import llama_cpp  # noqa: F401
    except (ImportError, OSError) as error:
        return f"llama-cpp-python and gguf are not usable here ({error})"
    return ""


def ggml_name(name: str) -> str:
    """Hugging Face's name of a tensor → llama.cpp's."""
    ends = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
    if name in ends:
        return f"{ends[name]}.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix as llama.cpp rotates them: neighbors are pairs, not halves."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write(decoder: Decoder, path: Path, precision: str) -> Path:
    """Write a Llama-shaped decoder; norms stay float32."""
    import gguf

    config = decoder.config
    assert not config.qk_norm and not config.attention_bias and config.rope_scaling is None, "llama.cpp's `llama` shape"
    writer: Any = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    kind = getattr(gguf.GGMLQuantizationType, TYPES[precision])
    for name, value in to_hf_state(decoder).items():
        data = value.float().numpy()
        if name.endswith("q_proj.weight"):
            data = interleaved(data, config.heads)
        elif name.endswith("k_proj.weight"):
            data = interleaved(data, config.kv_heads)
        own = kind if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(ggml_name(name), gguf.quants.quantize(np.ascontiguousarray(data), own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class LlamaCpp:
    """A GGUF file, opened once, that continues ids greedily."""

    def __init__(self, path: Path, vocab_size: int, *, positions: int) -> None:
        import llama_cpp

        self.library, self.vocab_size = llama_cpp, vocab_size
        threads = torch.get_num_threads()
        self.model = llama_cpp.Llama(
            str(path), n_ctx=positions, n_batch=positions, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0,
            verbose=False,
        )  # fmt: skip

    def generate(self, prompt: np.ndarray, count: int) -> tuple[list[int], float]:
        """(ids, seconds) of `count` greedy ids after a prompt."""
        library, context = self.library, self.model.ctx
        library.llama_memory_clear(library.llama_get_memory(context), True)
        begin = time.perf_counter()
        found: list[int] = []
        ids = [int(one) for one in prompt]
        for _ in range(count):
            array = (ctypes.c_int32 * len(ids))(*ids)
            if library.llama_decode(context, library.llama_batch_get_one(array, len(ids))):
                raise RuntimeError("llama_decode failed")
            logits = np.ctypeslib.as_array(library.llama_get_logits_ith(context, -1), (self.vocab_size,))
            ids = [int(logits.argmax())]
            found += ids
        return found, time.perf_counter() - begin
