"""Where in a recording somebody speaks, and the recording without the rest: what stands in front of every tokenizer.

Silence or noise before, behind and between what is said must change nothing. An energy gate alone takes babble for
speech and the end of a sentence for noise; a recognizer that was trained among noises knows better (its blanks), and
where a tokenizer has none, levels are all there is to go by.

S samples, F level frames (20 ms), E activity frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from unitok_tokenizers.audio.io import resample

FRAME_SECONDS = 0.02
SILENCE_DB = -95.0
"""Level (full scale = 0 dB) below which there is nothing at all: less than half a step of 16-bit audio."""
TARGET_DB = -16.0
"""Level that the loudest moments of a recording are brought to before it is read."""
LOUD_SECONDS = 0.3
"""The loudest so many seconds say how loud a recording is: a share of it would depend on the silence around them."""
FLOOR_SHARE = 0.1
"""Share of a recording's frames that lie below what counts as its noise."""
ABOVE_FLOOR_DB, BELOW_LOUD_DB, LEAST_CONTRAST_DB = 6.0, 40.0, 2.5
"""Levels alone call a frame spoken that is so far above the noise, and not so far below the loudest moments; a
recording whose loudest moments are not `LEAST_CONTRAST_DB` above its noise holds no speech."""

NEAR_LOUD_DB = 12.0
"""What is not further below the loudest moments is taken for speech where it stands among speech."""


