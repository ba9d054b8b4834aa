"""Results are frozen and speech can be saved."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitok.results import Result
from unitok_tokenizers.audio.io import WRITTEN, read_audio
from unitok_tokenizers.errors import InputError


def test_results_are_frozen() -> None:
    result = Result(text="hello")
    with pytest.raises(FrozenInstanceError):
        result.text = "bye"  # type: ignore[misc]


def test_speech_is_written_and_read_back(tmp_path: Path) -> None:
    samples = np.sin(np.arange(8000, dtype=np.float32) / 20) * 0.5
    speech = Result(audio=samples, sample_rate=16000)
    path = speech.save(tmp_path / "new" / "a.wav")
    assert speech.seconds == 0.5
    assert np.abs(read_audio(path, sample_rate=16000) - samples).max() < 1e-3


def test_speech_without_audio_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no audio"):
        Result().save(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", [*WRITTEN, ".OGG", ".Flac"])
def test_every_format_that_is_promised_is_written(suffix: str, tmp_path: Path) -> None:
    samples = np.sin(np.arange(16000, dtype=np.float32) / 20) * 0.5
    path = Result(audio=samples, sample_rate=16000).save(tmp_path / f"a{suffix}")
    name, subtype = WRITTEN[suffix.lower()]
    found = soundfile.info(str(path))
    assert (found.format, found.subtype, found.samplerate, found.channels) == (name, subtype, 16000, 1)
    read, _ = soundfile.read(path, dtype="float32")
    assert len(read) == len(samples)
    middle = slice(2000, 14000)
    if subtype == "PCM_16":
        assert np.abs(read - samples).max() < 1e-3
    else:
        assert np.corrcoef(read[middle], samples[middle])[0, 1] > 0.97


@pytest.mark.parametrize("suffix", [".m4a", ".aac", ".txt", ".voc", ".raw", ".wma"])
def test_other_suffixes_are_refused_with_those_that_there_are(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"suffix '{suffix}'; use one of \.wav, .*\.mp3"):
        Result(audio=np.zeros(100, np.float32), sample_rate=16000).save(tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    samples = np.zeros(100, np.float32)
    for name, rate in (("a.opus", 22050), ("a.mp3", 96000)):
        with pytest.raises(InputError, match=r"only supports sample rates of 8000.*use a \.wav name"):
            Result(audio=samples, sample_rate=rate).save(tmp_path / name)
    for name in ("a.flac", "a.mp3"):
        with pytest.raises(InputError, match="there are no samples"):
            Result(audio=samples[:0], sample_rate=16000).save(tmp_path / name)
    assert Result(audio=samples[:0], sample_rate=16000).save(tmp_path / "a.wav").exists()
    assert Result(audio=samples, sample_rate=16000).save(tmp_path / "a").read_bytes()[:4] == b"RIFF"


@pytest.mark.slow
def test_minutes_of_vorbis_are_written(tmp_path: Path) -> None:
    """A single write of so much overflows libsndfile's stack."""
    samples = np.random.default_rng(0).normal(0, 0.1, 3_000_000).astype(np.float32)
    path = Result(audio=samples, sample_rate=16000).save(tmp_path / "a.ogg")
    assert soundfile.info(str(path)).frames == len(samples)
