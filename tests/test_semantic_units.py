"""Features, clustering, encoders and units."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unitok_tokenizers.audio.features import MelConfig, log_mel, mel_filters, mfcc
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.batches import encode_recordings
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.encoders.networks.ctc_network import PAUSE_FRAMES, CtcNetwork, CtcNetworkConfig, greedy_text
from unitok_tokenizers.encoders.registry import load_encoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans import assign, fit_kmeans
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate, expand


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))).astype(np.float32)


def test_log_mel_matches_a_plain_short_time_transform() -> None:
    config = MelConfig()
    samples = noise(0.3).astype(np.float64)
    padded = np.pad(samples, config.n_fft // 2, mode="reflect")
    # The window lies in the middle of the transform's frame.
    window = np.zeros(config.n_fft)
    edge = (config.n_fft - config.win_length) // 2
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.win_length) / config.win_length)
    window[edge : edge + config.win_length] = hann
    frames = np.stack(
        [padded[i * config.hop_length : i * config.hop_length + config.n_fft] for i in range(len(samples) // 160)]
    )
    magnitude = np.abs(np.fft.rfft(frames * window, axis=1))
    wanted = np.log(np.maximum(magnitude @ mel_filters(config).double().numpy(), 1e-5))
    found = log_mel(torch.from_numpy(samples.astype(np.float32)), config).numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_a_shift_by_one_hop_shifts_one_frame() -> None:
    config = MelConfig()
    samples = torch.from_numpy(noise(0.5))
    later = log_mel(samples[config.hop_length :], config)
    torch.testing.assert_close(log_mel(samples, config)[6:-6], later[5:-6][: len(log_mel(samples, config)[6:-6])])


def test_cepstra_match_scipy() -> None:
    from scipy.fft import dct

    mels = log_mel(torch.from_numpy(noise(0.2)), MelConfig())
    np.testing.assert_allclose(mfcc(mels).numpy(), dct(mels.numpy(), norm="ortho", axis=1)[:, :13], atol=1e-3)


@given(st.lists(st.integers(0, 5), max_size=60))
def test_deduplication_inverts_exactly(values: list[int]) -> None:
    units, durations = deduplicate(np.asarray(values, dtype=np.int64))
    assert expand(units, durations).tolist() == values
    assert (units[1:] != units[:-1]).all() and (durations > 0).all()


def test_clusters_are_found_and_repeat() -> None:
    random = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = (centres[:, None] + torch.randn(3, 50, 2, generator=random) * 0.3).reshape(-1, 2)
    found = fit_kmeans(points, 3, seed=1)
    assert torch.equal(found, fit_kmeans(points, 3, seed=1))
    labels = assign(points, found).reshape(3, 50)
    assert all(len(set(row.tolist())) == 1 for row in labels) and len(set(labels[:, 0].tolist())) == 3
    with pytest.raises(InputError, match="clusters"):
        fit_kmeans(points[:2], 3, seed=0)


def ctc_encoder() -> CtcEncoder:
    torch.manual_seed(0)
    network = CtcNetwork(CtcNetworkConfig(width=24, blocks=2, alphabet=("a", "b", " ")))
    return CtcEncoder(network, MelConfig(), 2)


@pytest.fixture(params=[MfccEncoder, ctc_encoder], ids=["mfcc", "ctc"])
def encoder(request: pytest.FixtureRequest) -> FrameEncoder:
    return request.param()


def test_an_encoder_keeps_its_contract(encoder: FrameEncoder, tmp_path: Path) -> None:
    recordings = [noise(0.4), noise(0.93, 1), noise(0.01, 2)]
    frames = encode_recordings(encoder, recordings)
    for samples, found in zip(recordings, frames):
        wanted = max(1, int(len(samples) * encoder.frame_rate // encoder.sample_rate))
        assert found.shape == (wanted, encoder.width) and found.dtype == np.float32 and np.isfinite(found).all()
        np.testing.assert_allclose(found, encode_recordings(encoder, [samples])[0], atol=2e-4)
    encoder.save(tmp_path / "e")
    again = load_encoder(tmp_path / "e")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(
        encode_recordings(again, recordings[:1])[0], encode_recordings(encoder, recordings[:1])[0]
    )


def test_units_repeat_and_survive_their_files(encoder: FrameEncoder, tmp_path: Path) -> None:
    recordings = [noise(0.5, seed) for seed in range(4)]
    tokenizer = UnitTokenizer.fit(encoder, recordings, 8, seed=0)
    units = tokenizer.encode_batch(recordings)
    assert all(np.array_equal(one, tokenizer.encode(samples)) for one, samples in zip(units, recordings))
    assert tokenizer.info().cardinalities == (8,) and tokenizer.info().deduplicated
    tokenizer.save(tmp_path / "u")
    again = UnitTokenizer.load(tmp_path / "u")
    assert again.fingerprint == tokenizer.fingerprint and again.frame_rate == tokenizer.frame_rate
    assert np.array_equal(again.encode(recordings[0]), units[0])


def test_rates_are_exact_fractions() -> None:
    assert MfccEncoder().frame_rate == 50 and ctc_encoder().frame_rate == Fraction(25)


def test_best_path_merges_repeats_and_drops_blanks() -> None:
    path = [1, 1, 0, 1, 2, 2, 0, 3, 3, 1]
    table = torch.nn.functional.one_hot(torch.tensor(path), 4).float()[None]
    assert greedy_text(table, torch.tensor([len(path)]), ("a", "b", " ")) == ["aab a"]


def test_a_long_run_of_blanks_parts_words_where_words_are_parted() -> None:
    path = [1, 0, 0, 0, 2, *[0] * PAUSE_FRAMES, 1]
    table = torch.nn.functional.one_hot(torch.tensor(path), 4).float()[None]
    length = torch.tensor([len(path)])
    assert greedy_text(table, length, ("a", "b", " ")) == ["ab a"]
    assert greedy_text(table, length, ("木", "水", "火")) == ["木水木"]
    assert greedy_text(table, length - 1, ("a", "b", " ")) == ["ab"], "a pause at the end is no word"