@runtime_checkable
class SpeechDetector(Protocol):
    """Something that knows speech from other sounds."""

    sample_rate: int
    """Hz of the samples that it takes."""

    def activity(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        """(S,) float32 each → (E,) bool each, frames of equal length over the recording in which something is said."""


@dataclass(frozen=True, kw_only=True)
class Trimming:
    """How much stays around what is spoken, in seconds."""

    margin: float = 0.35
    """Before the first and behind the last sign of speech of a span: recognizers mark the middle of a sound."""
    pause: float = 0.6
    """Longest pause that is left as it is."""
    inner: float = 0.2
    """What a longer pause keeps on either side."""
    fade: float = 0.005
    """Cross-fade where something was taken out, so that there is no click."""

    @property
    def around(self) -> float:
        """Seconds that an utterance with silence before, behind and once within it keeps of that."""
        return 2 * self.margin + 2 * self.inner


def levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """(F,) level of each whole 20 ms frame in dB, full scale = 0; one frame of a recording that is shorter."""
    hop = max(1, min(round(FRAME_SECONDS * rate), len(samples)))
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    return 10.0 * np.log10(np.mean(frames.astype(np.float64) ** 2, axis=1) + 1e-12)


def noise_db(samples: np.ndarray, rate: int) -> float:
    """Level of the quietest tenth of a recording's (S,) frames against its loudest twentieth, in dB: an estimate of the
    noise under what is said. The lower, the cleaner, and -80 at least."""
    found = levels(samples, rate)
    return max(-80.0, float(np.percentile(found, 10) - np.percentile(found, 95))) if len(found) else 0.0


def loudness(samples: np.ndarray, rate: int) -> float:
    """Level in dB that the loudest `LOUD_SECONDS` of (S,) samples reach; silence added to them does not change it."""
    found = np.sort(levels(samples, rate))[::-1]
    place = min(round(LOUD_SECONDS / FRAME_SECONDS), max(1, len(found) // 3)) - 1
    return float(found[place]) if len(found) else -120.0


def leveled(samples: np.ndarray, rate: int) -> np.ndarray:
    """(S,) samples without offset, their loudest moments brought to `TARGET_DB`; silence stays as it is."""
    centered = samples - np.mean(samples, dtype=np.float64).astype(np.float32) if len(samples) else samples
    level = loudness(centered, rate)
    return centered if level < SILENCE_DB else centered * np.float32(10 ** ((TARGET_DB - level) / 20))


def activity_by_level(samples: np.ndarray, rate: int) -> np.ndarray:
    """(F,) bool by levels alone, for tokenizers without a recognizer."""
    found = levels(samples - np.mean(samples), rate)
    loud, floor = loudness(samples - np.mean(samples), rate), float(np.quantile(found, FLOOR_SHARE))
    if loud < SILENCE_DB or (loud - floor < LEAST_CONTRAST_DB and len(found) * FRAME_SECONDS > LOUD_SECONDS):
        return np.zeros(len(found), dtype=bool)
    return found > max(loud - BELOW_LOUD_DB, min(floor + ABOVE_FLOOR_DB, loud - LEAST_CONTRAST_DB))


def may_be_trimmed(samples: np.ndarray, rate: int, trimming: Trimming | None = None) -> bool:
    """Whether anything of (S,) samples could be left out, if somebody speaks in it: a look at levels, for corpora.

    Moments near the loudest ones are kept whatever a detector says, so that none is asked where no more than a margin
    lies before, behind and between them.
    """
    trimming = trimming or Trimming()
    loud = np.flatnonzero(levels(samples, rate) > loudness(samples, rate) - NEAR_LOUD_DB)
    if not len(loud):
        return True
    step = len(samples) / rate / len(levels(samples, rate))
    ends = max(float(loud[0]) * step, len(samples) / rate - float(loud[-1] + 1) * step)
    pauses = float(np.diff(loud).max(initial=0)) * step
    return ends > trimming.margin or pauses > trimming.pause


def spans(active: np.ndarray, seconds: float, trimming: Trimming | None = None) -> list[tuple[float, float]]:
    """(start, end) in seconds of what is kept of a recording of so many, given its activity (E,)."""
    trimming = trimming or Trimming()
    found = np.flatnonzero(active)
    if not len(found):
        return []
    step = seconds / len(active)
    breaks = np.flatnonzero(np.diff(found) * step > trimming.pause)
    inner = np.full(len(breaks), trimming.inner)
    starts = found[np.concatenate([[0], breaks + 1])] * step - np.concatenate([[trimming.margin], inner])
    ends = (found[np.concatenate([breaks, [len(found) - 1]])] + 1) * step + np.concatenate([inner, [trimming.margin]])
    return [(max(0.0, float(a)), min(seconds, float(b))) for a, b in zip(starts, ends)]


def keep(samples: np.ndarray, rate: int, kept: Sequence[tuple[float, float]], fade: float = 0.005) -> np.ndarray:
    """(S',) the spans of (S,) samples one after another."""
    pieces = [samples[round(a * rate) : round(b * rate)] for a, b in kept]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        return np.zeros(0, dtype=np.float32)
    size = min(round(fade * rate), *(len(piece) // 2 for piece in pieces))
    ramp = np.linspace(0.0, 1.0, size, dtype=np.float32)
    joined = pieces[0]
    for piece in pieces[1:]:
        seam = joined[len(joined) - size :] * (1 - ramp) + piece[:size] * ramp
        joined = np.concatenate([joined[: len(joined) - size], seam, piece[size:]])
    return joined


def moved(second: float, kept: Sequence[tuple[float, float]], seam: float = 0.0) -> float:
    """Where a moment of a recording lies in its kept spans; the nearest one that is kept, if it is not.

    At every seam the spans share `seam` seconds, in which one fades into the other.
    """
    before = 0.0
    for begin, end in kept:
        if second <= end:
            return before + max(0.0, second - begin)
        before += end - begin - seam
    return before + seam


def shared_samples(sizes: Sequence[int], joined: int) -> int:
    """Samples that `keep` has let spans of these sizes share at each seam, as it made `joined` of them."""
    seams = max(1, sum(size > 0 for size in sizes) - 1)
    return (sum(sizes) - joined) // seams


def span_sizes(kept: Sequence[tuple[float, float]], rate: int, samples: int) -> list[int]:
    """Samples of each span of a recording of so many."""
    return [min(round(end * rate), samples) - round(begin * rate) for begin, end in kept]


def spoken_spans(
    recordings: Sequence[np.ndarray], rate: int, detector: SpeechDetector | None, trimming: Trimming | None = None
) -> list[list[tuple[float, float]]]:
    """Spans in seconds that are worth reading of recordings (S,) at `rate` Hz; none where nothing is spoken."""
    found: list[list[tuple[float, float]]] = [[] for _ in recordings]
    audible = [i for i, one in enumerate(recordings) if len(one) and loudness(one - np.mean(one), rate) >= SILENCE_DB]
    if detector is None:
        active = [activity_by_level(recordings[index], rate) for index in audible]
    else:
        active = detector.activity([resample(recordings[index], rate, detector.sample_rate) for index in audible])
    for index, one in zip(audible, active):
        found[index] = spans(one, len(recordings[index]) / rate, trimming)
    return found


def spoken_parts(
    recordings: Sequence[np.ndarray], rate: int, detector: SpeechDetector | None, trimming: Trimming | None = None
) -> list[np.ndarray]:
    """What is spoken in recordings (S,) at `rate` Hz, (S',) each, empty where nothing is.

    Silence and noise at the ends are left out but for a margin, long pauses are shortened; the rest is untouched.
    """
    trimming = trimming or Trimming()
    found = spoken_spans(recordings, rate, detector, trimming)
    return [keep(one, rate, kept, trimming.fade) for one, kept in zip(recordings, found)]
