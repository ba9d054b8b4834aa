"""The same words in another recording: what is changed, and units that care less."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from unitok_tokenizers.audio.changes import CHANGES, noisy, pitch_shift, reverberate, time_stretch
from unitok_tokenizers.corpora.toy import TRAIN_VOICES, build_sentences, synthesize
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.invariance import CorrectionConfig, FrameCorrection
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate
from unitok_tokenizers.tokenizer_set import load_speech_tokenizer
from unitok_training.fitting.units import InvarianceConfig, fit_invariance, unit_edits
from unitok_training.tokbench.labels import frame_labels, purity

RATE = 16000
LEARNED, STEPS = 40, 120
"""Sentences and optimizer steps of a short training."""


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(RATE * seconds)) / RATE)).astype(np.float32)


def strongest(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_another_speed_has_the_same_pitch(speed: float) -> None:
    found = time_stretch(tone(440), RATE, speed)
    assert len(found) == round(RATE / speed) and strongest(found) == pytest.approx(440, abs=4)
    middle = slice(len(found) // 4, 3 * len(found) // 4)
    assert np.sqrt(np.mean(found[middle] ** 2)) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("semitones", [-4.0, 3.0])
def test_another_pitch_lasts_as_long(semitones: float) -> None:
    found = pitch_shift(tone(440), RATE, semitones)
    assert len(found) == RATE and strongest(found) == pytest.approx(440 * 2 ** (semitones / 12), abs=6)


def test_noise_and_rooms_are_as_strong_as_they_should_be() -> None:
    random, given = np.random.default_rng(0), tone(440)
    noise = noisy(given, RATE, 10.0, random) - given
    assert 10 * np.log10(np.mean(given**2) / np.mean(noise**2)) == pytest.approx(10, abs=0.1)
    knock = np.zeros(RATE, dtype=np.float32)
    knock[1000] = 1.0
    heard = np.square(reverberate(knock, RATE, 0.4, 3.0, random).astype(np.float64))
    assert heard[:1000].max() < 1e-9 * heard[1000]  # nothing before it
    late, early = heard[1000 + 4800 : 1000 + 6400].mean(), heard[1000 + 1600 : 1000 + 3200].mean()
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=3)  # 60 dB in .4 s: 30 dB in .2 s


def test_changes_take_what_is_short_and_what_is_silent() -> None:
    for (name, change), given in product(CHANGES.items(), (tone(440, 0.02), np.zeros(8000, np.float32))):
        found = change(given, RATE, np.random.default_rng(1))
        assert np.isfinite(found).all() and (len(found) == len(given) or name == "stretch")


def test_edits() -> None:
    def slow(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    random = np.random.default_rng(0)
    for _ in range(40):
        a, b = (random.integers(3, size=int(random.integers(6))) for _ in range(2))
        assert unit_edits(a, b) == slow(a.tolist(), b.tolist())


Said = list[tuple[np.ndarray, tuple[tuple[str, float, float], ...]]]


def spoken(learned: int, held_out: int) -> tuple[Said, Said]:
    """Samples and phones of sentences to learn from, and of others, all of them different."""
    sentences = build_sentences(train=learned, test=held_out, dev=0, seed=0)
    made = [
        synthesize(one.text("qaa"), TRAIN_VOICES[number % len(TRAIN_VOICES)], seed=[0, number])
        for number, one in enumerate(sentences)
    ]
    said = [(one.samples, one.segments) for one in made]
    return said[held_out:], said[:held_out]  # the test's come first


def edit_share(units: UnitTokenizer, recordings: list[np.ndarray]) -> float:
    clean = [deduplicate(one)[0] for one in units.encode_batch(recordings)]
    edits = 0
    for number, change in enumerate(CHANGES.values()):
        changed = [change(one, RATE, np.random.default_rng([5, number, row])) for row, one in enumerate(recordings)]
        edits += sum(unit_edits(a, deduplicate(b)[0]) for a, b in zip(clean, units.encode_batch(changed)))
    return edits / len(CHANGES) / sum(map(len, clean))


def phone_purity(units: UnitTokenizer, said: Said) -> float:
    names = {name: number for number, name in enumerate(sorted({one[0] for _, spans in said for one in spans}))}
    found = units.encode_batch([samples for samples, _ in said])
    labels = [
        frame_labels(iter(spans), len(one), float(units.frame_rate), names) for one, (_, spans) in zip(found, said)
    ]
    return purity(found, labels)


@pytest.mark.slow
def test_units_survive_changes_better_after_a_short_training(tmp_path: Path) -> None:
    """Units of sentences that it has not seen change less, and not because they say nothing any more.

    How much a long training saves on people's recordings is a measurement, not a test.
    """
    learned, held_out = spoken(LEARNED, 8)
    recordings = [samples for samples, _ in learned]
    plain = UnitTokenizer.fit(MfccEncoder(), recordings, 24, seed=0)
    found = fit_invariance(plain, recordings, InvarianceConfig(steps=STEPS, draws=1, hidden=64, batch_frames=3000))
    samples = [one for one, _ in held_out]
    before, after = edit_share(plain, samples), edit_share(found, samples)
    assert after <= 0.9 * before, (before, after)
    purities = phone_purity(plain, held_out), phone_purity(found, held_out)
    assert purities[1] >= 0.9 * purities[0], purities
    assert found.fingerprint != plain.fingerprint and found.cardinality == plain.cardinality
    found.save(tmp_path / "units")
    again = load_speech_tokenizer(tmp_path / "units")
    assert again.info() == found.info()
    together = again.encode_batch(samples)
    assert all(np.array_equal(again.encode_batch([one])[0], two) for one, two in zip(samples[:3], together))


def test_what_has_not_learned_changes_nothing() -> None:
    correction = FrameCorrection(CorrectionConfig(width=6, hidden=8)).eval()
    frames = torch.randn(2, 9, 6)
    assert torch.equal(correction(frames, torch.tensor([9, 4])), frames)
    sounds = [tone(220 * one, 0.4) for one in range(1, 6)]
    plain = UnitTokenizer.fit(MfccEncoder(), sounds, 8, seed=0)
    same = plain.corrected(FrameCorrection(CorrectionConfig(width=plain.encoder.width, hidden=8)))
    assert all(np.array_equal(a, b) for a, b in zip(plain.encode_batch(sounds), same.encode_batch(sounds)))
    assert same.fingerprint != plain.fingerprint
    assert same.latency_ms is None
    with pytest.raises(InputError, match="without --invariant"):
        same.stream()
    torch.nn.init.normal_(correction.last.weight)
    alone = correction.corrected([frames[1, :4]])[0]
    torch.testing.assert_close(correction(frames, torch.tensor([9, 4]))[1, :4], alone)
