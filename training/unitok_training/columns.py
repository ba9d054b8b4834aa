"""The columns of shards that plans are drawn from, and what a task needs of them.

R rows, I items of a task.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_tokenizers.grammar import Span
from unitok_tokenizers.shards import Shards
from unitok_tokenizers.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows that a task cannot use."""

    key: str
    """Key of the mixture."""
    reason: str
    """Why."""
    rows: int
    """How many."""


class Columns:
    """The shards' columns as plain arrays, with a cheap look-up of one row."""

    def __init__(self, shards: Shards, vocabulary: Vocabulary, split: str) -> None:
        self.shards = shards
        self.ids = shards.id
        self.lang = np.asarray(shards.lang)
        self.speaker = np.asarray(shards.speaker)
        self.group = np.asarray(shards.group)
        self.split = np.asarray(shards.split) == split
        self.known_language = np.isin(self.lang, list(vocabulary.languages))
        self.codebooks = len(shards.streams["codes"].cardinalities) if "codes" in shards.streams else 1
        self._ragged: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}

    def ragged(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(values, offsets) of a column, None where the shards have no such stream."""
        if name not in self._ragged:
            stream = {"text_ids": "text", "units_durations": "units"}.get(name, name)
            found = self.shards.ragged(name) if stream in self.shards.streams else None
            self._ragged[name] = None if found is None else (np.asarray(found[0]), np.asarray(found[1]))
        return self._ragged[name]

    def lengths(self, name: str) -> np.ndarray:
        """(R,) values of each row; 0 where the column is absent."""
        found = self.ragged(name)
        return np.zeros(len(self.lang), np.int64) if found is None else np.diff(found[1])

    def get(self, name: str, row: int) -> np.ndarray:
        """Values of one row."""
        found = self.ragged(name)
        assert found is not None, f"column {name} is absent"
        values, offsets = found
        return values[offsets[row] : offsets[row + 1]]

    @cached_property
    def _words(self) -> list[str]:
        return self.shards.table["words"].to_pylist()

    @cached_property
    def extras(self) -> list[str]:
        """Extras of each row, as the JSON they are stored in."""
        return self.shards.table["extras"].to_pylist()

    def words(self, row: int) -> list[tuple[str, float, float]]:
        """(word, start, end) in seconds; empty where a row's words are not aligned."""
        return json.loads(self._words[row])

    def text(self, row: int) -> Span:
        """Text ids of a row."""
        return Span("text", self.get("text_ids", row))

    def units(self, row: int) -> Span:
        """Deduplicated units of a row."""
        return Span("units", self.get("units", row), "units")

    def codes(self, row: int) -> Span:
        """Codes (F, Q) of a row."""
        return Span("codes", self.get("codes", row).reshape(-1, self.codebooks), "codes")


@dataclass(frozen=True)
class Items:
    """What a task can be made of: one source row each, and for pairs the rows that may be its target."""

    source: np.ndarray
    """(I,) row of the source."""
    start: np.ndarray | None = None
    """(I,) first candidate in `pool`."""
    stop: np.ndarray | None = None
    """(I,) behind the last candidate in `pool`."""
    pool: np.ndarray | None = None
    """Rows, those of one group and language side by side."""


# task line → (columns the source needs, columns the target needs or None for tasks of one language)
NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]] = {
    "asr": (("units", "text_ids"), None),
    "asr.codes": (("codes", "text_ids"), None),
    "tts.units": (("text_ids", "units"), None),
    "tts.codes": (("text_ids", "units", "codes"), None),
    "s2tt": (("units",), ("text_ids",)),
    "s2tt.codes": (("codes",), ("text_ids",)),
    "s2st": (("units",), ("units",)),
    "s2st.codes": (("units",), ("units", "codes")),
    "s2st.chain": (("units", "text_ids"), ("text_ids", "units")),
    "mt": (("text_ids",), ("text_ids",)),
    "lm": (("text_ids",), None),
    "slm": (("units",), None),
    "ilm": (("text_ids", "units"), None),
    "chat": (("units", "text_ids"), ("text_ids", "units")),
}
COLUMN_NAMES = {"text_ids": "text", "units": "units", "codes": "codes"}


def segment_maximum(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """(I,) maximum of values[start:stop] for each segment; segments are not empty."""
    padded = np.append(values, 0)
    return np.maximum.reduceat(padded, np.stack([start, stop], axis=1).reshape(-1))[::2]
