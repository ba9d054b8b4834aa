"""An encoder that looks back only: nothing leaks from the future, and pieces give what the whole gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.streams import causal_encoder, causal_units, held_bytes, pieces, streamed
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.feature_stream import LogMelStream, look_ahead
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.encoders.networks.normalization import RunningStatistics
from unitok_tokenizers.encoders.registry import load_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

MEL = MelConfig()


def mels_of(samples: np.ndarray) -> torch.Tensor:
    return log_mel(torch.from_numpy(samples), MEL)


@pytest.mark.parametrize("mel", [MEL, replace(MEL, n_fft=640), replace(MEL, hop_length=200, win_length=400, n_fft=512)])
def test_log_mels_by_pieces_are_those_of_the_whole(mel: MelConfig) -> None:
    for size in (0, 100, 160, 500, 513, 700, 900, 4321, 16000):
        samples = speech(1.0)[:size]
        whole = log_mel(torch.from_numpy(samples), mel) if size >= mel.hop_length else torch.zeros(0, mel.num_mels)
        for sizes in ((37, 160), (1000, 1), (20000,)):
            found = streamed(LogMelStream(mel), samples, *sizes)
            assert found.shape == whole.shape, (size, sizes)
            np.testing.assert_allclose(found, whole.numpy(), atol=2e-4)


def test_a_frame_comes_when_its_window_is_there() -> None:
    stream, samples = LogMelStream(MEL), speech(0.5)
    come = []
    for index in range(0, 4800, 32):
        come += [index + 32] * len(stream.push(samples[index : index + 32]))
    wanted = [frame * 160 + look_ahead(MEL) for frame in range(len(come))]
    assert all(0 <= got - due < 32 for got, due in zip(come[5:], wanted[5:]))


@pytest.fixture(scope="module")
def running() -> RunningStatistics:
    found = RunningStatistics(MEL.num_mels)
    found.learn([mels_of(speech(1.0, seed)) for seed in range(3)])
    return found


def test_running_statistics_know_nothing_of_what_comes(running: RunningStatistics) -> None:
    mels, other = mels_of(speech(6.0)), mels_of(speech(6.0, 5))
    found, _ = running(mels[None])
    changed, _ = running(torch.cat([mels[:350], other[350:]])[None])
    torch.testing.assert_close(changed[:, :350], found[:, :350], rtol=0, atol=1e-6)
    assert not torch.allclose(changed[:, 350:], found[:, 350:], atol=0.1)
    state, parts = None, []
    for part in mels.split([1, 2, 300, 7, 290]):
        made, state = running(part[None], state)
        parts.append(made)
    torch.testing.assert_close(torch.cat(parts, dim=1), found, rtol=0, atol=1e-5)


def test_running_statistics_heed_neither_level_nor_noise_before_speech(running: RunningStatistics) -> None:
    samples = speech(3.0)
    plain, _ = running(mels_of(samples)[None])
    quiet, _ = running(mels_of(samples * 0.1)[None])
    torch.testing.assert_close(quiet, plain, rtol=0, atol=0.05)  # the floor of log-mels alone is the same for both
    noise = np.random.default_rng(0).normal(0, 0.003, RATE).astype(np.float32)
    for before in (np.zeros(RATE, np.float32), noise):
        found, _ = running(mels_of(np.concatenate([before, samples]))[None])
        assert float((found[:, 102:] - plain[:, 2:]).abs().mean()) < 0.05
    later = plain[:, 200:]
    assert abs(float(later.mean())) < 0.5 and 0.7 < float(later.std()) < 1.5


def test_no_frame_of_a_causal_encoder_looks_forward() -> None:
    encoder = causal_encoder()
    samples, other = speech(2.0), speech(2.0, 5)
    assert encoder.look_ahead == 160
    known = 20 * 640 + encoder.look_ahead
    changed = np.concatenate([samples[:known], other[known:]])
    (whole,), (found,) = (encode_recordings(encoder, [one]) for one in (samples, changed))
    np.testing.assert_allclose(found[:20], whole[:20], atol=1e-5)
    assert not np.allclose(found[20:22], whole[20:22], atol=1e-2)
    with_future = causal_encoder(causal=False)
    (whole,), (found,) = (encode_recordings(with_future, [one]) for one in (samples, changed))
    assert not np.allclose(found[:20], whole[:20], atol=1e-2)


def test_units_by_pieces_are_those_of_the_whole(tmp_path: Path) -> None:
    units = causal_units()
    units.save(tmp_path)
    again = UnitTokenizer.load(tmp_path)
    assert again.fingerprint == units.fingerprint and again.latency_ms == units.latency_ms == 50.0
    recordings = [speech(seconds, seed) for seed, seconds in enumerate((4.0, 0.93, 0.03, 1.6401))]
    for samples, whole in zip(recordings, again.encode_batch(recordings)):
        assert np.array_equal(again.encode(samples), whole) and len(whole) == max(1, len(samples) // 640)
        for sizes in ((13, 640, 2000), (320,), (100000,)):
            assert np.array_equal(streamed(again.stream(), samples, *sizes), whole)
    pooled = UnitTokenizer(units.encoder, units.centroids, pool=2)
    assert np.array_equal(streamed(pooled.stream(), recordings[0][:16400], 500), pooled.encode(recordings[0][:16400]))
    assert pooled.latency_ms == 90.0


def test_a_unit_is_known_after_the_latency_and_memory_does_not_grow() -> None:
    units = causal_units()
    assert units.latency_ms is not None
    stream, come, sizes = units.stream(), list[int](), list[int]()
    for number, piece in enumerate(pieces(np.tile(speech(4.0), 5), 160)):
        come += [160 * number] * len(stream.push(piece))
        sizes.append(held_bytes(stream))
    assert come == [640 * unit + round(units.latency_ms * RATE / 1000) for unit in range(len(come))]
    assert max(sizes[1500:]) <= max(sizes[:200]) < 200_000


def test_what_looks_forward_says_so() -> None:
    for encoder in (causal_encoder(causal=False), MfccEncoder()):
        units = UnitTokenizer(encoder, torch.randn(4, encoder.width))
        assert units.latency_ms is None
        with pytest.raises(InputError, match="looks forward.*--causal"):
            units.stream()


def test_a_causal_encoder_comes_back_and_others_are_written_as_before(tmp_path: Path) -> None:
    encoder = causal_encoder()
    encoder.save(tmp_path / "causal")
    again = load_encoder(tmp_path / "causal")
    assert again.fingerprint == encoder.fingerprint and again.to_json()["config"]["causal"]
    samples = [speech(1.0)]
    np.testing.assert_array_equal(encode_recordings(again, samples)[0], encode_recordings(encoder, samples)[0])
    plain = causal_encoder(causal=False)
    assert "causal" not in plain.to_json()["config"]
    assert not any("running" in name for name in plain.state_dict())
    assert encoder.log_probabilities(samples)[0].shape == plain.log_probabilities(samples)[0].shape == (50, 4)
