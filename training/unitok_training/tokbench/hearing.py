"""Independent ears on the held-out recordings, and on what became of them.

S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_training.evaluation.ear_scores import RECORDINGS_PER_SPEAKER, EarReading, KnownVoices, ear_figures
from unitok_training.evaluation.ears.interfaces import Ears
from unitok_training.tokbench.corpus import Corpus, load_all
from unitok_training.tokbench.measured import NotMeasured

VOICE_RATE = 16000
"""Hz at which recordings of known voices are read."""


@dataclass(frozen=True, kw_only=True)
class Hearing:
    """Ears with the corpus that they hear."""

    ears: Ears | None
    """None where there are none."""
    corpus: Corpus
    """What is heard."""
    without: str = ""
    """Why there are no ears."""

    @property
    def chosen(self) -> list[int]:
        """Held-out rows that the recognizer can read, by their places; NotMeasured where there are none, or no ears."""
        if self.ears is None:
            raise NotMeasured(self.without)
        lang = None if self.ears.ear is None else self.ears.ear.lang
        found = [place for place, row in enumerate(self.corpus.held_out) if lang is None or row.lang == lang]
        if not found:
            raise NotMeasured(f"no held-out row is {lang}, which the ear reads")
        return found

    @cached_property
    def voices(self) -> KnownVoices:
        """Some recordings of every speaker."""
        rows, rows_of = self.corpus.rows, dict[str, list[int]]()
        for place, row in enumerate(rows):
            known = rows_of.setdefault(row.speaker, [])
            if len(known) < RECORDINGS_PER_SPEAKER:
                known.append(place)
        rows_of.pop("", None)
        return KnownVoices(rows_of, lambda place: rows[place].load(VOICE_RATE), VOICE_RATE)

    def figures(self, audio: Sequence[np.ndarray], sample_rate: int) -> dict[str, float]:
        """Figures of one recording (S,) for each held-out row, of those that can be heard.

        Voices are compared with other recordings of the speaker than the one that is said again.
        """
        chosen = self.chosen
        assert self.ears is not None
        rows = [self.corpus.held_out[place] for place in chosen]
        reading = EarReading(
            audio=[audio[place] for place in chosen],
            sample_rate=sample_rate,
            texts=[row.text or "" for row in rows],
            speakers=[row.speaker or None for row in rows],
            rows=[len(self.corpus.train) + place for place in chosen],
        )
        return ear_figures(self.ears, reading, self.voices)[0]

    def recordings(self) -> dict[str, float]:
        """Figures of the recordings themselves."""
        self.chosen  # noqa: B018  says what is missing before anything is read
        return self.figures(load_all(self.corpus.held_out, VOICE_RATE), VOICE_RATE)
