"""The oracle recognizer of the toy corpus: reads words, voice and prosody class from audio, without training.

Connected-word recognition by dynamic programming (Vintsyuk 1971; Ney 1984): every frame is compared with the known
segments of every known voice, words are chains of segments, and the cheapest path through words and gaps is the
answer. What it gets wrong on the corpus's own audio bounds what it may be used to judge.

S samples, F frames, D features, P pitches, G segments (the gap last), J states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch

from unitok_tokenizers.audio.features import MelConfig, log_mel, mfcc
from unitok_tokenizers.corpora.toy import (
    CONTOURS,
    LANGUAGES,
    SAMPLE_RATE,
    SEGMENTS,
    SPEAKERS,
    Speaker,
    lexicon,
    synthesize_segment,
)
from unitok_tokenizers.errors import InputError

# A short window keeps neighboring segments apart; the bins are wide enough to blur single harmonics.
MEL = MelConfig(n_fft=512, win_length=400, hop_length=160, num_mels=32)
CEPSTRA = 16
TEMPLATE_SECONDS = 0.12
PITCHES = (0.86, 0.95, 1.05, 1.15)
"""Pitches of the templates in parts of the voice's own: single harmonics show in the lowest bins."""
WORD_PENALTY = 12.0
"""Cost of entering a word, in units of one feature's squared deviation."""
STAY, ADVANCE, ENTER = 0, 1, 2
FLAT_SLOPE = 0.15
"""Change of log pitch over an utterance that still counts as flat; the corpus's contours change by 0.34."""


@dataclass(frozen=True)
class Recognized:
    """What the oracle reads."""

    text: str
    speaker: str
    """Name of the nearest known voice."""
    prosody: str
    """flat, rise or fall."""
    words: tuple[tuple[str, float, float], ...]
    """(word, start, end) in seconds."""
    cost: float
    """Mean distance per frame; far above that of the corpus's own audio, the rest is a guess."""


def features(samples: np.ndarray) -> np.ndarray:
    """(S,) → (F, D) float32: cepstra without level, and the level below the recording's loud parts."""
    padded = np.pad(samples.astype(np.float32), (0, max(0, MEL.n_fft - len(samples))))
    cepstra = mfcc(log_mel(torch.from_numpy(padded), MEL), CEPSTRA).numpy()
    level = np.maximum(cepstra[:, :1] - np.quantile(cepstra[:, 0], 0.9), -20.0)
    return np.concatenate([cepstra[:, 1:], 0.5 * level], axis=1)


@cache
def templates(speaker: Speaker) -> np.ndarray:
    """(P, G, D): the mean features of each segment at P pitches, and of the voice's own silence last."""
    random = np.random.default_rng(7)
    count = round(TEMPLATE_SECONDS * SAMPLE_RATE)
    silence = _cepstra(random.normal(0, speaker.breath, 4 * count)).mean(axis=0)
    table = []
    for factor in PITCHES:
        pitch = np.full(count, speaker.pitch * factor)
        phase = np.cumsum(pitch) / SAMPLE_RATE
        sounds = [synthesize_segment(one, speaker, pitch, phase, random) for one in SEGMENTS.values()]
        noisy = [sound + random.normal(0, speaker.breath, count) for sound in sounds]
        table.append([*(_cepstra(sound)[2:-2].mean(axis=0) for sound in noisy), silence])
    found = np.asarray(table)
    level = np.maximum(found[..., :1] - np.quantile(found[:, :-1, 0], 0.9), -20.0)
    return np.concatenate([found[..., 1:], 0.5 * level], axis=-1).astype(np.float32)


def _cepstra(samples: np.ndarray) -> np.ndarray:
    return mfcc(log_mel(torch.from_numpy(samples.astype(np.float32)), MEL), CEPSTRA).numpy()


@dataclass(frozen=True)
class _Network:
    """The words of the languages as chains of states; state 0 is the gap."""

    words: tuple[str, ...]
    segment: np.ndarray
    """(J,) segment of each state."""
    word: np.ndarray
    """(J,) word of each state, -1 for the gap."""
    first: np.ndarray
    """(J,) bool: begins a word."""
    last: np.ndarray
    """Indices of states that end a word, and of the gap."""


def _network(languages: Sequence[str]) -> _Network:
    words = tuple(word for code in languages for group in lexicon(code).values() for word in group)
    letters = list(SEGMENTS)
    segment, word, first, last = [len(letters)], [-1], [False], [0]
    for number, spelling in enumerate(words):
        for place, letter in enumerate(spelling):
            segment.append(letters.index(letter))
            word.append(number)
            first.append(place == 0)
        last.append(len(segment) - 1)
    return _Network(words, np.array(segment), np.array(word), np.array(first), np.array(last))


