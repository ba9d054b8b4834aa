"""Whether a host's tokenizer gives back the text that it was given, and what is done where it does not.

Tokenizers that begin every text with a space of their own take the first space of a decoded text away again. Those of
the sentencepiece family add none where there is one already: " hello" and "hello" are then the same ids, and a space is
lost. Doubling a text's first space before anything else brings it back and leaves the ids of all other texts as they
are. It becomes a step of `tokenizer.json`, so that an export agrees on every text.

Whether it helps is tried, not read from the file: there are many ways to write the same steps.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Callable
from typing import Any

from unitok_tokenizers.errors import InputError

SPACES = ("hello", " hello", "  hello", " ", "hello ", "a  b", " \nhello", "\n hello", "\t")
"""Texts that a step for spaces may change."""
PROBES = (
    *SPACES,
    "Ab",
    "a\r\nb",
    "\u00e9",
    "e\u0301",
    "\ufb01",
    "\u00bd",
    "\u6f22",
    "\U0001f642",
    "\u3000x",
    "x\u00a0",
)
"""Texts that a lossless tokenizer gives back: capitals, lines, composed and compatible characters, other scripts."""
DOUBLE = {"type": "Replace", "pattern": {"Regex": "\\A "}, "content": "  "}
TAKE_ONE = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def said_again(tokenizer: Any, text: str) -> str:
    """decode(encode(text))."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    return str(tokenizer.decode(ids, skip_special_tokens=False))


def keeps(tokenizer: Any, text: str) -> bool:
    """Whether a text comes back, or in composed characters (NFC), which Unicode holds to be the same text."""
    return said_again(tokenizer, text) in (text, unicodedata.normalize("NFC", text))


def with_first_space(tokenizer_json: str, parse: Callable[[str], Any]) -> str:
    """The same `tokenizer.json`, mended where spaces at the beginning of a text do not come back.

    `parse` makes a tokenizer of it. What cannot be mended stays as it is: `check_lossless` says so.
    """
    value = json.loads(tokenizer_json)
    doubled = copy.deepcopy(value)
    doubled["normalizer"] = _sequence("normalizers", [DOUBLE, *_parts(value.get("normalizer"), "normalizers")])
    taken = copy.deepcopy(doubled)
    taken["decoder"] = _sequence("decoders", [*_parts(value.get("decoder"), "decoders"), TAKE_ONE])
    for tried in (value, doubled, taken):
        tokenizer = parse(json.dumps(tried, ensure_ascii=False))
        if all(keeps(tokenizer, text) for text in SPACES):
            return json.dumps(tried, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)


def _parts(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return list(step[key]) if step.get("type") == "Sequence" else [step]


def _sequence(key: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", key: steps}


def check_lossless(tokenizer: Any, where: str) -> None:
    """InputError where a text does not come back: answers would be other texts than those that were learned."""
    for text in PROBES:
        if not keeps(tokenizer, text):
            raise InputError(
                f"{where}: tokenizer.json is not lossless, {text!r} comes back as {said_again(tokenizer, text)!r}; "
                "give a model whose tokenizer keeps every character (bytes, or byte fallback, and no normalization)"
            )
