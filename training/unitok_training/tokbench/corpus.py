"""The recordings that tokenizers are compared on: some to learn from, some held out.

S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint
from unitok_tokenizers.text.score_normalizer import basic
from unitok_training.fitting.tokenizers import fitting_rows, some_recorded
from unitok_training.tokbench.labels import Labeling

PORTION = 32
"""Recordings that are read and tokenized at once."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows with recordings."""

    train: Sequence[Row]
    """What readers, probes and synthesizers learn from."""
    held_out: Sequence[Row]
    """What they are scored on."""
    split: str
    """Of the held-out rows."""

    @staticmethod
    def of(rows: Sequence[Row], *, split: str, limit: int, train_limit: int, seed: int) -> Corpus:
        """A fixed random choice of at most `train_limit` and `limit` rows; recordings that are too short or longer
        than a minute are left out.

        Raises:
            InputError: no recording in one of both splits, or one that cannot be read.
        """
        if split == "train":
            raise InputError("--split is train, which is learned from; name a held-out one")
        chosen = fitting_rows([row for row in rows if row.split in ("train", split) and row.audio is not None])
        usable = [row for row in chosen.rows if row.audio is not None and row.id not in chosen.long]
        parts = {
            name: some_recorded([row for row in usable if row.split == name], most, seed)
            for name, most in (("train", train_limit), (split, limit))
        }
        for name, found in parts.items():
            if not found:
                raise InputError(f"no usable recording of split {name!r}; the benchmark needs train and a held-out one")
        return Corpus(train=parts["train"], held_out=parts[split], split=split)

    @property
    def rows(self) -> list[Row]:
        """All, those to learn from first."""
        return [*self.train, *self.held_out]

    @cached_property
    def labeling(self) -> Labeling | None:
        """How frames are named; None where nothing says what is said when."""
        return Labeling.of(self.rows)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies rows and recordings."""
        return fingerprint(
            [self.split, [described(row) for row in self.train], [described(row) for row in self.held_out]]
        )


def described(row: Row) -> list[Any]:
    """What a figure may depend on."""
    place = [row.reference, row.offset, row.seconds, *row.stamp()]
    return [row.id, row.lang, row.speaker, row.text, [*map(list, row.words)], row.extras.get("segments"), *place]


def texts_of(rows: Sequence[Row]) -> list[str]:
    """As they are compared; empty where there is none."""
    return [basic(row.text or "") for row in rows]


def portions(rows: Sequence[Row], sample_rate: int) -> Iterator[list[np.ndarray]]:
    """Samples (S,) of a few rows at a time, and of all."""
    for start in range(0, len(rows), PORTION):
        yield [row.load(sample_rate) for row in rows[start : start + PORTION]]


def load_all(rows: Sequence[Row], sample_rate: int) -> list[np.ndarray]:
    """Samples (S,) of each row."""
    return [samples for portion in portions(rows, sample_rate) for samples in portion]
