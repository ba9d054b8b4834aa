"""What is spoken in a recording: silence and noise around it are left out, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.backgrounds import (
    Backgrounds,
    Surroundings,
    among_noises,
    colored,
    split_at_quiet,
    surrounded,
)
from unitok_tokenizers.audio.features import MelConfig, log_mel
from unitok_tokenizers.audio.speech_activity import (
    SpeechDetector,
    Trimming,
    keep,
    leveled,
    loudness,
    may_be_trimmed,
    moved,
    shared_samples,
    span_sizes,
    spans,
    spoken_parts,
    spoken_spans,
)
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig, network_config
from unitok_tokenizers.encoders.networks.normalization import ALL, SPOKEN, normalize


class Known:
    """A detector that knows where somebody speaks: wherever samples are louder than a tenth."""

    sample_rate = RATE

    def activity(self, recordings: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.abs(one[: len(one) // 320 * 320].reshape(-1, 320)).max(1) > 0.1 for one in recordings]


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, level, round(seconds * RATE))).astype(np.float32)


@given(
    before=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    behind=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    level=st.sampled_from([0.0, 1e-4, 0.01]),
    gain=st.sampled_from([1.0, 1e-3]),
)
@settings(max_examples=40, deadline=None)
def test_ends_of_silence_and_noise_change_nothing(before: float, behind: float, level: float, gain: float) -> None:
    said = speech(2.0)
    around = np.concatenate([noise(before, level), said, noise(behind, level, 1)]) * np.float32(gain)
    (part,) = spoken_parts([leveled(around, RATE)], RATE, None)
    margin = Trimming().margin + 0.06
    assert len(said) - 640 <= len(part) <= len(said) + 2 * margin * RATE
    if not level:
        (alone,) = spoken_parts([leveled(said, RATE)], RATE, None)
        size = min(len(alone), len(said)) - 2000
        start = round(min(before, Trimming().margin) * RATE)
        shift = np.argmax(np.correlate(part[: size + start + 1000], alone[1000:2000], "valid")) - 1000
        assert np.allclose(part[shift + 1000 : shift + size], alone[1000:size], atol=2e-3)


def test_long_pauses_are_shortened_and_short_ones_stay() -> None:
    pause = np.zeros(RATE, np.float32)
    made = np.concatenate([speech(1.0), pause, speech(1.0, 1), pause[: RATE // 4], speech(1.0, 2)])
    (part,) = spoken_parts([made], RATE, Known())
    kept = 3.25 + 2 * Trimming().inner
    assert len(part) / RATE == pytest.approx(kept, abs=0.1)
    assert np.array_equal(part[: RATE // 2], made[: RATE // 2])


@pytest.mark.parametrize("detector", [None, Known()])
def test_where_nothing_is_spoken_nothing_is_kept(detector: SpeechDetector | None) -> None:
    sounds = [
        np.zeros(RATE, np.float32),
        np.zeros(1, np.float32),
        np.zeros(0, np.float32),
        np.full(RATE, 0.05, np.float32),
        noise(1.0, 10 ** (-65 / 20)),
    ]
    assert [len(one) for one in spoken_parts(sounds, RATE, detector)] == [0] * 5


def test_a_detector_at_another_rate_is_given_what_it_takes() -> None:
    made = np.concatenate([np.zeros(24_000, np.float32), np.repeat(speech(1.0), 2)[:24_000]])
    (kept,) = spoken_spans([made], 24_000, Known())
    assert kept[0][0] == pytest.approx(1.0 - Trimming().margin, abs=0.05)


@given(st.floats(2e-4, 1.0), st.integers(0, 50))  # at 1e-4 the softest of these is below `SILENCE_DB`: nothing
@settings(max_examples=30, deadline=None)
def test_levels_do_not_depend_on_silence_or_offset(gain: float, seed: int) -> None:
    said = speech(0.8, seed)
    around = np.concatenate([said * np.float32(gain), np.zeros(RATE, np.float32)])
    first, second = leveled(said, RATE), leveled(around, RATE)[: len(said)]
    assert np.abs(first - second).max() < 0.02 * np.abs(first).max()
    assert loudness(leveled(said + np.float32(0.2), RATE), RATE) == pytest.approx(loudness(first, RATE), abs=0.1)


def test_a_look_at_levels_tells_what_needs_no_detector() -> None:
    said, silence = np.tile(speech(0.1, 3), 12), np.zeros(RATE, np.float32)
    assert not may_be_trimmed(said, RATE)
    for around in ([silence, said], [said, silence], [said, silence, said], [said, noise(1.0, 0.01)]):
        assert may_be_trimmed(np.concatenate(around), RATE)


def test_words_move_with_what_is_left_out() -> None:
    kept = [(1.0, 2.0), (5.0, 6.0)]
    assert [moved(at, kept) for at in (0.5, 1.5, 2.0, 3.0, 5.5, 9.0)] == [0.0, 0.5, 1.0, 1.0, 1.5, 2.0]
    assert spans(np.zeros(10, bool), 1.0) == []
    samples = np.arange(10.0, dtype=np.float32)
    assert np.array_equal(keep(samples, 1, [(2.0, 5.0), (7.0, 9.0)], fade=0.0), samples[[2, 3, 4, 7, 8]])


def test_words_behind_pauses_stand_where_they_are_said() -> None:
    rate, fade = 1000, 0.005
    samples = np.zeros(10_000, np.float32)
    places = (1500, 3500, 5500, 7500)
    samples[list(places)] = 1.0
    kept = [(place / rate - 0.1, place / rate + 0.1) for place in places]
    joined = keep(samples, rate, kept, fade)
    seam = shared_samples(span_sizes(kept, rate, len(samples)), len(joined)) / rate
    assert seam == fade
    assert [round(rate * moved(place / rate, kept, seam)) for place in places] == np.flatnonzero(joined).tolist()
    assert round(rate * moved(9.0, kept, seam)) == len(joined)


def test_statistics_of_what_is_spoken_do_not_see_silence_or_noise() -> None:
    said = speech(2.0)
    mels = log_mel(torch.from_numpy(said), MelConfig())
    quiet = torch.full((100, mels.shape[1]), float(mels.min()))
    murmur = log_mel(torch.from_numpy(noise(1.0, 0.02)), MelConfig())
    plain = normalize(mels[None], torch.tensor([len(mels)]), SPOKEN)[0]
    for ends in (quiet, murmur):
        longer = torch.cat([ends, mels, ends])
        found = normalize(longer[None], torch.tensor([len(longer)]), SPOKEN)[0]
        assert torch.allclose(found[len(ends) : -len(ends)], plain, atol=1e-4)
        other = normalize(longer[None], torch.tensor([len(longer)]), ALL)[0]
        assert not torch.allclose(other[len(ends) : -len(ends)], plain, atol=0.1)


def test_a_row_is_normalized_alone_as_in_a_batch() -> None:
    mels = [
        log_mel(torch.from_numpy(speech(seconds, seed)), MelConfig()) for seed, seconds in enumerate((0.3, 1.0, 2.0))
    ]
    lengths = torch.tensor([len(one) for one in mels])
    batch = normalize(torch.nn.utils.rnn.pad_sequence(mels, batch_first=True), lengths, SPOKEN)
    for row, one in zip(batch, mels):
        assert torch.allclose(row[: len(one)], normalize(one[None], torch.tensor([len(one)]), SPOKEN)[0], atol=1e-5)


def test_networks_of_before_keep_their_statistics_and_are_no_detectors() -> None:
    config = network_config({"width": 16, "blocks": 1, "alphabet": ["a", " "]})
    assert config.statistics == ALL and CtcNetworkConfig().statistics == SPOKEN
    assert not CtcEncoder(CtcNetwork(config), MelConfig(), 1).knows_noise
    new = CtcEncoder(CtcNetwork(CtcNetworkConfig(width=16, blocks=1, alphabet=("a", " "))), MelConfig(), 1)
    assert new.knows_noise and isinstance(new, SpeechDetector)
    active = new.activity([speech(1.0)])[0]
    assert active.dtype == bool and len(active) == 50


# -- what training puts around ------------------------------------------------------------------------------------


def test_backgrounds_have_unit_power_and_their_slope() -> None:
    random = np.random.default_rng(0)
    for slope in (0.0, 0.5, 1.0):
        track = colored(RATE * 4, slope, random)
        assert np.mean(track**2) == pytest.approx(1.0, rel=1e-3)
        power = np.abs(np.fft.rfft(track)) ** 2
        low, high = power[400:800].mean(), power[12_800:25_600].mean()  # 32 octaves of frequency apart: ×32
        assert 10 * np.log10(low / high) == pytest.approx(20 * slope * np.log10(32), abs=2.0)
    tracks = Backgrounds([speech(1.0, seed) for seed in range(3)], RATE, seed=0).tracks
    assert len(tracks) == 5 and len(tracks[-1]) == 30 * RATE


@given(st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_what_is_surrounded_holds_its_parts_in_order(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = [speech(0.5, 1), speech(0.7, 2)]
    made = surrounded(parts, RATE, Backgrounds([], RATE, seed=0), random, Surroundings(under_share=0.0))
    assert sum(map(len, parts)) <= len(made) <= sum(map(len, parts)) + 3 * 1.2 * RATE + 3
    places = [int(np.argmax(np.correlate(made, part[:800], "valid"))) for part in parts]
    assert places[0] + len(parts[0]) <= places[1]
    for place, part in zip(places, parts):
        assert np.array_equal(made[place : place + len(part)], part)


def test_recordings_are_parted_at_a_quiet_moment_and_some_get_noises() -> None:
    said = np.concatenate([speech(1.0), np.zeros(1600, np.float32), speech(1.0, 1)])
    first, second = split_at_quiet(said, RATE, np.random.default_rng(0))
    assert np.array_equal(np.concatenate([first, second]), said) and 15_900 <= len(first) <= 17_700
    assert split_at_quiet(said[:300], RATE, np.random.default_rng(0))[0] is not None
    given = [speech(0.5, seed) for seed in range(40)]
    made = among_noises(given, RATE, seed=3, share=0.5)
    changed = [not np.array_equal(a, b) for a, b in zip(given, made)]
    assert 8 < sum(changed) < 32
    assert all(np.array_equal(a, b) for a, b in zip(made, among_noises(given, RATE, seed=3, share=0.5)))
