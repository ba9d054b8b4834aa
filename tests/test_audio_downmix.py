"""Several channels of a recording become one: their mean, unless they cancel each other in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import read_audio


def antiphase(samples: np.ndarray, gain: float = 1.0, channels: int = 2) -> np.ndarray:
    return np.stack([samples, -gain * samples] * (channels // 2), axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("gain", "channels", "offset"), [(1.0, 2, 0), (0.9, 2, 0), (1.1, 2, 0), (1.0, 4, 0), (1.0, 2, 0.01), (1.0, 2, 0.05)]
)
def test_channels_that_cancel_are_not_averaged(gain: float, channels: int, offset: float, tmp_path: Path) -> None:
    given = speech(40.0)  # several blocks
    lead = np.zeros(3 * RATE, np.float32)
    stereo = antiphase(np.concatenate([lead, given]), gain, channels) + np.float32(offset)
    stereo += 1e-3 * np.random.default_rng(0).standard_normal(stereo.shape).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    found = read_audio(tmp_path / "a.wav", sample_rate=RATE)[len(lead) :]
    assert abs(np.corrcoef(found, given)[0, 1]) > 0.99, "one polarity throughout"


def test_channels_that_do_not_cancel_are_averaged(tmp_path: Path) -> None:
    left, right = speech(3.0, seed=1), speech(3.0, seed=2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    assert np.allclose(read_audio(tmp_path / "a.wav", sample_rate=RATE), (left + right) / 2, atol=1e-6)
    half = np.stack([left, np.where(np.arange(len(left)) < len(left) // 2, left, -left)], axis=1)
    soundfile.write(tmp_path / "b.wav", half, RATE, subtype="FLOAT")
    found = np.abs(read_audio(tmp_path / "b.wav", sample_rate=RATE))
    assert np.corrcoef(found, np.abs(left))[0, 1] > 0.95, "only its second half cancels"
