"""A small random Whisper, and its folder in the layout of CTranslate2 (specs/whisper_spec.py), written by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

TYPES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.int32: 3, torch.float16: 4, torch.bfloat16: 5}
CONTROLS = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>")
WORDS = tuple("the green house stands here today now we buy two books she sings".split())


def tiny_whisper(*, seed: int = 0, spread: float = 0.3) -> Any:
    """WhisperForConditionalGeneration of 2 + 2 layers, windows of 1 s, a bias everywhere but the key's."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    size = len(WORDS) + len(CONTROLS)
    roles = {"bos_token_id": len(WORDS), "eos_token_id": len(WORDS), "pad_token_id": len(WORDS)}
    config = WhisperConfig(
        vocab_size=size, d_model=16, num_mel_bins=80, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=20, max_source_positions=50,
        max_target_positions=32, decoder_start_token_id=len(WORDS) + 1, suppress_tokens=None,
        begin_suppress_tokens=None, **roles,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape) * spread)
    return model


def tokenizer_json() -> Any:
    """A `tokenizers.Tokenizer` of whole words, controls behind them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = [*WORDS, *CONTROLS]
    made = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=WORDS[0]))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(CONTROLS))
    return made


def ct2_variables(model: Any) -> dict[str, torch.Tensor]:
    """Tensors and settings of the stock class by CTranslate2's names."""
    state = {name.removeprefix("model."): value for name, value in model.state_dict().items()}
    out: dict[str, torch.Tensor] = {"decoder/embeddings/weight": state["decoder.embed_tokens.weight"]}

    def put(target: str, sources: list[str]) -> None:
        for kind in ("weight", "bias"):
            rows = [state.get(f"{name}.{kind}", torch.zeros(model.config.d_model)) for name in sources]
            out[f"{target}/{kind}"] = torch.cat(rows)

    def norm(target: str, source: str) -> None:
        out[f"{target}/gamma"], out[f"{target}/beta"] = state[f"{source}.weight"], state[f"{source}.bias"]

    for side in ("encoder", "decoder"):
        out[f"{side}/num_heads"] = torch.tensor(2, dtype=torch.int16)
        out[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"{side}.layer_norm")
        for index in range(2):
            ours, theirs = f"{side}.layers.{index}", f"{side}/layer_{index}"
            put(f"{theirs}/self_attention/linear_0", [f"{ours}.self_attn.{name}_proj" for name in "qkv"])
            put(f"{theirs}/self_attention/linear_1", [f"{ours}.self_attn.out_proj"])
            norm(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm")
            if side == "decoder":
                put(f"{theirs}/attention/linear_0", [f"{ours}.encoder_attn.q_proj"])
                put(f"{theirs}/attention/linear_1", [f"{ours}.encoder_attn.{name}_proj" for name in "kv"])
                put(f"{theirs}/attention/linear_2", [f"{ours}.encoder_attn.out_proj"])
                norm(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm")
            norm(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm")
            put(f"{theirs}/ffn/linear_0", [f"{ours}.fc1"])
            put(f"{theirs}/ffn/linear_1", [f"{ours}.fc2"])
    for number in (1, 2):
        put(f"encoder/conv{number}", [f"encoder.conv{number}"])
    for name, value in {"activation": 3, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0}.items():
        out[f"decoder/{name}"] = torch.tensor(value, dtype=torch.int8)
    out["decoder/start_from_zero_embedding"] = torch.tensor(0, dtype=torch.int8)
    out["decoder/alignment_heads"] = torch.tensor(1, dtype=torch.int16)
    return out


def in_type(variables: Mapping[str, torch.Tensor], kind: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights as CTranslate2's `--quantization` writes them: int8 of matrices and convolutions with a scale a row."""
    out: dict[str, torch.Tensor] = {}
    for name, value in variables.items():
        if not value.is_floating_point():
            out[name] = value
        elif kind != torch.int8:
            out[name] = value.to(kind)
        elif value.ndim == 1 or name.endswith("encodings"):
            out[name] = value
        else:
            scale = 127.0 / value.flatten(1).abs().amax(1)
            out[name] = (value * scale.reshape(-1, *[1] * (value.ndim - 1))).round().to(torch.int8)
            out[f"{name}_scale"] = scale
    return out


def ct2_bytes(
    variables: Mapping[str, torch.Tensor],
    *,
    version: int = 6,
    spec: str = "WhisperSpec",
    revision: int = 3,
    aliases: Mapping[str, str] | None = None,
) -> bytes:
    """A `model.bin`."""

    def name_of(text: str) -> bytes:
        data = text.encode() + b"\0"
        return struct.pack("<H", len(data)) + data

    if aliases is None:
        aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
        if "decoder/embeddings/weight_scale" in variables:
            aliases |= {"decoder/projection/weight_scale": "decoder/embeddings/weight_scale"}
    out = struct.pack("<I", version) + name_of(spec) + struct.pack("<II", revision, len(variables))
    for name, value in sorted(variables.items()):
        data = np.ascontiguousarray(value.detach().reshape(-1).view(torch.uint8).numpy()).tobytes()
        out += name_of(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        out += struct.pack("<BI", TYPES[value.dtype], len(data)) + data
    out += struct.pack("<I", len(aliases))
    return out + b"".join(name_of(name) + name_of(other) for name, other in sorted(aliases.items()))


def write_ct2(folder: Path, model: Any, kind: torch.dtype = torch.float32) -> Path:
    """The whole folder, as `ct2-transformers-converter --copy_files tokenizer.json` leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(ct2_bytes(in_type(ct2_variables(model), kind)))
    tokenizer_json().save(str(folder / "tokenizer.json"))
    (folder / "vocabulary.json").write_text(json.dumps([*WORDS, *CONTROLS]), encoding="utf-8")
    settings = {"suppress_ids": [len(WORDS) + 2], "suppress_ids_begin": [0, len(WORDS)], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def write_hf(folder: Path, model: Any) -> Path:
    """The same model as a folder of Hugging Face."""
    from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80, chunk_length=1).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer_json()).save_pretrained(folder)
    return folder
