"""Unit BPE: sequences of deduplicated units that occur often become one id (VoxtLM, Maiti et al. 2024).

sentencepiece learns and cuts; to it a unit is a character of a private plane. An id below K is the unit itself, those
from K on are merged, in the order in which they were learned: whoever knew the units still knows them.

N ids, M units, K units, V ids in all.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_write_bytes, fingerprint

MODEL_FILE = "unit_bpe.model"
FIRST = 0xF0000
"""Character of unit 0: the planes behind it belong to nobody, and no rule of any script cuts between them."""
MOST_UNITS = 60_000
"""Characters of a plane."""
LONGEST = 16
"""Most units of an id."""
LONGEST_SEQUENCE = 1000
"""Units of a sequence that sentencepiece learns from, four bytes each: it passes over longer ones without a word."""


@dataclass(frozen=True, kw_only=True)
class StoredUnits:
    """What shards keep of a recording's frames (F,): `np.repeat(units, unit_durations)` is them again."""

    ids: np.ndarray
    """(N,) of the stream."""
    durations: np.ndarray
    """(N,) frames of each."""
    unit_durations: np.ndarray
    """(M,) frames of each unit in the ids."""


def check_size(units: int, size: int) -> None:
    """InputError where so many units cannot be merged to so many ids."""
    if units > MOST_UNITS:
        raise InputError(f"{units} units are more than can be merged ({MOST_UNITS}); leave out --unit-bpe")
    if size <= units:
        raise InputError(f"--unit-bpe is {size}, and the {units} units are ids too: give more than {units}")


class UnitMerges:
    """Units to fewer ids and exactly back.

    Args:
        model: sentencepiece's, as `learn` makes it.
        units: K.

    Raises:
        InputError: a model that knows other characters than those of K units.
    """

    def __init__(self, model: bytes, units: int) -> None:
        import sentencepiece

        self.model, self.units = model, units
        try:
            self.processor: Any = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise InputError(f"merged units cannot be read ({error}); copy the folder again") from error
        self._expansions, self._ids = self._read()
        self._lengths = np.asarray([len(one) for one in self._expansions])

    def _read(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Units of each id, and ids by sentencepiece's own."""
        single: dict[int, int] = {}
        merged: list[tuple[int, np.ndarray]] = []
        for own in range(int(self.processor.get_piece_size())):
            if self.processor.is_unknown(own):
                continue
            units = numbers(self.processor.id_to_piece(own))
            if not len(units) or units.min() < 0 or units.max() >= self.units:
                raise InputError(f"merged units are of other units than these {self.units}; copy the folder again")
            if len(units) == 1:
                single[int(units[0])] = own
            else:
                merged.append((own, units))
        if len(single) != self.units:
            raise InputError(f"merged units know {len(single)} units of {self.units}; copy the folder again")
        ids = np.full(int(self.processor.get_piece_size()), -1)
        for unit, own in single.items():
            ids[own] = unit
        for number, (own, _) in enumerate(merged, self.units):
            ids[own] = number
        return [*(np.asarray([unit]) for unit in range(self.units)), *(units for _, units in merged)], ids

    @staticmethod
    def learn(sequences: Iterable[np.ndarray], units: int, size: int) -> UnitMerges:
        """Merges of what stands side by side most often.

        Args:
            sequences: (M,) deduplicated units each.
            units: K.
            size: V wanted; there are fewer where the sequences do not have as many.

        Raises:
            InputError: no more ids than units, nothing to merge, or more units than there are characters.
        """
        check_size(units, size)
        sentences = [characters(part) for one in sequences for part in _parts(one)]
        if not any(len(one) > 1 for one in sentences):
            raise InputError("no recording has two units after one another, so none can be merged; give longer ones")
        return UnitMerges(_trained([*sentences, *characters(range(units))], size), units)

    @property
    def size(self) -> int:
        """V."""
        return len(self._expansions)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the content."""
        return fingerprint(["unit_bpe", [one.tolist() for one in self._expansions]])

    def encode(self, units: np.ndarray) -> np.ndarray:
        """Deduplicated units (M,) → ids (N,). InputError for a unit that there is not."""
        if len(units) and not 0 <= min(units) <= max(units) < self.units:
            raise InputError(f"units reach from {min(units)} to {max(units)}: these are 0 to {self.units - 1}")
        found: np.ndarray = self._ids[self.processor.encode(characters(units))]
        return found.astype(np.int64)

    def expand(self, ids: np.ndarray) -> np.ndarray:
        """Ids (N,) → units (M,): the inverse of `encode`."""
        return np.concatenate([np.zeros(0, np.int64), *(self._expansions[one] for one in np.asarray(ids).tolist())])

    def lengths(self, ids: np.ndarray) -> np.ndarray:
        """Units of each id (N,)."""
        return self._lengths[np.asarray(ids, dtype=np.int64)]

    def stored(self, units: np.ndarray, durations: np.ndarray) -> StoredUnits:
        """What shards keep of deduplicated units (M,) and their frames (M,). InputError as `encode`."""
        ids = self.encode(units)
        ends = np.cumsum(self.lengths(ids))
        frames = np.diff(np.concatenate([[0], np.cumsum(durations)])[np.concatenate([[0], ends]).astype(np.int64)])
        return StoredUnits(ids=ids, durations=frames.astype(np.int64), unit_durations=durations)

    def save(self, folder: Path) -> None:
        """Write the file that `load` reads."""
        atomic_write_bytes(folder / MODEL_FILE, self.model)

    @staticmethod
    def load(folder: Path, units: int) -> UnitMerges:
        """Read what `save` wrote."""
        if not (model := (folder / MODEL_FILE).read_bytes()):
            raise InputError(f"{folder / MODEL_FILE} is empty; copy the folder again, or fit the tokenizers again")
        return UnitMerges(model, units)


def characters(units: Sequence[int] | np.ndarray) -> str:
    """Units (M,) as sentencepiece reads them."""
    return "".join(chr(FIRST + unit) for unit in np.asarray(units, dtype=np.int64).tolist())


def numbers(text: str) -> np.ndarray:
    """The inverse of `characters`."""
    return np.asarray([ord(one) - FIRST for one in text], dtype=np.int64)


def _parts(units: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(units), LONGEST_SEQUENCE):
        yield units[start : start + LONGEST_SEQUENCE]


def _trained(sentences: Sequence[str], size: int) -> bytes:
    """A model of every character in the sentences, and at most `size` pieces in all."""
    import sentencepiece

    writer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=writer,
        vocab_size=size + 1,  # the unknown one, which sentencepiece insists on
        model_type="bpe",
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_by_number=False,
        split_by_whitespace=False,
        character_coverage=1.0,
        max_sentencepiece_length=LONGEST,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return writer.getvalue()
