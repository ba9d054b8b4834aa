"""Reading and writing audio: whatever soundfile opens becomes mono float32 at the rate that was asked for.

Shape legend: S samples, C channels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from unitok_tokenizers.errors import InputError


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample (S,) float32 between rates in Hz."""
    if from_rate == to_rate:
        return samples
    import soxr

    return soxr.resample(samples, from_rate, to_rate).astype(np.float32)


def read_audio(path: Path | str, *, sample_rate: int, offset: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Read a recording, or a part of it, as mono.

    Args:
        path: any file that libsndfile reads (WAV, FLAC, OGG, MP3 …), any rate, channels are averaged.
        sample_rate: rate of the result in Hz.
        offset: where to start, in seconds.
        seconds: how much to read; None reads to the end.

    Returns:
        (S,) float32, within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, unreadable, cut short, empty, or holds values that are not finite.
    """
    import soundfile

    if not os.path.exists(path):
        raise InputError(f"no audio file {path}; check the path in the manifest or command")
    try:
        with soundfile.SoundFile(path) as file:
            rate, expected = file.samplerate, file.frames
            start = round(offset * rate)
            file.seek(min(start, expected))
            count = expected - start if seconds is None else round(seconds * rate)
            data = file.read(max(count, 0), dtype="float32", always_2d=True)  # (S, C)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise InputError(f"cannot read audio {path}: {error}; convert it to WAV or FLAC") from error
    if seconds is None and len(data) < expected - start:
        raise InputError(f"audio {path} is cut short: {len(data)} of {expected - start} samples; copy the file again")
    if not len(data):
        raise InputError(f"audio {path} holds no samples at {offset:.2f} s; remove the row or mend the file")
    samples = data.mean(axis=1) if data.shape[1] > 1 else data[:, 0]  # (S,)
    if not np.isfinite(samples).all():
        raise InputError(f"audio {path} holds values that are not finite; mend the file")
    return resample(np.ascontiguousarray(samples), rate, sample_rate)


def write_audio(path: Path | str, samples: np.ndarray, sample_rate: int) -> None:
    """Write (S,) float samples as 16-bit audio in the format of the suffix; louder than full scale is clipped."""
    import soundfile

    target = Path(path)
    draft = target.with_name(f".{target.stem}.part{target.suffix or '.wav'}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(draft, np.clip(samples, -1.0, 1.0), sample_rate, subtype="PCM_16")
        os.replace(draft, target)
    except (soundfile.LibsndfileError, TypeError, ValueError, OSError) as error:
        draft.unlink(missing_ok=True)
        raise InputError(
            f"cannot write audio {path}: {error}; use a writable folder and a .wav or .flac name"
        ) from error


def audio_seconds(path: Path | str) -> float:
    """Duration of a recording from its header, in seconds."""
    import soundfile

    try:
        return float(soundfile.info(str(path)).duration)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(f"cannot read audio {path}: {error}; convert it to WAV or FLAC") from error
