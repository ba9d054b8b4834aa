"""The text tokenizers by the names that folders give them. A new one is a file and a line here."""

from __future__ import annotations

from pathlib import Path

from unitok_tokenizers.registry import Registry
from unitok_tokenizers.text.base import TextTokenizer

TEXT_TOKENIZERS = Registry(
    "text tokenizer",
    {
        "sentencepiece": "unitok_tokenizers.text.sentencepiece:SentencePieceText",
        "host": "unitok_tokenizers.text.huggingface:HostText",
    },
)
"""`class` in `config.json` → class."""


def load_text_tokenizer(folder: Path | str) -> TextTokenizer:
    """Read what any of the classes saved; InputError where a folder is of none."""
    found: TextTokenizer = TEXT_TOKENIZERS.load(folder)
    return found