class Oracle:
    """Reads toy speech.

    Args:
        speakers: the voices that it may name.
        languages: whose words it may hear.
    """

    def __init__(self, speakers: Sequence[Speaker] = SPEAKERS, languages: Sequence[str] = LANGUAGES) -> None:
        self.speakers = tuple(speakers)
        self.networks = {code: _network([code]) for code in languages}
        self.every = _network(languages)

    @cached_property
    def _templates(self) -> np.ndarray:
        """(speakers, P, G, D)."""
        return np.stack([templates(speaker) for speaker in self.speakers])

    @cached_property
    def _deviation(self) -> np.ndarray:
        """(D,): how much features differ between segments, the unit that distances are counted in."""
        return self._templates[:, :, :-1].std(axis=(0, 1, 2)) / 2

    def hear(self, samples: np.ndarray, lang: str | None = None) -> Recognized:
        """Read a recording (S,) at 16 kHz in one language, or in any of them.

        Raises:
            InputError: an unknown language, or a recording without samples.
        """
        if lang is not None and lang not in self.networks:
            raise InputError(f"the oracle does not know language {lang!r}; it knows {', '.join(self.networks)}")
        if not len(samples):
            raise InputError("no samples to read; give a recording")
        network = self.every if lang is None else self.networks[lang]
        found = features(samples) / self._deviation
        best: tuple[float, int, np.ndarray] | None = None
        for index in range(len(self.speakers)):
            centres = self._templates[index] / self._deviation
            distances = ((found[:, None, None] - centres[None]) ** 2).sum(axis=3).min(axis=1)  # (F, G)
            cost, states = _cheapest(np.minimum(distances, 60.0), network)
            if best is None or cost < best[0]:
                best = (cost, index, states)
        assert best is not None
        cost, index, states = best
        words = _words(states, network)
        return Recognized(
            text=" ".join(word for word, _, _ in words),
            speaker=self.speakers[index].name,
            prosody=_prosody(samples, _voiced(states, network), self.speakers[index].pitch),
            words=tuple(words),
            cost=cost / len(states),
        )

    def transcribe(self, recordings: Sequence[np.ndarray], langs: Sequence[str]) -> list[str]:
        """Texts of recordings whose languages are known."""
        return [self.hear(samples, lang).text for samples, lang in zip(recordings, langs, strict=True)]


def _cheapest(distances: np.ndarray, network: _Network) -> tuple[float, np.ndarray]:
    """Distances (F, G) → the least cost, and its state (F,) with the first frame of a word marked by ~state."""
    frames, states = len(distances), len(network.segment)
    local = distances[:, network.segment]  # (F, J)
    score = np.where(network.first, WORD_PENALTY, np.inf) + local[0]
    score[0] = local[0, 0]
    choice = np.zeros((frames, states), dtype=np.int8)
    source = np.zeros(frames, dtype=np.int64)
    choice[0] = ENTER
    for frame in range(1, frames):
        end = int(network.last[np.argmin(score[network.last])])
        source[frame] = end
        other = np.where(network.first, score[end] + WORD_PENALTY, np.concatenate([[np.inf], score[:-1]]))
        other[0] = score[end]
        moved = other < score
        choice[frame] = np.where(moved, np.where(network.first, ENTER, ADVANCE), STAY)
        choice[frame, 0] = ENTER if moved[0] else STAY
        score = np.where(moved, other, score) + local[frame]
    state = int(network.last[np.argmin(score[network.last])])
    cost = float(score[state])
    path = np.zeros(frames, dtype=np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        move = choice[frame, state]
        if move == ENTER:
            path[frame] = ~state
            state = int(source[frame])
        elif move == ADVANCE:
            state -= 1
    return cost, path


def _words(path: np.ndarray, network: _Network) -> list[tuple[str, float, float]]:
    seconds = MEL.hop_length / SAMPLE_RATE
    found: list[tuple[str, float, float]] = []
    for frame, mark in enumerate(path.tolist()):
        state = ~mark if mark < 0 else mark
        number = int(network.word[state])
        if number < 0:
            continue
        if mark < 0:
            found.append((network.words[number], frame * seconds, frame * seconds))
        word, start, _ = found[-1]
        found[-1] = (word, start, (frame + 1) * seconds)
    return found


def _voiced(path: np.ndarray, network: _Network) -> np.ndarray:
    """Frames (F,) that the path explains by a voiced segment."""
    voiced = np.array([not segment.noise for segment in SEGMENTS.values()] + [False])
    return voiced[network.segment[np.where(path < 0, ~path, path)]]


def _prosody(samples: np.ndarray, voiced: np.ndarray, pitch: float) -> str:
    """Class of the slope of log pitch, which autocorrelation finds near the voice's own."""
    size, lags = 960, np.arange(int(SAMPLE_RATE / (pitch * 1.4)), int(SAMPLE_RATE / (pitch * 0.7)) + 1)
    times, pitches = [], []
    for frame in np.flatnonzero(voiced):
        begin = frame * MEL.hop_length - size // 2
        piece = samples[max(begin, 0) : begin + size]
        if len(piece) < size:
            continue
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(size), 2 * size)) ** 2
        correlation = np.fft.irfft(spectrum)[lags] / (1 - lags / (2 * size))
        times.append(frame / len(voiced))
        pitches.append(np.log(SAMPLE_RATE / lags[int(np.argmax(correlation))]))
    if len(times) < 3:
        return "flat"
    # Pairwise slopes and their median (Theil-Sen): a few octave or boundary errors do not tilt the line.
    steps, rises = np.subtract.outer(times, times), np.subtract.outer(pitches, pitches)
    far = steps > 0.2
    slope = float(np.median(rises[far] / steps[far])) if far.any() else 0.0
    rise, fall = tuple(CONTOURS)[1:]
    return "flat" if abs(slope) < FLAT_SLOPE else rise if slope > 0 else fall
