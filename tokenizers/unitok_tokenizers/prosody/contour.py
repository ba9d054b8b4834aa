"""Pitch, loudness and brightness of a voice, frame by frame: what tokens of prosody are made of.

The pitch is one path through all frames (Boersma 1993): what is no voice, and which octave, is decided of the whole
recording, so that neither a creak nor a loud harmonic makes it leap. Nothing depends on how loud a recording is.

S samples, F frames (100 Hz), P pitches, one of them none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from unitok_tokenizers.encoders.pitch import HOP, SAMPLE_RATE, WINDOW, correlations, windows

RATE = SAMPLE_RATE // HOP
"""Frames a second."""
LOWEST, HIGHEST, PITCHES = 60.0, 520.0, 112
"""Pitches in Hz that are looked for, 36 an octave: from a low man's to an excited child's."""
FINER = 4
"""Steps of a sample between the lags that are compared."""
VOICED = 0.45
"""Correlation with the period before from which a frame counts as voice; noise stays below."""
HIGHER = 0.04
"""What an octave higher is worth in correlation: every multiple of a period correlates as well, and of pitches that lie
between two of those looked for a long period by up to .03 better than a short one."""
LEAP, SWITCH = 0.35, 0.14
"""Cost in correlation of an octave from one frame to the next, and of a voice that begins or ends."""
QUIETEST = 40.0
"""dB below the loud frames of a recording from which on a frame is silence, whatever correlates in it."""
SILENCE = 1e-5
"""Level (root mean square of the loud frames) of a recording in which there is nothing at all."""
LOUD = 0.1
"""Level that recordings are brought to."""
NEAR = 0.01
"""Level of a frame, over that of the loudest, from which on it tells how loud a recording is: 40 dB below."""
BRIGHT = 1000.0
"""Hz between the two bands that brightness compares."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contour:
    """A recording's frames, 100 a second."""

    octaves: np.ndarray
    """(F,) float32 log2 of the pitch in Hz; NaN where there is no voice."""
    level: np.ndarray
    """(F,) float32 dB over the loud frames of the recording; -`QUIETEST` and lower is silence."""
    brightness: np.ndarray
    """(F,) float32 dB of what is above `BRIGHT` over what is below: a strained voice is brighter."""

    def __len__(self) -> int:
        return len(self.octaves)

    @property
    def voiced(self) -> np.ndarray:
        """(F,) bool."""
        found: np.ndarray = ~np.isnan(self.octaves)
        return found

    @property
    def own_level(self) -> float:
        """log2 of the pitch around which this voice moves: the middle one of its frames; 0 where there is no voice."""
        return float(np.median(self.octaves[self.voiced])) if self.voiced.any() else 0.0


@torch.no_grad()
def contour(samples: np.ndarray) -> Contour:
    """(S,) float32 at `SAMPLE_RATE` → its frames, at least one."""
    frames = windows(samples).numpy()
    levels = _level(frames)
    loud = float(np.quantile(levels[levels >= levels.max() * NEAR], 0.95))  # however much silence is around it
    scale = np.float32(LOUD / loud if loud > SILENCE else 0.0)
    frames *= scale
    level = 20 * np.log10(np.maximum(_level(frames), 1e-6) / LOUD)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (F, N / 2 + 1)
    high = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE) >= BRIGHT
    below, above = power[:, ~high].sum(1) + 1e-6, power[:, high].sum(1) + 1e-6
    alike = correlations(
        samples * scale, LOWEST, HIGHEST, PITCHES, finer=FINER
    ).numpy()  # (F, P), the longest period first
    rising = np.logical_and.accumulate((alike[:, 1:] > alike[:, :-1])[:, ::-1], axis=1)[:, ::-1]
    alike[:, 1:][rising] = 0  # next to no shift at all everything is alike: this is no period
    alike[level < -QUIETEST] = 0
    return Contour(
        octaves=_path(alike.astype(np.float64)).astype(np.float32),
        level=level.astype(np.float32),
        brightness=(10 * np.log10(above / below)).astype(np.float32),
    )


def _level(frames: np.ndarray) -> np.ndarray:
    """(F, N) → root mean square (F,)."""
    found: np.ndarray = np.sqrt((frames**2).mean(1))
    return found


def _path(alike: np.ndarray) -> np.ndarray:
    """Correlations (F, P) → log2 of the pitch (F,) on the best path, NaN where it is not voiced (Viterbi)."""
    grid = np.linspace(np.log2(LOWEST), np.log2(HIGHEST), PITCHES)
    worth = np.concatenate([alike + HIGHER * (grid - grid[0]), np.full((len(alike), 1), VOICED)], axis=1)
    cost = np.full((PITCHES + 1, PITCHES + 1), SWITCH)  # (to, from)
    cost[:PITCHES, :PITCHES] = LEAP * np.abs(grid[:, None] - grid)
    cost[PITCHES, PITCHES] = 0
    best, before = worth[0], np.zeros(worth.shape, np.int64)
    for frame in range(1, len(worth)):
        reached = best - cost
        before[frame] = reached.argmax(1)
        best = reached.max(1) + worth[frame]
    place = np.empty(len(worth), np.int64)
    place[-1] = best.argmax()
    for frame in range(len(worth) - 1, 0, -1):
        place[frame - 1] = before[frame, place[frame]]
    return np.where(place < PITCHES, _between(alike, grid, np.minimum(place, PITCHES - 1)), np.nan)


def _between(alike: np.ndarray, grid: np.ndarray, place: np.ndarray) -> np.ndarray:
    """log2 of the pitch (F,) at the top of the parabola through three correlations around each place (F,)."""
    rows, inner = np.arange(len(place)), np.clip(place, 1, len(grid) - 2)
    left, top, right = (alike[rows, inner + step] for step in (-1, 0, 1))
    bend = left - 2 * top + right
    shift = np.where(bend < 0, 0.5 * (left - right) / np.where(bend < 0, bend, 1.0), 0.0)
    found: np.ndarray = grid[place] + np.where(place == inner, np.clip(shift, -0.5, 0.5), 0.0) * (grid[1] - grid[0])
    return found
