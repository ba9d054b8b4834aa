"""GGUF files, as llama.cpp runs them: the weights through transformers, the tokenizer from what the file says.

Transformers gives float32 weights, whatever the file holds, and reads neither rope scaling nor every way to cut a text:
what it would leave out is refused. A `tokenizer.json` beside the file is the model's own and is taken first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from unitok.decoder.model import Decoder
from unitok.huggingface.weights import MODEL_TYPES, from_hf_config, load_hf_state, with_its_head
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import write_json

SUFFIX = ".gguf"
NEEDED = ("transformers", "gguf", "accelerate")
ROPE_FREQUENCIES = "rope_freqs.weight"
"""Tensor of files whose rotary positions are scaled."""
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
"""`tokenizer.ggml.token_type` of tokens that no text is cut into, and of those that are cut out first."""
BESIDE = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _bytes(*, words: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": words}


CUTS: Mapping[str, list[dict[str, Any]]] = {
    "gpt-2": [_bytes(words=True)],
    "smollm": [{"type": "Digits", "individual_digits": True}, _bytes(words=True)],
    "llama-bpe": [_split(WORDS + r"\p{N}{1,3}" + REST), _bytes(words=False)],
    "qwen2": [_split(WORDS + r"\p{N}" + REST), _bytes(words=False)],
}
"""`tokenizer.ggml.pre` → how a text is cut before pairs are joined (`pre_tokenizer` of `tokenizer.json`)."""
WHOLE_WORDS = ("llama-bpe",)
"""Those that take a word that is a token whole, whatever pairs make of it."""
COMPOSED = ("qwen2",)
"""Those that compose characters (NFC) first."""


def read_gguf(path: Path, folder: Path) -> Decoder:
    """The decoder of a GGUF file; its `config.json` and tokenizer go into `folder`, as a Hugging Face folder has them.

    Raises:
        InputError: packages that are missing, a damaged file, another architecture, or what would be left out.
    """
    if lost := [name for name in NEEDED if find_spec(name) is None]:
        raise InputError(
            f"{path}: GGUF files are read with {', '.join(NEEDED)}, missing: {', '.join(lost)}; "
            "pip install 'unitok[hf,gguf]'"
        )
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise InputError(f"{path} is no whole GGUF file ({error}); copy it again") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name for tensor in reader.tensors}
    kind = fields.get("general.architecture")
    if kind not in MODEL_TYPES:
        raise InputError(f"{path}: architecture is {kind!r}; {', '.join(MODEL_TYPES)} can be imported")
    if ROPE_FREQUENCIES in tensors or _scaled(fields, kind):
        raise InputError(
            f"{path}: its rotary positions are scaled, which transformers does not read of a GGUF file; "
            "give the model's Hugging Face folder"
        )
    _write_tokenizer(path, fields, folder)
    config, decoder = _weights(path, kind, fields, len(tensors))
    for role in ("bos", "eos"):
        config[f"{role}_token_id"] = fields.get(f"tokenizer.ggml.{role}_token_id")
    config["pad_token_id"] = fields.get("tokenizer.ggml.padding_token_id")
    write_json(folder / "config.json", config)
    return decoder


def _scaled(fields: Mapping[str, Any], kind: str) -> bool:
    """Whether positions are not those of the plain rotation of whole heads. Without a type, llama.cpp takes a factor,
    or its older name, for a linear one."""
    key = f"{kind}.rope"
    factor = fields.get(f"{key}.scaling.factor", fields.get(f"{key}.scale_linear"))
    scaled = fields.get(f"{key}.scaling.type", "none" if factor in (None, 0, 1) else "linear") != "none"
    size, turned = fields.get(f"{kind}.attention.key_length"), fields.get(f"{key}.dimension_count")
    return scaled or (size is not None and turned is not None and turned != size)


def _weights(path: Path, kind: str, fields: Mapping[str, Any], count: int) -> tuple[dict[str, Any], Decoder]:
    """(`config.json`, the decoder with all of the file's `count` weights)."""
    from transformers import AutoConfig, AutoModelForCausalLM

    given: dict[str, Any] = {"gguf_file": path.name}
    try:
        shape = AutoConfig.from_pretrained(path.resolve().parent, local_files_only=True, **given)
        if size := fields.get(f"{kind}.attention.key_length"):
            shape.head_dim = int(size)  # transformers takes its own default where a class has one
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.resolve().parent,
            local_files_only=True,
            config=shape,
            dtype=torch.float32,
            output_loading_info=True,
            **given,
        )
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{path}: transformers does not read it ({error}); give the model's Hugging Face folder"
        ) from error
    model, told = loaded
    config = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    if window := fields.get(f"{kind}.attention.sliding_window"):  # within it, attention is the same
        config["max_position_embeddings"] = min(int(window), config["max_position_embeddings"])
    state = dict(model.state_dict())
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)  # the embedding once more
    sizes = {name for name, *_ in told["mismatched_keys"]}
    lost = sorted(({*told["missing_keys"], *told["unexpected_keys"]} & {*state}) | sizes)
    if lost or len(state) != count:
        raise InputError(
            f"{path}: of its {count} weights not all find a place among the model's {len(state)} "
            f"({lost[0] if lost else 'some are unknown'}); give the model's Hugging Face folder"
        )
    decoder = Decoder(with_its_head(from_hf_config(config, path), state))
    load_hf_state(decoder, state, path)
    return config, decoder.eval()


