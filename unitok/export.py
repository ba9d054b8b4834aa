"""Whole model directories to and from Hugging Face: weights, tokenizer, and everything needed for the way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from unitok.hf import expand_vocabulary, hf_tokenizer_json, load_core
from unitok.model import Model
from unitok_tokenizers.bundle import TokenizerSet
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, read_json, write_json
from unitok_tokenizers.text import HostText, SentencePieceText
from unitok_tokenizers.vocabulary import Vocabulary


def export_hf(model_dir: Path | str, out: Path | str) -> Path:
    """Write a folder for `AutoModelForCausalLM` and `AutoTokenizer`, without remote code.

    Raises:
        InputError: not a model directory, or `out` cannot be written.
    """
    root, target = Path(model_dir), Path(out)
    if not (root / "unitok.json").exists():
        raise InputError(f"{root} is no model directory (no unitok.json); give one that `unitok` wrote")
    vocabulary = Vocabulary.load(root / "vocabulary.json")
    tokenizers = TokenizerSet.load(root / "tokenizers")
    with atomic_directory(target) as draft:
        for file in sorted((root / "core").iterdir()):
            shutil.copyfile(file, draft / file.name)
        (draft / "tokenizer.json").write_text(_tokenizer_json(tokenizers, vocabulary), encoding="utf-8")
        write_json(draft / "tokenizer_config.json", _tokenizer_config(tokenizers, vocabulary))
        shutil.copyfile(root / "vocabulary.json", draft / "vocabulary.json")
    return target


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Names of all ids; roles by their own names, whoever owns them."""
    return vocabulary.names()


def _tokenizer_json(tokenizers: TokenizerSet, vocabulary: Vocabulary) -> str:
    names = token_names(vocabulary)
    text = tokenizers.text
    if isinstance(text, SentencePieceText):
        processor = text.processor
        pieces = [(piece, float(processor.get_score(index))) for index, piece in enumerate(text.pieces())]
        return hf_tokenizer_json(pieces, names, text.size, processor.unk_id())
    assert isinstance(text, HostText)
    value = json.loads(text.json)
    value["added_tokens"] += [
        {"id": index, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
        for index, name in enumerate(names)
        if index >= text.size
    ]  # fmt: skip
    return json.dumps(value, ensure_ascii=False)


def _tokenizer_config(tokenizers: TokenizerSet, vocabulary: Vocabulary) -> dict[str, object]:
    pieces = tokenizers.text.pieces()
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for role in ("bos", "eos", "pad"):
        index = vocabulary.roles[role]
        config[f"{role}_token"] = pieces[index] if index < len(pieces) else f"<{role}>"
    return config


def import_hf(
    folder: Path | str,
    out: Path | str,
    *,
    tokenizers: Path | str | None = None,
    languages: Sequence[str] = ("en",),
    seed: int = 0,
) -> Path:
    """Read a Hugging Face folder and expand its vocabulary by control tokens, languages, units and codes.

    Args:
        folder: a local Llama, Mistral, Qwen2 or Qwen3 folder with safetensors and `tokenizer.json`.
        out: model directory to write.
        tokenizers: folder whose units and codes join; None for text only.
        languages: language codes.
        seed: seed of the new rows.

    Raises:
        InputError: another architecture, missing files or weights.
    """
    root = Path(folder)
    if not (root / "config.json").exists():
        raise InputError(f"{root} holds no config.json; give a local Hugging Face model folder")
    host = HostText.from_folder(root)
    speech = TokenizerSet.load(tokenizers) if tokenizers is not None else None
    joined = TokenizerSet(text=host, units=speech.units if speech else None, codes=speech.codes if speech else None)
    decoder = load_core(root)
    if host.size > decoder.config.vocab_size:
        raise InputError(f"{root}: the tokenizer has {host.size} ids, the model only {decoder.config.vocab_size} rows")
    vocabulary = joined.vocabulary(languages)
    generator = torch.Generator().manual_seed(seed)
    grown = expand_vocabulary(decoder, vocabulary.size, host.size, generator=generator)
    info = {"imported_from": read_json(root / "config.json").get("model_type")}
    Model(decoder=grown, vocabulary=vocabulary, tokenizers=joined, info=info).save(out)
    return Path(out)
