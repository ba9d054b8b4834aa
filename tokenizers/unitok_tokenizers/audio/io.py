"""Reading and writing audio: whatever soundfile opens becomes mono float32 at the rate that was asked for.

Shape legend: S samples, C channels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np

from unitok_tokenizers.audio.downmix import Downmix
from unitok_tokenizers.audio.recording import open_recording
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import cannot_write, check_no_device, draft_of, ensure_writable_parent, open_draft

BLOCK_FRAMES = 1 << 18
RATES = (1_000, 768_000)
"""Sample rates in Hz that a recording may have: outside them a header is damaged, and its length would be absurd."""
LOUDEST = 1e5
"""Largest value of float samples: integers that nobody scaled pass, garbage that overflows features does not."""
OVERSHOOT_SECONDS = 0.5
"""How far a part may reach beyond its recording (Kaldi's --max-overshoot): alignments are not exact."""


def resample(samples: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample (S,) float32 between rates in Hz."""
    if from_rate == to_rate:
        return samples
    import soxr

    return soxr.resample(samples, from_rate, to_rate).astype(np.float32)


def _checked(data: np.ndarray, path: Path | str) -> np.ndarray:
    """(S, C) as it is; InputError where values are no samples."""
    loudest = np.abs(data).max()
    if not np.isfinite(loudest):
        raise InputError(f"audio {path} holds values that are not finite; mend the file")
    if loudest > LOUDEST:
        raise InputError(f"audio {path} holds the value {loudest:.3g}; scale it to [-1, 1]")
    return data


def read_blocks(
    path: Path | str,
    *,
    sample_rate: int,
    offset: float = 0.0,
    seconds: float | None = None,
    held: bytes | None = None,
) -> Iterator[np.ndarray]:
    """Read a recording as `read_audio` does, block by block: memory does not grow with its length.

    With `held`, those bytes of a file are read, and `path` is what messages call it.

    Yields:
        (S,) float32 blocks whose concatenation is what `read_audio` returns.

    Raises:
        InputError: as `read_audio`, when the trouble is met.
    """
    import soxr

    with open_recording(path, held) as recording:
        rate = recording.rate
        if not RATES[0] <= rate <= RATES[1]:
            raise InputError(f"audio {path} has a sample rate of {rate} Hz; give {RATES[0]} to {RATES[1]} Hz")
        start = round(offset * rate)
        wanted = None if seconds is None else round(seconds * rate)
        resampler = None if rate == sample_rate else soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
        mono, given = Downmix(), 0
        for data in recording.blocks(start, wanted, BLOCK_FRAMES):
            given += len(data)
            block = mono(_checked(data, path))
            yield block if resampler is None else resampler.resample_chunk(block)
        short = wanted is not None and wanted - given > OVERSHOOT_SECONDS * rate
        missing = recording.missing if wanted is None or short else ""
    if not given and not missing:
        raise InputError(f"audio {path} holds no samples at {offset:.2f} s; remove the row or mend the file")
    if missing or short:
        why = f" ({missing})" if missing else ""
        raise InputError(
            f"audio {path} is cut short{why}: {given / rate:.2f} s can be read at {offset:.2f} s; copy the file again"
        )
    if resampler is not None:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def beginning(blocks: Iterable[np.ndarray], most: int | None) -> np.ndarray:
    """(S,) of blocks, read no further than `most` samples where that is not None."""
    parts, left = [], most
    for block in blocks:
        parts.append(block if left is None else block[:left])
        if left is not None and (left := left - len(block)) <= 0:
            break
    return np.concatenate(parts)


def read_audio(path: Path | str, *, sample_rate: int, offset: float = 0.0, seconds: float | None = None) -> np.ndarray:
    """Read a recording, or a part of it, as mono.

    Args:
        path: any file that libsndfile reads (WAV, FLAC, OGG, MP3 …), any rate, channels are averaged (`Downmix`); or a
            recording inside a table, `table.parquet/audio/17` (`embedded`).
        sample_rate: rate of the result in Hz.
        offset: where to start, in seconds.
        seconds: how much to read; None reads to the end.

    Returns:
        (S,) float32, within [-1, 1] for integer formats.

    Raises:
        InputError: the file is missing, unreadable, cut short, empty, or holds values that are not finite.
    """
    return np.concatenate(list(read_blocks(path, sample_rate=sample_rate, offset=offset, seconds=seconds)))


WRITTEN: Mapping[str, tuple[str, str]] = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
    ".au": ("AU", "PCM_16"),
    ".caf": ("CAF", "PCM_16"),
    ".w64": ("W64", "PCM_16"),
    ".rf64": ("RF64", "PCM_16"),
}
"""Suffixes that can be written, whatever their case → libsndfile's format and what samples become in it."""


def write_audio(path: Path | str, samples: np.ndarray, sample_rate: int) -> None:
    """Write (S,) float samples in the format of the suffix (`WRITTEN`); louder than full scale is clipped.

    What keeps every sample has 16 bits, OGG is Vorbis, and a name without a suffix is a WAV.

    Raises:
        InputError: samples that are not finite, another suffix, a sample rate that the format does not have, no samples
            where it cannot hold none, or a place that cannot be written.
    """
    target = Path(path)
    if not np.isfinite(samples).all():
        raise InputError(f"cannot write audio {target}: samples are not finite")
    encoded = _encoded(target, np.clip(samples, -1.0, 1.0), sample_rate)
    check_no_device(target)
    ensure_writable_parent(target)
    draft = draft_of(target)
    try:
        with open_draft(draft) as file:
            file.write(encoded.getbuffer())
        os.replace(draft, target)
    except (OSError, ValueError) as error:
        with suppress(OSError, ValueError):  # a draft that could not be made cannot be removed either
            draft.unlink()
        raise cannot_write(target, error) from error


def _encoded(target: Path, samples: np.ndarray, sample_rate: int) -> BytesIO:
    """The bytes of a file, made in memory: libsndfile does not tell why the system refuses one."""
    import soundfile

    known = f"use one of {', '.join(WRITTEN)}"
    suffix = target.suffix.lower() or ".wav"
    if suffix not in WRITTEN:
        raise InputError(f"cannot write audio {target}: no format has the suffix {target.suffix!r}; {known}")
    name, subtype = WRITTEN[suffix]
    encoded = BytesIO()
    try:
        with soundfile.SoundFile(encoded, "w", sample_rate, 1, subtype=subtype, format=name) as file:
            for start in range(0, len(samples), BLOCK_FRAMES):  # Vorbis keeps a whole write on the stack
                file.write(samples[start : start + BLOCK_FRAMES])
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        reason = str(error).rpartition(" : ")[2].strip(" .") or type(error).__name__
        raise InputError(f"cannot write audio {target}: {reason}; use a .wav name") from error
    if not encoded.getbuffer().nbytes:
        raise InputError(f"cannot write audio {target}: there are no samples, which {name} cannot say; use a .wav name")
    return encoded


def audio_seconds(path: Path | str) -> float:
    """Duration of a recording in seconds, without decoding it; InputError where its container cannot be read."""
    with open_recording(path) as recording:
        return recording.frames / recording.rate
