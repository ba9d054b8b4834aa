"""The causal built-in codec: codes as samples come, log-mels and samples as codes come, equal to those of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.codecs import mel_rvq
from tests.support.streams import causal_codec, held_bytes, pieces, streamed
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.acoustic.mel_rvq import MelCodec
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.errors import InputError
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.streaming import CodeStream
from unitok_vocoder.vocoder import Vocoder

KINDS: dict[str, dict[str, Any]] = {
    "units": {},
    "factorized": {"code_width": 4},
    "split": {"split": True},
    "taught": {"taught": 5},
    "taught_split": {"taught": 5, "split": True},
}


@pytest.fixture(params=KINDS, ids=str)
def codec(request: pytest.FixtureRequest) -> MelCodec:
    return causal_codec(**KINDS[request.param])


def test_codes_by_pieces_are_those_of_the_whole(codec: MelCodec, tmp_path: Path) -> None:
    codec.save(tmp_path)
    again = MelCodec.load(tmp_path)
    assert again.fingerprint == codec.fingerprint and again.latency_ms == 50.0
    recordings = [speech(seconds, seed) for seed, seconds in enumerate((3.0, 0.93, 0.02, 1.6401))]
    for samples, whole in zip(recordings, again.encode_batch(recordings)):
        assert whole.shape == (max(1, len(samples) // 640), 4)
        assert np.array_equal(again.encode(samples), whole)
        for sizes in ((13, 640, 2000), (100000,)):
            assert np.array_equal(streamed(again.stream(), samples, *sizes), whole)
    assert len(np.unique(again.encode(recordings[0])[:, 0])) > 2, "one code would prove nothing"


def test_log_mels_by_pieces_are_those_of_the_whole(codec: MelCodec) -> None:
    codes = codec.encode(speech(4.0))
    for most in (1, 2, 4):
        whole, stream = codec.decode_features(codes[:, :most]), codec.feature_stream()
        found = np.concatenate([stream.push(piece) for piece in pieces(codes[:, :most], 1, 5, 20)])
        np.testing.assert_allclose(found, whole, atol=1e-4)


def test_codes_come_after_the_latency_and_memory_does_not_grow(codec: MelCodec) -> None:
    stream, come, sizes = codec.stream(), list[int](), list[int]()
    features, held = codec.feature_stream(), list[int]()
    for number, piece in enumerate(pieces(np.tile(speech(4.0), 4), 160)):
        codes = stream.push(piece)
        come += [160 * number] * len(codes)
        features.push(codes)
        sizes.append(held_bytes(stream))
        held.append(held_bytes(features))
    assert codec.latency_ms is not None
    assert come == [640 * frame + round(codec.latency_ms * RATE / 1000) for frame in range(len(come))]
    assert max(sizes[1200:]) <= max(sizes[:200]) < 300_000 and max(held[1200:]) <= max(held[:200]) < 300_000


def test_samples_of_codes_by_pieces_are_those_of_the_whole() -> None:
    torch.manual_seed(0)
    network = MelVocoder(MelVocoderConfig(width=16, blocks=2), MelConfig()).eval()
    vocoder, codec = Vocoder(network, None, {}), causal_codec()
    codes = codec.encode(speech(4.0))
    whole, stream = vocoder.from_codes(codes, codec), CodeStream(vocoder, codec)
    first = stream.push(codes[:20])
    behind = round(stream.latency_ms * RATE / 1000)
    assert len(first) == 20 * 640 - behind
    found = [first, *(stream.push(piece) for piece in pieces(codes[20:], 1, 7)), stream.finish()]
    np.testing.assert_allclose(np.concatenate(found), whole, atol=1e-4)
    assert held_bytes(stream) < 300_000 and not len(CodeStream(vocoder, codec).finish())
    with pytest.raises(InputError, match="train-vocoder"):
        CodeStream(Vocoder(None, None, {}), codec)


def test_a_codec_that_looks_forward_says_so() -> None:
    codec = mel_rvq()
    assert codec.latency_ms is None
    for begin in (codec.stream, codec.feature_stream):
        with pytest.raises(InputError, match="causal=true"):
            begin()
    from unitok_tokenizers.acoustic.mel_network import MelCodecConfig, MelCodecNetwork

    sizes = MelCodecConfig(width=16, latent=8, cardinality=8, units=12, causal=True)
    mixed = MelCodec(MelCodecNetwork(sizes, 80), codec.units, MelConfig())
    assert mixed.latency_ms is None
    mixed.feature_stream()
    with pytest.raises(InputError, match="mfcc encoder looks forward"):
        mixed.stream()