def _write_tokenizer(path: Path, fields: Mapping[str, Any], folder: Path) -> None:
    """The tokenizer beside the file, else the one that it describes."""
    if (path.parent / "tokenizer.json").exists():
        _check_own_tokenizer(path, fields)
        for name in BESIDE:
            if (path.parent / name).exists():
                shutil.copyfile(path.parent / name, folder / name)
        return
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(path, fields), ensure_ascii=False), encoding="utf-8")
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        index = fields.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{role}_token"] = tokens[index]
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    write_json(folder / "tokenizer_config.json", config)


def _check_own_tokenizer(path: Path, fields: Mapping[str, Any]) -> None:
    """InputError where the tokenizer beside a file is another model's: pieces would read the rows of others."""
    from tokenizers import Tokenizer

    beside = path.parent / "tokenizer.json"
    try:
        found = Tokenizer.from_file(str(beside))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{beside} cannot be read ({error}); put the model's own there") from error
    tokens, types = fields.get("tokenizer.ggml.tokens", ()), fields.get("tokenizer.ggml.token_type", ())
    for index, (token, kind) in enumerate(zip(tokens, types)):
        if kind == NORMAL and found.id_to_token(index) != token:
            raise InputError(
                f"{beside} is of another model than {path.name} (id {index} is {found.id_to_token(index)!r} there and "
                f"{token!r} in the file); remove it, or put the model's own there"
            )


def _tokenizer(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`tokenizer.json` of pairs of bytes. InputError for a way to cut that is not known."""
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if model != "gpt2" or pre not in CUTS:
        raise InputError(
            f"{path}: how its tokenizer {model!r} ({pre!r}) cuts a text is not known (gpt2 with {', '.join(CUTS)} is); "
            "put the model's tokenizer.json beside the file"
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    added = [
        {"id": index, "content": token, "special": kind == CONTROL, "normalized": False, "single_word": False,
         "lstrip": False, "rstrip": False}
        for index, (token, kind) in enumerate(zip(tokens, types))
        if kind in (CONTROL, USER_DEFINED)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre in COMPOSED else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": CUTS[pre]},
        "post_processor": _opening(tokens, fields),
        "decoder": _bytes(words=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in WHOLE_WORDS,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [pair.split(" ", 1) for pair in fields["tokenizer.ggml.merges"]],
        },
    }


def _opening(tokens: list[str], fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The step that puts a first token before a text, where the model was trained with one."""
    index = fields.get("tokenizer.ggml.bos_token_id")
    if index is None or not fields.get("tokenizer.ggml.add_bos_token"):
        return None
    name = tokens[index]
    first, whole = {"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, whole],
        "pair": [first, whole, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [index], "tokens": [name]}},
    }
