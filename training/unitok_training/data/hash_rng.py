"""Random numbers by name: a pure function of whole-number keys, so that any draw can be repeated alone.

A generator object per example costs more than rendering the example. These numbers come from a counter instead: the
keys (seed, task, number, which draw) are folded one after another through the finalizer of SplitMix64 (Steele, Lea and
Flood, "Fast splittable pseudorandom number generators", 2014), for whole arrays at once. N draws.
"""

from __future__ import annotations

import numpy as np

Key = int | np.ndarray
"""A key of a draw: one whole number for all, or one for each (N,)."""

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def bits(*keys: Key) -> np.ndarray:
    """64 random bits for each combination of keys: uint64, of the keys' common shape."""
    state = np.zeros((), np.uint64)
    for key in keys:
        part = np.uint64(key & _MASK) if isinstance(key, int) else np.asarray(key).astype(np.uint64)
        with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is meant
            state = state + part + np.uint64(_GOLDEN)
            state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
            state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
            state = state ^ (state >> np.uint64(31))
    return np.asarray(state)


def uniform(*keys: Key) -> np.ndarray:
    """Floats in [0, 1) with 53 random bits."""
    return (bits(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(limit: int | np.ndarray, *keys: Key) -> np.ndarray:
    """Whole numbers in [0, limit), int64; `limit` is 1 or more, for all or for each draw."""
    return (uniform(*keys) * limit).astype(np.int64)
