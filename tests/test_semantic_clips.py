"""Real recordings of every kind survive each tokenizer: encoded in range, decoded to sound of the same length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import tokenizers
from tests.test_acoustic_codecs import encodec, mel_rvq, speechtokenizer
from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.audio.io import read_audio
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate, expand
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig
from unitok_vocoder.vocoder import Vocoder

CLIPS = Path(__file__).resolve().parents[1].parent / "shared/data/clips"
pytestmark = [
    pytest.mark.skipif(not CLIPS.is_dir(), reason="the small real data is not beside the repository"),
    pytest.mark.slow,
]


def clips() -> list[dict[str, Any]]:
    if not CLIPS.is_dir():
        return []
    return [json.loads(line) for line in (CLIPS / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]


ALL = pytest.mark.parametrize("clip", clips(), ids=lambda clip: Path(clip["audio"]).stem)


def samples(clip: dict[str, Any], rate: int) -> np.ndarray:
    found = read_audio(CLIPS / clip["audio"], sample_rate=rate)
    assert found.dtype == np.float32 and abs(len(found) / rate - clip["duration"]) < 0.01
    assert np.abs(found).max() > 0.01, "there is something to hear"
    return found


def alike(made: np.ndarray, given: np.ndarray, frame: float, rate: int) -> None:
    """Finite sound of about the same length: codecs work in whole frames."""
    assert np.isfinite(made).all() and np.abs(made).max() > 0
    assert abs(len(made) - len(given)) <= 2 * frame * rate


@pytest.fixture(scope="module", params=[mel_rvq, encodec, speechtokenizer], ids=lambda make: make.__name__)
def codec(request: pytest.FixtureRequest) -> AcousticTokenizer:
    return request.param()


@ALL
def test_codes(codec: AcousticTokenizer, clip: dict[str, Any]) -> None:
    given = samples(clip, codec.sample_rate)
    codes = codec.encode(given)
    assert codes.shape[1] == len(codec.cardinalities)
    assert codes.min() >= 0 and (codes < np.asarray(codec.cardinalities)).all()
    assert abs(len(codes) - len(given) / codec.sample_rate * codec.frame_rate) <= 2
    vocoder = Vocoder(None)
    alike(vocoder.from_codes(codes, codec), samples(clip, vocoder.sample_rate), 1 / float(codec.frame_rate), 16000)


@pytest.fixture(scope="module", params=["mfcc", "ctc"])
def units(request: pytest.FixtureRequest) -> UnitTokenizer:
    if request.param == "ctc":
        found = tokenizers().unit_tokenizer
        assert found is not None
        return found
    encoder = MfccEncoder(MelConfig(hop_length=640))
    return UnitTokenizer.fit(encoder, [samples(clip, encoder.sample_rate) for clip in clips()[:2]], 16, seed=0)


@ALL
def test_units(units: UnitTokenizer, clip: dict[str, Any]) -> None:
    given = samples(clip, units.sample_rate)
    found = units.encode(given)
    assert found.min() >= 0 and found.max() < units.cardinality and len(set(found.tolist())) > 1
    runs, durations = deduplicate(found)
    assert np.array_equal(expand(runs, durations), found)
    torch.manual_seed(0)
    synthesizer = UnitMel(UnitMelConfig(units=units.cardinality, width=16, blocks=1, voice=4), MelConfig()).eval()
    vocoder = Vocoder(None, synthesizer)
    spoken = vocoder.from_units(runs, voice=vocoder.voice_of(given), durations=durations)
    alike(spoken, given, 1 / float(units.frame_rate), vocoder.sample_rate)


def test_text() -> None:
    text = tokenizers().text
    for given in [clip["text"] or "" for clip in clips()]:
        for one in (given, given.lower()):
            assert text.decode(text.encode(one)) == one
