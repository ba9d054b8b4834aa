"""`tokenizer.json` and `tokenizer_config.json` for stock transformers: the text pieces, and our tokens behind them.

Our tokens are *special* added tokens: typed names become ids, one each, and `split_special_tokens=True` reads the same
characters as plain text, which is how text from users is to be encoded: with `add_special_tokens=False`, since an
imported tokenizer may put an id of its own before every text.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import ROLES, Vocabulary
from unitok_tokenizers.text.base import TextTokenizer
from unitok_tokenizers.text.huggingface import HostText
from unitok_tokenizers.text.sentencepiece import SentencePieceText, read_proto

SPACE = "▁"
# Hugging Face's unigram model would read these pieces in a text that spells them out; sentencepiece does not.
SPELLED_PIECE = "<(?=0x[0-9A-F]{2}>|unk>)"


def token_names(vocabulary: Vocabulary) -> list[str]:
    """Names of all ids, one per id; text pieces are empty.

    A control token whose role a host model's token plays is never used: it gives up its name, which `<bos>` typed in a
    prompt must not reach.
    """
    names = vocabulary.names()
    for role in ROLES:
        own = names.index(f"<{role}>")
        if vocabulary.roles[role] != own:
            names[own] = f"<unused:{role}>"
    return names


def tokenizer_json(text: TextTokenizer, vocabulary: Vocabulary) -> str:
    """`tokenizer.json` that agrees with `text` on every text and holds every other id as one added token.

    Raises:
        InputError: pieces that were added later, or a token of the host with a name of ours.
    """
    if vocabulary.text.cardinalities[0] != text.size or vocabulary.extents[0].size != text.size:
        raise InputError("text pieces that were added to a trained model cannot be exported; export the model before")
    added = [_added_token(index, name) for index, name in enumerate(token_names(vocabulary)) if index >= text.size]
    if isinstance(text, SentencePieceText):
        value = _sentencepiece_json(text, added)
    elif isinstance(text, HostText):
        value = _host_json(text, added)
    else:
        raise InputError(
            f"text pieces of {type(text).__name__} have no tokenizer.json that stock tools read; export a model with "
            "sentencepiece or a host's pieces"
        )
    return json.dumps(value, ensure_ascii=False)


def tokenizer_config(text: TextTokenizer, vocabulary: Vocabulary, *, max_positions: int) -> dict[str, Any]:
    """`tokenizer_config.json`: the class, the roles by name, and the added tokens for tools that read no json."""
    pieces = text.pieces()
    names = token_names(vocabulary)
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_positions,
    }
    for role in ROLES:
        index = vocabulary.roles[role]
        config[f"{role}_token"] = pieces[index] if index < len(pieces) else names[index]
    if isinstance(text, SentencePieceText):  # llama.cpp's converter reads tokenizer.model and these two
        config["add_prefix_space"] = False
        config["added_tokens_decoder"] = {
            str(index): {key: value for key, value in _added_token(index, names[index]).items() if key != "id"}
            for index in range(text.size, vocabulary.size)
        }
    return text.settings.completed(config) if isinstance(text, HostText) else config


def _added_token(index: int, name: str) -> dict[str, Any]:
    return {
        "id": index,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def _sentencepiece_json(text: SentencePieceText, added: list[dict[str, Any]]) -> dict[str, Any]:
    """Pieces without dummy prefix and with identity normalization, which a plain replacement of spaces reproduces."""
    scores = [float(text.processor.get_score(index)) for index in range(text.size)]
    unknown = text.processor.unk_id()
    pieces = text.pieces()
    splitter = None
    if _is_bpe(text):
        model: dict[str, Any] = {
            "type": "BPE",
            "dropout": None,
            "unk_token": pieces[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": _merges(pieces, scores),
        }
    else:
        pairs = list(zip(pieces, scores))
        model = {"type": "Unigram", "unk_id": unknown, "vocab": pairs, "byte_fallback": True}
        splitter = {
            "type": "Split",
            "pattern": {"Regex": SPELLED_PIECE},
            "behavior": "MergedWithPrevious",
            "invert": False,
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        "pre_tokenizer": splitter,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": model,
    }


def _is_bpe(text: SentencePieceText) -> bool:
    trainer = read_proto(text.model).trainer_spec
    return bool(trainer.model_type == trainer.BPE)


def _merges(pieces: Sequence[str], scores: Sequence[float]) -> list[list[str]]:
    """Pairs in the order in which sentencepiece joins them: by the score of what they make."""
    ids = {piece: index for index, piece in enumerate(pieces)}
    by_score: dict[float, list[list[str]]] = defaultdict(list)
    for piece, score in zip(pieces, scores):
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = sorted((ids[left], ids[right]) for left, right in pairs if left in ids and right in ids)
        by_score[score] += [[pieces[left], pieces[right]] for left, right in known]
    return [pair for score in sorted(by_score, reverse=True) for pair in by_score[score]]


def _host_json(text: HostText, added: list[dict[str, Any]]) -> dict[str, Any]:
    value = json.loads(text.json)
    taken = set(text.tokenizer.get_vocab(with_added_tokens=True))
    for token in added:
        if token["content"] in taken:
            raise InputError(
                f"the host's tokenizer has a token {token['content']!r} of its own, the name of one of ours; "
                "rename it in its tokenizer.json"
            )
    value["added_tokens"] = [*value.get("added_tokens", []), *added]
    value["truncation"] = value["padding"] = None
    for step in _steps(value.get("pre_tokenizer")):
        # Each span was trained as a text of its own, so that each begins with a space where the first one does.
        if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
            step["prepend_scheme"] = "always"
    return value


def _steps(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A pre-tokenizer's parts."""
    if step is None:
        return []
    return [one for part in step["pretokenizers"] for one in _steps(part)] if "pretokenizers" in step else [step]
