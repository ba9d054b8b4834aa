"""What a user may give as speech: a path, samples, samples with their rate, or tokens made elsewhere.

S samples, N units, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unitok_tokenizers.audio import LOUDEST, RATES, read_blocks, resample
from unitok_tokenizers.errors import InputError

Audio = str | Path | np.ndarray | tuple[np.ndarray, int]
"""A path, float samples (S,) at the tokenizers' rate, (samples, rate in Hz), or integer units (N,) or codes (F, Q)."""
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au")


def is_tokens(audio: object) -> bool:
    """Whether this is units or codes rather than sound."""
    return isinstance(audio, np.ndarray) and audio.dtype.kind in "iu"


def names_a_file(value: Audio) -> bool:
    """Whether this is the path of a recording: a `Path`, a string with an audio suffix, or that of an existing file."""
    if isinstance(value, Path):
        return True
    if not isinstance(value, str):
        return False
    if value.lower().endswith(AUDIO_SUFFIXES):
        return True
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # longer than any path, or with a null character: text
        return False


def sample_blocks(audio: Audio, rate: int) -> Iterator[np.ndarray]:
    """(S,) float32 blocks at `rate` Hz; a file is read as they are taken, whatever its length.

    Raises:
        InputError: an unreadable file, or samples that are empty, not finite, or not one-dimensional.
    """
    if isinstance(audio, str | Path):
        yield from read_blocks(audio, sample_rate=rate)
        return
    samples, own_rate = audio if isinstance(audio, tuple) else (audio, rate)
    samples = np.asarray(samples)
    if samples.dtype.kind != "f":
        raise InputError(f"samples are {samples.dtype}: give float samples within [-1, 1], or a path")
    if samples.ndim != 1 or not len(samples):
        raise InputError(f"samples have shape {samples.shape}: give one channel (S,) with at least one sample")
    if not RATES[0] <= own_rate <= RATES[1]:
        raise InputError(f"the sample rate is {own_rate}: give it in Hz, {RATES[0]} to {RATES[1]}")
    if not np.isfinite(samples).all():
        raise InputError("samples hold values that are not finite; mend the recording")
    if np.abs(samples).max() > LOUDEST:
        raise InputError(f"samples hold the value {np.abs(samples).max():.3g}; scale them to [-1, 1]")
    yield resample(np.ascontiguousarray(samples, dtype=np.float32), own_rate, rate)


def read_samples(audio: Audio, rate: int) -> np.ndarray:
    """(S,) float32 samples at `rate` Hz, all at once; errors as `sample_blocks`."""
    return np.concatenate(list(sample_blocks(audio, rate)))


def check_tokens(tokens: np.ndarray, cardinalities: tuple[int, ...], name: str) -> np.ndarray:
    """Tokens as int64, each below its codebook's cardinality; InputError otherwise."""
    wanted = "(N,)" if len(cardinalities) == 1 else f"(F, {len(cardinalities)})"
    if tokens.ndim != (1 if len(cardinalities) == 1 else 2) or not tokens.size:
        raise InputError(f"{name} have shape {tokens.shape}: give {wanted}, not empty")
    table = tokens.reshape(len(tokens), -1)
    if table.shape[1] != len(cardinalities) or (table < 0).any() or (table >= np.asarray(cardinalities)).any():
        raise InputError(f"{name} of shape {tokens.shape} do not fit {wanted} with ids below {cardinalities}")
    return tokens.astype(np.int64)
