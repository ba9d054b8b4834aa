"""Small Llama, Mistral, Qwen2 and Qwen3 folders of random weights, in the files that their makers publish."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

TEXTS = (
    "the green house stands here today, we buy two books now",
    "Das grüne Haus steht heute hier; wir kaufen 2 Bücher.",
    "зелёный дом стоит здесь сегодня",
    "绿色的房子今天在这里。हरा घर 오늘 초록 집",
    "  two  spaces\n\tand lines 🏠🙂",
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
BASE: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}
HOSTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with every head its own and tied": {
        "model_type": "llama", "num_key_value_heads": 4, "tie_word_embeddings": True,
    },
    "llama 3.1": {"model_type": "llama", "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
    "llama with linear rope and biases": {
        "model_type": "llama", "attention_bias": True, "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "mistral": {"model_type": "mistral", "num_key_value_heads": 1, "sliding_window": 64},
    "mistral with a head size": {"model_type": "mistral", "head_dim": 20, "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "rope_theta": 1000000.0, "use_sliding_window": False, "sliding_window": 64},
    "qwen2 tied": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 24, "rope_theta": 1000000.0, "use_sliding_window": False},
    "qwen3 tied": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True, "attention_bias": True},
    "smollm2": {
        "model_type": "llama", "num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48,
        "tie_word_embeddings": True, "rope_theta": 100000.0,
    },
}  # fmt: skip
"""Changes to `BASE`, in the keys of the published files (transformers 4)."""
PADDED = 64
"""Embedding heights are multiples of this, beyond the tokenizer's length."""


CHAT = (
    "{%- for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + eos_token }}\n"
    "{%- endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template as SmolLM2 and Qwen have it, which also spells a role."""


def write_chat(folder: Path, *, as_file: bool) -> None:
    """Give a host's folder a chat template, in a file of its own or as an entry, and a way to generate."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if as_file:
        (folder / "chat_template.jinja").write_text(CHAT)
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates/short.jinja").write_text("{{ messages[0]['content'] }}")
    else:
        path.write_text(json.dumps({**config, "chat_template": CHAT}))
    generation = {"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(generation))


def write_tokenizer(folder: Path, kind: str) -> int:
    """`tokenizer.json` of the family and its `tokenizer_config.json`; returns its length."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "mistral":  # sentencepiece's BPE, as converted by its makers
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        names: dict[str, str | None] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    else:  # bytes, as in Llama 3 and Qwen
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC() if kind.startswith("qwen") else None
        split = pre_tokenizers.Split(_regex(), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = []
        names = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        if kind == "llama":
            names = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=[] if special else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    value = json.loads(tokenizer.to_str())
    value["added_tokens"] = [one for one in value["added_tokens"] if not one["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(value))
    added = [name for name in names.values() if name]
    tokenizer.add_special_tokens(added)
    if kind == "qwen3":
        tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    classes = {"qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "mistral": "LlamaTokenizer"}
    config = {**names, "tokenizer_class": classes.get(kind, "PreTrainedTokenizerFast"), "model_max_length": 256}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return tokenizer.get_vocab_size()


def _regex() -> Any:
    from tokenizers import Regex

    return Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")


def write_host(folder: Path, name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> int:
    """Write the folder of `HOSTS[name]`, several weight files and an index; returns the tokenizer's length."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True)
    value = {**BASE, **HOSTS[name], **changes}
    length = write_tokenizer(folder, value["model_type"])
    value["vocab_size"] = -(-(length + 1) // PADDED) * PADDED
    value["torch_dtype"] = str(dtype).removeprefix("torch.")
    value["bos_token_id"], value["eos_token_id"] = 1, [2, 5]
    torch.manual_seed(7)
    config = AutoConfig.for_model(**value)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # biases and norms of fresh models are zeros and ones, of published ones neither
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * (0.15 if weight.ndim == 2 else 0.3))
        for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            table.add_(torch.randn(table.shape[1]) * 0.3)  # rows of published models share a mean
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB")
    value["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(value))
    return length
