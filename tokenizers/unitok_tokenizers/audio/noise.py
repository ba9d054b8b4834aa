"""Noise at a signal-to-noise ratio, drawn from a seed and a name.

S samples.
"""

from __future__ import annotations

import zlib

import numpy as np


def add_noise(samples: np.ndarray, snr_db: float, *, seed: int, name: str = "") -> np.ndarray:
    """(S,) float32 with white Gaussian noise whose power lies `snr_db` dB below the recording's.

    The draw is a function of (seed, name): an utterance's noise does not depend on what else is read. The sum is scaled
    down where it would leave [-1, 1].
    """
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    noise = random.standard_normal(len(samples)) * np.sqrt(power / 10 ** (snr_db / 10))
    noisy = samples.astype(np.float64) + noise
    return (noisy / max(1.0, float(np.abs(noisy).max(initial=0.0)))).astype(np.float32)
