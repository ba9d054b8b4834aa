"""What a text tokenizer is.

Every one is lossless: decode(encode(text)) is the text, spaces at either end included. None ever turns a user's text
into a control id. A new one is a file and a line in `registry.TEXT_TOKENIZERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from unitok_tokenizers.grammar.streams import StreamInfo


class TextTokenizer(Protocol):
    """Text ↔ local text ids."""

    name: str
    size: int

    @property
    def fingerprint(self) -> str:
        """Identifies the pieces."""

    @property
    def roles(self) -> Mapping[str, int]:
        """bos, eos and pad that a host model owns; empty for our own pieces."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, none of them special."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; bytes that form no character become U+FFFD."""

    def pieces(self) -> list[str]:
        """The surface of every id."""

    def info(self) -> StreamInfo:
        """The text stream."""

    def save(self, folder: Path) -> None:
        """Write the folder that the `load` of its class reads; `class` in its `config.json` names it."""


def text_info(tokenizer: TextTokenizer) -> StreamInfo:
    """The stream description that every text tokenizer gives of itself."""
    return StreamInfo(tokenizer.name, "text", tokenizer.fingerprint, None, (tokenizer.size,))
