"""From a recording of any length to pieces that a model can read: what is spoken, cut to the lengths that it learned.

S samples. Samples come as blocks and leave as pieces; no more than a window, a block and a piece are held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np

from unitok.listening.long_audio import AudioChunk, Cutting, cut
from unitok_tokenizers.audio.speech_activity import (
    TARGET_DB,
    SpeechDetector,
    Trimming,
    keep,
    leveled,
    levels,
    loudness,
    shared_samples,
    span_sizes,
    spoken_spans,
)

WINDOW_SECONDS, SEARCH_SECONDS = 20.0, 6.0
"""What is looked at for speech at once, and the end of it within which the quietest moment parts it from the next."""
SMOOTH_FRAMES = 5
SHORT_SECONDS, QUIET_DB = 0.6, TARGET_DB - 40.0
"""Pieces that are shorter, and either hold no speech or nothing louder, are margins."""


def windows(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """(S,) windows of a recording that comes as blocks, parted at quiet moments; together they are the recording."""
    longest = round(WINDOW_SECONDS * rate)
    held = np.zeros(0, dtype=np.float32)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > longest:
            end = longest - quietest(held[longest - round(SEARCH_SECONDS * rate) : longest][::-1], rate)
            yield held[:end]
            held = held[end:]
    if len(held):
        yield held


def quietest(samples: np.ndarray, rate: int) -> int:
    """Index of the quietest tenth of a second of (S,) samples, its middle; the first of equals."""
    found = levels(samples, rate)
    smooth = np.convolve(np.pad(found, SMOOTH_FRAMES // 2, mode="edge"), np.ones(SMOOTH_FRAMES), mode="valid")
    return int((np.argmin(smooth) + 0.5) * len(samples) / len(found))


def first_spoken(blocks: Iterable[np.ndarray], rate: int, seconds: float | None) -> np.ndarray:
    """(S,) float32 of blocks of what is spoken, of which no more are read than `seconds` take; None for all."""
    found, size = list[np.ndarray](), 0
    for block in blocks:
        found.append(block)
        size += len(block)
        if seconds is not None and size >= seconds * rate:
            break
    joined = np.concatenate([*found, np.zeros(0, dtype=np.float32)])
    return joined if seconds is None else joined[: round(seconds * rate)]


class Listener:
    """Reads one recording.

    Args:
        rate: Hz of its samples.
        detector: knows speech from other sounds; levels decide where it is None.
        cutting: how long pieces may become.
        trimming: how much stays around what is spoken.
        whole_seconds: what training saw read at once. An utterance of the longest piece is not cut for the margins and
            the shortened pause that were left in it; two utterances are, since they are read better one by one.
    """

    def __init__(
        self,
        rate: int,
        detector: SpeechDetector | None,
        cutting: Cutting | None = None,
        trimming: Trimming | None = None,
        *,
        whole_seconds: float = 0.0,
    ) -> None:
        self.rate, self.detector = rate, detector
        self.cutting, self.trimming = cutting or Cutting(), trimming or Trimming()
        self.whole_seconds = max(self.cutting.longest, min(whole_seconds, self.cutting.longest + self.trimming.around))
        self._places: list[tuple[int, int]] = [(0, 0)]
        """(samples given so far, where the next one stood in the recording), a pair per span."""

    def spoken(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """(S',) leveled blocks of what is spoken, in order; none where nothing is."""
        given = start = 0
        trimming = self.trimming
        for window in windows(blocks, self.rate):
            (kept,) = spoken_spans([window], self.rate, self.detector, trimming)
            block = keep(leveled(window, self.rate), self.rate, kept, trimming.fade)
            sizes = span_sizes(kept, self.rate, len(window))
            faded = shared_samples(sizes, len(block))
            for (begin, _), size in zip(kept, sizes):
                self._places.append((given, start + round(begin * self.rate)))
                given += size - faded
            start += len(window)
            if kept:
                given += faded  # behind the last one there is no seam
                yield block

    def pieces(self, blocks: Iterable[np.ndarray]) -> Iterator[AudioChunk]:
        """Pieces of what is spoken; `AudioChunk.start` counts spoken samples, see `second`."""
        spoken, held = self.spoken(blocks), list[np.ndarray]()
        while sum(map(len, held)) <= self.whole_seconds * self.rate and (block := next(spoken, None)) is not None:
            held.append(block)
        if 0 < sum(map(len, held)) <= self.whole_seconds * self.rate:
            yield AudioChunk(samples=np.concatenate(held), start=0, overlap=0)
            return
        for piece in cut(chain(held, spoken), self.rate, self.cutting):
            short = len(piece.samples) < SHORT_SECONDS * self.rate  # what a cut in the last pause leaves over
            if len(piece.samples) and not (short and not self._says_something(piece.samples)):
                yield piece

    def _says_something(self, samples: np.ndarray) -> bool:
        return bool(spoken_spans([samples], self.rate, self.detector)[0]) and loudness(samples, self.rate) > QUIET_DB

    def second(self, sample: int) -> float:
        """Where a spoken sample stood in the recording, in seconds; in a shortened pause, as if it ended it."""
        near = sample + self.trimming.margin * self.rate
        given, place = next(pair for pair in reversed(self._places) if pair[0] <= near)
        return (place + sample - given) / self.rate
