"""Results are frozen and speech can be saved."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from unitok.results import Result
from unitok_tokenizers.audio import read_audio
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
