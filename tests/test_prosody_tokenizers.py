"""Pitch, style and durations: what they hear in a voice, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.prosody import RATE, UNITS, fitted, gliding, noise, source, voice
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.prosody.base import ProsodySource
from unitok_tokenizers.prosody.contour import contour
from unitok_tokenizers.prosody.durations import DurationTokenizer
from unitok_tokenizers.prosody.pitch import PitchTokenizer
from unitok_tokenizers.prosody.registry import PROSODY_TOKENIZERS
from unitok_tokenizers.prosody.style import STATISTICS, StyleTokenizer, window_statistics
from unitok_training.fitting.prosody import ChosenProsody, fit_prosody
from unitok_training.fitting.tokenizers import FitConfig

SWING = gliding(150.0, 0.3)
TRUE = np.log2(SWING[::160])


@pytest.mark.parametrize("middle", [75.0, 150.0, 420.0])
@pytest.mark.parametrize("partials", [(1, 0.5, 0.3), (0, 1, 1, 1), (0.2, 1, 0.2, 1)], ids=["plain", "missing", "even"])
def test_the_pitch_is_found_in_its_own_octave(middle: float, partials: tuple[float, ...]) -> None:
    """Without its fundamental, and with an octave that is louder than it."""
    hertz = gliding(middle, 0.15)
    found = contour(voice(hertz, partials=partials))
    wrong = np.abs(found.octaves - np.log2(hertz[::160]))
    assert found.voiced.mean() > 0.9 and np.nanmax(wrong) < 0.1


def test_noise_under_a_voice_and_its_loudness_change_little() -> None:
    clean, sound = contour(voice(SWING)), voice(SWING)
    for changed in (sound * 1e-3, sound * 30):
        assert np.allclose(contour(changed).octaves, clean.octaves, atol=0.01, equal_nan=True)
    hiss = noise(2.0) * float(np.sqrt((sound**2).mean()) / 0.1 * 10 ** (-10 / 20))
    noisy = contour(sound + hiss)
    assert noisy.voiced.mean() > 0.7 and np.nanmax(np.abs(noisy.octaves - TRUE)) < 0.1


def test_nothing_is_no_voice() -> None:
    hum = (1e-4 * np.sin(2 * np.pi * 120 * np.arange(RATE) / RATE)).astype(np.float32)
    for silent in (np.zeros(RATE, np.float32), noise(), np.zeros(0, np.float32), np.zeros(50, np.float32)):
        found = contour(silent)
        assert len(found) == max(1, len(silent) // 160) and not found.voiced.any() and found.own_level == 0
    between = contour(np.concatenate([voice(150.0, 1.0), hum]))
    assert between.voiced[:95].all() and not between.voiced[105:].any(), "a hum between words is no voice"
    for name in ("pitch", "style"):
        assert len(fitted(name, 3).encode(np.zeros(RATE, np.float32)))  # type: ignore[attr-defined]


def test_pitch_tokens_go_up_and_down_with_the_voice_and_not_with_who_speaks() -> None:
    tokenizer = fitted("pitch", 16)
    assert isinstance(tokenizer, PitchTokenizer) and (np.diff(tokenizer.levels) > 0).all()
    low, high = (tokenizer.encode(voice(gliding(middle, 0.3))) for middle in (110.0, 165.0))
    assert (low > 0).all() and np.abs(low - high).max() <= 1, "a fifth higher, the same melody"
    assert low.max() - low.min() > 6 and np.argmax(low) < 7 < np.argmin(low)
    assert np.array_equal(low, tokenizer.encode(voice(gliding(110.0, 0.3)) * 0.01))
    said = tokenizer.decode(low, 110.0)
    truth = gliding(110.0, 0.3)[: len(low) * 1280].reshape(len(low), -1).mean(1)
    assert np.abs(np.log2(said / truth)).max() < 0.08
    silence = tokenizer.encode(np.concatenate([voice(150.0, 1.0), np.zeros(RATE, np.float32)]))
    assert len(silence) == 25 and (silence[13:] == 0).all() and (tokenizer.decode(silence, 100.0)[13:] == 0).all()


def test_style_tells_manners_apart_and_not_voices() -> None:
    tokenizer = fitted("style", 3)
    assert isinstance(tokenizer, StyleTokenizer) and tokenizer.centroids.shape == (3, len(STATISTICS))
    flat, lively = (tokenizer.encode(voice(gliding(150.0, swing)))[0] for swing in (0.02, 0.4))
    assert flat != lively
    statistics = window_statistics(contour(voice(SWING)))
    assert statistics.shape == (2, len(STATISTICS))
    louder = window_statistics(contour(voice(SWING) * 20))
    assert np.allclose(statistics, louder, rtol=0.05, atol=0.05)
    pace = STATISTICS.index("pace")
    assert 4 <= statistics[0, pace] <= 6, "five bursts a second"
    assert len(window_statistics(contour(voice(150.0, 0.3)))) == 1


def test_durations_are_kept_within_a_ratio() -> None:
    tokenizer = fitted("durations", 10)
    assert isinstance(tokenizer, DurationTokenizer) and tokenizer.info().runs_of == "units"
    frames = np.arange(1, 51)
    tokens = tokenizer.encode(frames)
    assert tokens[0] == 0 and tokens[-1] == tokenizer.cardinality - 1 <= 9 and (np.diff(tokens) >= 0).all()
    ratio = tokenizer.decode(tokens) / frames
    assert ratio.max() <= 1.35 and ratio.min() >= 0.7
    assert tokenizer.encode(np.array([500])) == tokenizer.cardinality - 1 and not len(tokenizer.encode(np.zeros(0)))


def test_what_cannot_be_learned_is_refused() -> None:
    empty = ProsodySource(contours=[contour(noise())], units=None, seed=0)
    with pytest.raises(InputError, match="next to no voice"):
        PROSODY_TOKENIZERS["pitch"].fit(empty, 8)
    with pytest.raises(InputError, match="too few"):
        PROSODY_TOKENIZERS["style"].fit(empty, 8)
    with pytest.raises(InputError, match="fit units too"):
        PROSODY_TOKENIZERS["durations"].fit(empty, 8)
    for wrong, why in (("tone", "no such stream"), ("pitch=", "no number"), ("pitch=1", "no number")):
        with pytest.raises(InputError, match=why):
            ChosenProsody.read(wrong)
    with pytest.raises(InputError, match="twice"):
        FitConfig(prosody=(ChosenProsody(name="pitch"), ChosenProsody(name="pitch", most=8)))


def test_fitting_repeats_and_keeps_to_its_sizes() -> None:
    chosen = [ChosenProsody.read(text) for text in ("style=3", "pitch=6", "durations=5")]
    recordings = [voice(gliding(middle, 0.3)) for middle in (100.0, 140.0, 190.0, 260.0, 340.0, 120.0, 90.0, 200.0)]
    one, other = (fit_prosody(chosen, recordings, UNITS, seed=3) for _ in range(2))
    assert [made.name for made in one] == ["style", "pitch", "durations"]
    assert [made.info() for made in one] == [made.info() for made in other]
    assert all(made.cardinality <= wanted for made, wanted in zip(one, (3, 6, 5)))
    assert len({made.fingerprint for made in (*one, fitted("pitch"))}) == 4 and source().seed == 0


def test_what_is_constant_in_a_recording_is_no_voice() -> None:
    """Some sound cards add a little to every sample; in clean pauses that is all there is."""
    time = np.arange(16000) / 16000
    voice = np.sin(2 * np.pi * 120 * time).astype(np.float32) * 0.15
    plain = np.concatenate([np.zeros(8000, np.float32), voice, np.zeros(8000, np.float32)])
    wanted, found = contour(plain), contour(plain + np.float32(0.005))
    assert np.array_equal(found.voiced, wanted.voiced) and found.own_level == pytest.approx(wanted.own_level, abs=0.01)
    # and where digital silence was put around it afterwards
    silence = np.zeros(16000, np.float32)
    around = contour(np.concatenate([silence, voice + np.float32(0.02), silence])).voiced
    assert not around[5:95].any() and not around[-95:-5].any() and around[110:190].all()
