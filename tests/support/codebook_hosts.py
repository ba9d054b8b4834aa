"""Tiny folders of models that write codes, of random weights, as the classes of their makers save them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.support.command import works, write_rows
from tests.support.hf_hosts import BASE, write_tokenizer

FLAT = {
    "orpheus": [f"<custom_token_{number}>" for number in range(10 + 7 * 4096 + 2)],
    "llasa": ["<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>", *(f"<|s_{code}|>" for code in range(48))],
}
"""Family → the tokens that its folders add to those of Llama."""


def lively(model: nn.Module, seed: int = 7) -> None:
    """Weights at which logits differ by position: fresh norms are ones and fresh matrices nearly nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (0.2 if weight.ndim > 1 else 0.1))


def add_tokens(folder: Path, tokens: list[str]) -> int:
    """Add special tokens to a folder's `tokenizer.json`; returns how many tokens there are."""
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text("utf-8"))
    first = 1 + max([*value["model"]["vocab"].values(), *(one["id"] for one in value["added_tokens"])])
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    value["added_tokens"] += [{"id": first + place, "content": one, **plain} for place, one in enumerate(tokens)]
    path.write_text(json.dumps(value), "utf-8")
    return first + len(tokens)


def write_flat(folder: Path, family: str, *, padding: int = 3, **changes: Any) -> None:
    """The folder of a flat family: a Llama with its tokens, and rows behind them that no token has."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    write_tokenizer(folder, "llama")
    size = add_tokens(folder, FLAT[family]) + padding
    value = {**BASE, "hidden_size": 16, "intermediate_size": 24, "vocab_size": size, **changes}
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**value, bos_token_id=1, eos_token_id=2))
    lively(model)
    model.save_pretrained(folder)


def mimi_config() -> dict[str, Any]:
    """`codec_config` of a codec that nothing here runs."""
    from tests.support.codecs import MIMI

    return {**MIMI, "model_type": "mimi"}


def write_csm(folder: Path, **changes: Any) -> None:
    """A folder of `CsmForConditionalGeneration`: four codebooks, a codec, rows of text behind the tokenizer's."""
    from transformers import CsmConfig, CsmForConditionalGeneration

    folder.mkdir(parents=True)
    rows = write_tokenizer(folder, "llama") + 3
    shape = {"num_codebooks": 4, "vocab_size": 19, "num_key_value_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5}
    depth = {
        **shape, "backbone_hidden_size": 32, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 5,
    }  # fmt: skip
    roles = {"bos_token_id": 1, "pad_token_id": 3, "audio_token_id": 4, "audio_eos_token_id": 5}
    value = {
        **shape, **roles, "text_vocab_size": rows, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 128, "codebook_pad_token_id": 18,
        "codebook_eos_token_id": 0, "depth_decoder_config": depth, "codec_config": mimi_config(), **changes,
    }  # fmt: skip
    torch.manual_seed(7)
    model = CsmForConditionalGeneration(CsmConfig(**value))
    lively(model)
    model.save_pretrained(folder)


HELIUM = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "ffn_dim": 96,
    "max_position_embeddings": 64, "sliding_window": 40,
}  # fmt: skip
"""The decoder of Kyutai's models, small."""


def write_moshi(folder: Path, **changes: Any) -> None:
    """A folder of `MoshiForConditionalGeneration`: four codebooks of each side, a codec."""
    from transformers import MoshiConfig, MoshiForConditionalGeneration

    folder.mkdir(parents=True)
    rows = write_tokenizer(folder, "mistral") + 2
    depth = {
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 40,
        "max_position_embeddings": 5, "sliding_window": 4,
    }  # fmt: skip
    value = {**HELIUM, "vocab_size": rows, "num_codebooks": 4, "audio_vocab_size": 32, **changes}
    config = MoshiConfig(**value, audio_encoder_config=mimi_config(), depth_decoder_config=depth)
    torch.manual_seed(7)
    model = MoshiForConditionalGeneration(config)
    with torch.no_grad():  # matrices of each step are drawn at a scale that drowns everything
        for weight in model.depth_decoder.parameters():
            if weight.ndim == 3:
                weight.mul_(0.2)
    lively(model)
    model.save_pretrained(folder)


def write_kyutai_stt(folder: Path, **changes: Any) -> None:
    """A folder of `KyutaiSpeechToTextForConditionalGeneration` whose text begins with a row among those of codes."""
    from transformers import KyutaiSpeechToTextConfig, KyutaiSpeechToTextForConditionalGeneration

    folder.mkdir(parents=True)
    rows, books, codes = write_tokenizer(folder, "mistral") + 2, 4, 33
    value = {
        **HELIUM, "vocab_size": rows, "num_codebooks": books, "codebook_vocab_size": codes, "audio_bos_token_id": 32,
        "audio_pad_token_id": rows + books * codes, "bos_token_id": rows + 40, "pad_token_id": 3,
        "codec_config": mimi_config(), **changes,
    }  # fmt: skip
    torch.manual_seed(7)
    model = KyutaiSpeechToTextForConditionalGeneration(KyutaiSpeechToTextConfig(**value))
    lively(model)
    model.save_pretrained(folder)


def fine_tune(
    root: Path, rows: list[dict[str, Any]], streams: dict[str, dict[str, Any]], *, task: str, steps: int = 12
) -> None:
    """Fine-tune ROOT/model on rows of text and of streams made elsewhere, by commands, into ROOT/run, for one task."""
    manifest, described = write_rows(root / "m.jsonl", rows), list[object]()
    for name, value in streams.items():
        (root / f"{name}.json").write_text(json.dumps(value))
        described += ["--stream", f"{name}={root / name}.json"]
    works("prepare", manifest, root / "shards", "--tokenizers", root / "model/tokenizers", *described)
    small = ("pack_size=256", "window=32", "checkpoint_every=1000", "log_every=1", "packs_per_step=1")
    changes = [*(f"train.{one}" for one in small), f"train.steps={steps}", "train.optim.warmup_steps=1"]
    changes += [f"mixture={json.dumps({'only': {task: 1.0}})}"]
    for part in ("decoder", "embeddings"):
        changes += [f"tuning.{part}.start_step=2", f"tuning.{part}.learning_rate=0.003"]
    sets = [part for one in changes for part in ("--set", one)]
    works("train", "finetune", "--start", root / "model", "--shards", root / "shards", "-o", root / "run", *sets)
    lines = [json.loads(line) for line in (root / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0] - 0.5, losses
