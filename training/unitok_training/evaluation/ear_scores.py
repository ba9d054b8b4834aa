"""What ears make of recordings and of generated speech, as figures of an evaluation.

Keys, each below the name of a group of recordings such as `ears.recordings` or `tts.codes.ears`: `wer` and `count`,
`similarity` and `similarity_impostor` (cosines with other recordings of the speaker, and with those of other speakers,
which say what the first is worth), `dnsmos`; `<name>_wer` by each of `Ears.others`.

N recordings, S samples, E width of a voice vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from unitok_tokenizers.audio.io import resample
from unitok_tokenizers.progress import advance_aside
from unitok_training.evaluation.ears.interfaces import Ear, Ears
from unitok_training.evaluation.metrics import wer

PORTION = 8
"""Recordings that an ear is given at once."""
RECORDINGS_PER_SPEAKER = 8
"""How many recordings a speaker's vector is the mean of."""


@dataclass(frozen=True, kw_only=True)
class EarReading:
    """Recordings of one language with what is true of them."""

    audio: Sequence[np.ndarray]
    """(S,) float32 each."""
    sample_rate: int
    """Hz of `audio`."""
    texts: Sequence[str]
    """What should be said."""
    speakers: Sequence[str | None]
    """Whose voice it should be; None where nobody's in particular."""
    rows: Sequence[int | None]
    """Row of the shards that a recording comes from, which it is not compared with; None where it is generated."""


@dataclass
class KnownVoices:
    """Recordings of the speakers of a corpus, embedded when they are first asked for."""

    rows_of: dict[str, list[int]]
    """Speaker → some rows."""
    audio_of: Callable[[int], np.ndarray]
    """Row → samples (S,)."""
    sample_rate: int
    """Hz of those samples."""
    _vectors: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def vector(self, ears: Ears, speaker: str, without: int | None) -> np.ndarray | None:
        """(E,) of length 1, of all of a speaker's recordings but row `without`; None where none is left."""
        assert ears.speaker is not None
        rows = self.rows_of.get(speaker, [])[:RECORDINGS_PER_SPEAKER]
        if speaker not in self._vectors:
            rate = ears.speaker.sample_rate
            sounds = [resample(self.audio_of(row), self.sample_rate, rate) for row in rows]
            self._vectors[speaker] = list(ears.speaker.embed(sounds))
        kept = [vector for row, vector in zip(rows, self._vectors[speaker]) if row != without]
        total = np.sum(kept, axis=0) if kept else np.zeros(1)
        length = float(np.linalg.norm(total))
        return total / length if length > 0 else None


def portions(sounds: Sequence[np.ndarray], unit: str) -> Iterator[Sequence[np.ndarray]]:
    """A few recordings at a time, counted as they are done: an ear takes a second for each."""
    for start in range(0, len(sounds), PORTION):
        advance_aside(unit, start, len(sounds))
        yield sounds[start : start + PORTION]


def ear_figures(ears: Ears, heard: EarReading, voices: KnownVoices) -> tuple[dict[str, float], list[str]]:
    """The figures of some recordings by the last part of their keys, and what the ear read of each.

    The texts are empty where there is no recognizer.
    """
    figures: dict[str, float] = {"count": len(heard.audio)}
    read: list[str] = []
    if ears.ear is not None:
        read = read_by(ears.ear, heard, "wer", figures)
    for name, ear in ears.others.items():
        read_by(ear, heard, f"{name}_wer", figures)
    if ears.speaker is not None:
        figures |= similarities(ears, heard, voices)
    if ears.quality is not None:
        rate = ears.quality.sample_rate
        sounds = [resample(one, heard.sample_rate, rate) for one in heard.audio]
        each = [ears.quality.rate(portion) for portion in portions(sounds, "recording marked by ears")]
        marks = np.concatenate(each) if each else np.zeros(0)
        if np.isfinite(marks).any():
            figures["dnsmos"] = float(np.nanmean(marks))
    return figures, read


def read_by(ear: Ear, heard: EarReading, key: str, figures: dict[str, float]) -> list[str]:
    """What an ear reads of each recording; its word errors go into the figures, where there are words."""
    sounds = [resample(one, heard.sample_rate, ear.sample_rate) for one in heard.audio]
    read = [text for portion in portions(sounds, "recording read by ears") for text in ear.transcribe(portion)]
    pairs = [(ear.normalize(text), output) for text, output in zip(heard.texts, read)]
    pairs = [pair for pair in pairs if pair[0]]  # of "mhm" the normalizer leaves nothing
    if pairs:
        figures[key] = wer([reference for reference, _ in pairs], [output for _, output in pairs])
    return read


def similarities(ears: Ears, heard: EarReading, voices: KnownVoices) -> dict[str, float]:
    """Mean cosines with the right speaker and with all others; empty where no speaker can be compared."""
    assert ears.speaker is not None
    rate = ears.speaker.sample_rate
    vectors = ears.speaker.embed([resample(one, heard.sample_rate, rate) for one in heard.audio])
    right: list[float] = []
    wrong: list[float] = []
    for vector, speaker, row in zip(vectors, heard.speakers, heard.rows):
        own = voices.vector(ears, speaker, row) if speaker is not None else None
        if own is None:
            continue
        right.append(float(vector @ own))
        others = [voices.vector(ears, other, None) for other in voices.rows_of if other != speaker]
        wrong += [float(vector @ other) for other in others if other is not None]
    figures = {"similarity": float(np.mean(right))} if right else {}
    return figures | ({"similarity_impostor": float(np.mean(wrong))} if wrong else {})
