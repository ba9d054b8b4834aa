"""The bench of systems that say how they speak: the bench of flat tokens, with prosody among its units.

A trial is a sentence that one held-out voice says in every class of prosody (`CONTOURS`: flat, rise, fall): the same
words at the same times. Its first words are given, and the class of what is said behind them is asked. The pitch of the
toy corpus moves evenly from the first word to the last, so that each half of a sentence shows its class.

S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok_tokenizers.corpora.toy import CONTOURS, SAMPLE_RATE, SPEAKERS, synthesize
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.encoders.pitch import SAMPLE_RATE as CONTOUR_RATE
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.contour import Contour
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.tokenizers import load_recordings
from unitok_training.systems.base.bench import Bench
from unitok_training.systems.base.prosody_streams import (
    PLACES,
    UNITS,
    Flat,
    FlatStream,
    Heard,
    contours,
    heard_of,
    voice_levels,
)
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts
from unitok_vocoder.vocoder import Vocoder

TRIALS = "trials"
"""Split of the sentences that are spoken in every class."""
FEWEST_WORDS = 4
"""Of such a sentence."""
LABEL = "prosody"
"""Entry of `extras` that holds the class."""
SEED = 0x7121
"""Separates the draws of trials from those of the corpus."""
UNTOLD = "shards_untold"
"""Folder of the shards in which prosody is told from the middle word on."""

Fit = Callable[[Sequence[Heard], StreamInfo], FlatStream]
"""Makes a stream of what is heard of training recordings, and of their units."""


@dataclass(frozen=True, kw_only=True)
class ProsodyBenchConfig(TokenBenchConfig):
    """What a check of prosody depends on."""

    idle: ClassVar[Mapping[str, str]] = {"transcribed": "decoders read the text of all sentences"}

    spoken: int = 1200
    """Training sentences beside the corpus, spoken."""
    pitches: int = 16
    """Levels of pitch, one of them none."""
    temperature: float = 0.7
    """At which continuations are drawn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pitches < 3:
            raise InputError(f"pitches is {self.pitches}: give 3 or more, one of which is no voice")


class ProsodyParts(TokenParts):
    """The parts where units are ids among others: decoders know letters, and a stream that is made here."""

    def __init__(
        self, root: Path, config: PartsConfig, *, precision: str | None = None, report: Callable[[str], None] = print
    ) -> None:
        super().__init__(root / "prosody", config, precision=precision, report=report)

    @cached_property
    def listening(self) -> TokenizerSet:
        """Letters and units."""
        return self.fitted("listening")

    @cached_property
    def tokenizers(self) -> TokenizerSet:
        """Letters alone."""
        folder = self.folder / "tokenizers"
        if not folder.exists():
            TokenizerSet.of(self.listening.text).save(folder)
        return TokenizerSet.load(folder)

    @property
    def units(self) -> UnitTokenizer:
        """The tokenizer of the units."""
        found = self.listening.units
        assert found is not None, "the corpus has recordings"
        return found

    @cached_property
    def vocoder(self) -> Vocoder:
        """One without units: nothing is listened to."""
        return Vocoder(None)

    def spoken_in_every_class(self, split: str, most: int) -> Iterator[tuple[Row, np.ndarray]]:
        """Sentences of a split by its voices, at most so many, in each class of prosody with their samples (S,).

        Raises:
            InputError: no sentence of the split is long enough.
        """
        speakers, several = {one.name: one for one in SPEAKERS}, len(self.config.languages) > 1
        rows = [row for row in self.rows if row.split == split and len((row.text or "").split()) >= FEWEST_WORDS]
        if not rows:
            raise InputError(f"no sentence of {split} has {FEWEST_WORDS} words; raise --test-sentences")
        chosen = set(list(dict.fromkeys(row.group for row in rows))[:most])
        for number, row in enumerate(row for row in rows if row.group in chosen):
            for label in CONTOURS:
                made = synthesize(
                    row.text or "", speakers[row.speaker], prosody=label, seed=[self.config.seed, SEED, number]
                )
                name = "-".join([row.group, *([row.lang] if several else []), TRIALS, label])
                yield (
                    replace(row, id=name, split=TRIALS, words=made.words, audio=None, extras={LABEL: label}),
                    made.samples,
                )


class ProsodyBench(TokenBench):
    """A run folder in which systems of prosody are trained and scored.

    Args:
        given: run folder and settings.
        config: what the check depends on.
        fit: makes the stream; its settings are among the check's.
    """

    Parts = ProsodyParts
    parts: ProsodyParts
    config: ProsodyBenchConfig

    def __init__(self, given: Bench, config: ProsodyBenchConfig, fit: Fit) -> None:
        super().__init__(given, config)
        self.fit = fit

    @cached_property
    def shards(self) -> Shards:
        """All rows with their prosody, the trials among them; further texts beside them."""
        return self._kept("shards", lambda heard, row: self.stream.flat(heard))

    @cached_property
    def untold(self) -> Shards:
        """The same rows as units alone up to their middle word, and with prosody from there on."""
        return self._kept(UNTOLD, lambda heard, row: self.stream.untold(heard, row.words[middle(row.words)][1]))

    def _kept(self, name: str, made: Callable[[Heard, Row], Flat]) -> Shards:
        """Shards of a name, which are made unless they are there."""
        _ = self.parts.tokenizers  # trainings open their folder
        if (self.run / name / "manifest.json").exists():
            return Shards.open(self.run / name)
        rows = [placed(row, made(heard, row)) for row, heard in self.heard]
        rows += self.parts.texts(self.config.spoken, self.config.texts)
        return prepare_shards(
            rows, self.parts.tokenizers, self.run / name, external={UNITS: self.stream.alphabet.info()}
        )

    @cached_property
    def stream(self) -> FlatStream:
        """The flat stream, fitted to the training rows of the corpus."""
        own = [heard for row, heard in self.heard[: len(self._corpus)] if row.split == "train"]
        return self.fit(own, self.parts.units.info())

    @cached_property
    def _corpus(self) -> list[Row]:
        """Rows of the corpus that are learned from or held out, known voices saying held-out sentences apart."""
        return [row for row in self.parts.rows if row.split != "test_seen"]

    @cached_property
    def heard(self) -> list[tuple[Row, Heard]]:
        """All spoken rows with what is heard of them: of the corpus, beside it, trials."""
        units, rows = self.parts.units, [*self._corpus, *self.parts.spoken(self.config.spoken)]
        trials = list(self.parts.spoken_in_every_class(self.config.split, self.config.limit))
        self.report("prosody of all recordings")
        recordings = [*load_recordings(rows, SAMPLE_RATE), *(samples for _, samples in trials)]
        rows += [row for row, _ in trials]
        assert SAMPLE_RATE == units.sample_rate == CONTOUR_RATE, "the toy corpus has the rate of both"
        found: list[Contour] = contours(recordings)
        speakers = [row.speaker for row in rows]
        levels = voice_levels(speakers, found)
        return list(zip(rows, heard_of(recordings, found, speakers, units, levels), strict=True))


def middle(words: Sequence[object]) -> int:
    """The word from which on a sentence is asked for."""
    return len(words) // 2


def placed(row: Row, flat: Flat) -> Row:
    """A row of ids of a flat stream, without its recording; times of its words are places among the ids."""
    places = [*flat.places([start for _, start, _ in row.words]).tolist(), len(flat.ids)]
    words = tuple(
        (word, begin / float(PLACES), end / float(PLACES))
        for (word, _, _), begin, end in zip(row.words, places, places[1:])
    )
    return replace(row, audio=None, offset=0.0, seconds=None, words=words, tokens={UNITS: flat.ids})
