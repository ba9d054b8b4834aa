"""Ids of what stands inside a text: tokenizers that begin every text with a space give others where it is alone."""

from __future__ import annotations

from unitok_tokenizers.text.base import TextTokenizer

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space."""
SPACES = ("\N{LATIN CAPITAL LETTER G WITH DOT ABOVE}", SPACE)
"""How byte-level tokenizers do, and SentencePiece."""
LINE_BREAKS = ("\n", "\N{LATIN CAPITAL LETTER C WITH DOT ABOVE}", "<0x0A>")
"""How a line break is written: as it is, by a byte-level tokenizer, and as a byte."""


class Surfaces:
    """The pieces of a tokenizer by how they are written."""

    def __init__(self, text: TextTokenizer) -> None:
        self.text = text
        self._ids = {piece: index for index, piece in reversed(list(enumerate(text.pieces())))}

    def ids(self, part: str) -> list[int]:
        """Of letters inside a word, or behind a space where they begin one; what no piece alone is, as if it stood
        alone."""
        written = [f"{space}{part[1:]}" for space in SPACES] if part.startswith(" ") else [part]
        return self._first(written) or self.text.encode(part)

    def line_break(self) -> list[int]:
        """Of a line break."""
        return self._first(LINE_BREAKS) or self.text.encode("\n")

    def _first(self, written: tuple[str, ...] | list[str]) -> list[int]:
        return next(([self._ids[one]] for one in written if one in self._ids), [])
