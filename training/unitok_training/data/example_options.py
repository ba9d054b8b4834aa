"""What is drawn around a row: voice prompts, noise, which voice answers, and what labels weigh.

D documents, V ids of a vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.positions import FLUSH, FRAME
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS
from unitok_tokenizers.grammar.vocabulary import Vocabulary

TARGET_CHOICES = ("any", "same-speaker", "fixed")


@dataclass(frozen=True, kw_only=True)
class ExampleOptions:
    """What is drawn around a row."""

    LATER: ClassVar[tuple[str, ...]] = ("condition_dropout", "dropped_conditions", "cut_least", "cut_most")
    """Fields that came with a later version; see `recipes.config.lasting`."""
    split: str = "train"
    """Split of the shards that examples come from."""
    voice_share: float = 0.9
    """Share of the examples with acoustic output that get a voice prompt, where the speaker has another utterance."""
    voice_min_seconds: float = 1.0
    """Shortest voice prompt, in seconds (a shorter utterance is used whole)."""
    voice_max_seconds: float = 2.0
    """Longest voice prompt, in seconds."""
    target_row: str = "any"
    """Which utterance is the target where several voices say it: "any", "same-speaker" (as the source, where there is
    one) or "fixed" (always the first in the shards)."""
    cut_least: float = 0.1
    """Shortest stretch that `edit` says anew, as a share of the row's frames."""
    cut_most: float = 0.6
    """Longest such stretch."""
    condition_noise: float = 0.0
    """Share of the source units that are dropped or replaced at random: makes reading them robust."""
    condition_dropout: float = 0.0
    """Share of the examples whose conditions are left out, so that answers can be guided: `Sampling.guidance`."""
    dropped_conditions: tuple[str, ...] = ()
    """Kinds of the conditions that are left out then, such as voice; none named leaves out all."""
    text_weight: float = 1.0
    """Weight of the loss of text ids, of which an utterance has far fewer than of units or codes."""
    codes_weight: float = 1.0
    """Weight of the loss of acoustic codes."""
    interleave_words: float = 3.0
    """Mean length of a stretch of one modality in `ilm`, in words."""
    interleave_sentences: int = 3
    """Sentences in an `ilm` example where words are not aligned and the modality changes between sentences."""

    repeat: int = 0
    """Only this many examples, over and over; 0 for an endless stream. Shows whether a model can learn at all."""

    def cut_share(self, drawn: np.ndarray) -> np.ndarray:
        """Shares of rows (D,) that `edit` says anew, of draws between 0 and 1."""
        return self.cut_least + (self.cut_most - self.cut_least) * drawn

    def id_weights(self, vocabulary: Vocabulary) -> np.ndarray | None:
        """(V,) float32 loss weight of every id as a label; None where all weigh the same."""
        by_block = {"text": self.text_weight, "codes": self.codes_weight}
        if set(by_block.values()) == {1.0}:
            return None
        weights = np.ones(vocabulary.size, dtype=np.float32)
        for extent in vocabulary.extents:
            weights[extent.start : extent.start + extent.size] = by_block.get(extent.block, 1.0)
        weights[[vocabulary.control(mark) for mark in (FRAME, FLUSH)]] = self.codes_weight
        return weights

    def __post_init__(self) -> None:
        if self.target_row not in TARGET_CHOICES:
            raise InputError(f"plans.target_row is {self.target_row!r}: choose from {', '.join(TARGET_CHOICES)}")
        if not 0 < self.voice_min_seconds <= self.voice_max_seconds:
            raise InputError(
                f"plans.voice_min_seconds is {self.voice_min_seconds} and voice_max_seconds {self.voice_max_seconds}: "
                "they must rise and be above 0"
            )
        if not 0 <= self.cut_least <= self.cut_most <= 1:
            raise InputError(
                f"plans.cut_least is {self.cut_least} and cut_most {self.cut_most}: they must rise, between 0 and 1"
            )
        for name in ("interleave_words", "interleave_sentences"):
            if getattr(self, name) < 1:
                raise InputError(f"plans.{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("text_weight", "codes_weight"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"plans.{name} is {getattr(self, name)}: it must be above 0")
        for kind in self.dropped_conditions:
            if kind not in CONDITION_KINDS:
                raise InputError(f"plans.dropped_conditions names {kind!r}: choose from {', '.join(CONDITION_KINDS)}")
        for name in ("voice_share", "condition_noise", "condition_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"plans.{name} is {getattr(self, name)}: a share lies between 0 and 1")
