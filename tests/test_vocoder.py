"""Floor 2 and its training: Griffin-Lim, the inverse STFT, losses, durations, voices, files, short recordings."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unitok_tokenizers.audio.features import MelConfig, log_mel, magnitude
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import deduplicate, expand
from unitok_training.fitting.codec import Crops
from unitok_training.fitting.waveforms.vocoder import (
    MelVocoderTraining,
    UnitMelTraining,
    train_mel_vocoder,
    train_unit_mel,
)
from unitok_vocoder.griffin_lim import griffin_lim
from unitok_vocoder.losses import mel_loss, stft_loss
from unitok_vocoder.mel_vocoder import MelVocoder, MelVocoderConfig
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig
from unitok_vocoder.vocoder import Vocoder
from unitok_vocoder.vocos import IstftHead

MEL = MelConfig()
UNITS = 6


def vowels(seconds: float, pitch: float, seed: int = 0) -> np.ndarray:
    """(S,) a buzz of `pitch` Hz through a resonance that moves between three places, like speech without words."""
    time = np.arange(round(seconds * MEL.sample_rate)) / MEL.sample_rate
    center = np.array([500.0, 1200.0, 2200.0])[(time * 6 + seed).astype(int) % 3]
    harmonics = np.arange(1, 30)[:, None] * pitch
    gain = np.exp(-(((harmonics - center) / 500.0) ** 2))
    return (0.1 * (gain * np.sin(2 * np.pi * harmonics * time)).sum(0)).astype(np.float32)


def small_vocoder() -> MelVocoder:
    torch.manual_seed(0)
    return MelVocoder(MelVocoderConfig(width=32, blocks=1), MEL).eval()


def small_unit_mel() -> UnitMel:
    torch.manual_seed(0)
    return UnitMel(UnitMelConfig(units=UNITS, width=16, blocks=1, voice=8), MEL).eval()


def test_a_magnitude_is_the_absolute_value_and_flat_at_zero() -> None:
    torch.manual_seed(0)
    spectrum = torch.randn(3, 5, dtype=torch.complex64) * 1e-3
    spectrum[0, :2] = 0.0
    spectrum.requires_grad_()
    torch.testing.assert_close(magnitude(spectrum), spectrum.abs(), rtol=1e-6, atol=1e-9)
    (ours,) = torch.autograd.grad(magnitude(spectrum).sum(), spectrum)
    (theirs,) = torch.autograd.grad(spectrum.abs().sum(), spectrum)
    torch.testing.assert_close(ours, theirs)


def test_griffin_lim_keeps_the_spectrum_and_the_length() -> None:
    samples = torch.from_numpy(vowels(0.6, 120.0))
    mels = log_mel(samples, MEL)
    made = griffin_lim(mels, MEL)
    assert made.shape == (len(mels) * MEL.hop_length,)
    assert torch.equal(made, griffin_lim(mels, MEL))
    loud = mels > mels.max() - 4
    assert float((log_mel(made, MEL) - mels)[loud].abs().mean()) < 0.25
    assert float((log_mel(griffin_lim(mels, MEL, iterations=0), MEL) - mels)[loud].abs().mean()) > 0.3


@pytest.mark.parametrize("n_fft, hop", [(640, 160), (1024, 160), (512, 128)])
def test_the_head_gives_back_the_signal_whose_spectrum_it_is_told(n_fft: int, hop: int) -> None:
    frames = 40
    samples = torch.randn(2, frames * hop, generator=torch.Generator().manual_seed(0))
    spectrum = torch.stft(samples, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True)[..., :frames]
    told = torch.cat([spectrum.abs().clamp(min=1e-8).log(), spectrum.angle()], dim=1).transpose(1, 2)  # (B, F, N + 2)
    head = IstftHead(n_fft + 2, n_fft, hop)
    with torch.no_grad():
        head.out.weight.copy_(torch.eye(n_fft + 2))
        head.out.bias.zero_()
        made = head(told)
    assert made.shape == samples.shape
    inside = slice(0, frames * hop - n_fft // 2)  # only the frame behind the end is a guess
    torch.testing.assert_close(made[:, inside], samples[:, inside], atol=2e-4, rtol=1e-3)


def test_spectral_loss_is_the_published_formula() -> None:
    made, real = torch.from_numpy(np.stack([vowels(0.2, 110.0), vowels(0.2, 210.0)])[:, None]).unbind(0)
    window = np.hanning(513)[:-1]
    total = 0.0
    spectra = []
    for signal in (made, real):
        padded = np.pad(signal[0].numpy().astype(np.float64), 256, mode="reflect")
        rows = [padded[start : start + 512] * window for start in range(0, len(padded) - 511, 128)]
        spectra.append(np.abs(np.fft.rfft(np.stack(rows))))
    a, b = spectra
    total += np.linalg.norm(a - b) / np.linalg.norm(b)
    total += np.abs(np.log(np.maximum(a, 1e-4)) - np.log(np.maximum(b, 1e-4))).mean()
    assert float(stft_loss(made, real, ((512, 128),))) == pytest.approx(total, rel=1e-3)
    assert float(stft_loss(real, real)) == 0.0 == float(mel_loss(real, real, MEL))
    # A gain of e moves every log-mel that is above the floor by one.
    loud = torch.from_numpy(vowels(0.2, 110.0))[None]
    noise = loud + 0.05 * torch.randn(loud.shape, generator=torch.Generator().manual_seed(0))
    assert float(mel_loss(noise * np.e, noise, MEL)) == pytest.approx(1.0, abs=1e-3)


def test_losses_train_silence_without_nan() -> None:
    made = torch.zeros(1, 4000, requires_grad=True)
    loss = stft_loss(made, torch.zeros(1, 4000)) + mel_loss(made, torch.zeros(1, 4000), MEL)
    loss.backward()
    assert made.grad is not None and bool(torch.isfinite(made.grad).all())


def test_durations_decide_the_length() -> None:
    frames = np.random.default_rng(0).integers(0, UNITS, 50)
    units, durations = deduplicate(frames)
    assert np.array_equal(expand(units, durations), frames) and (units[1:] != units[:-1]).all()
    model, voice = small_unit_mel(), torch.zeros(8)
    assert model.synthesize(units, voice, durations).shape == (4 * len(frames), MEL.num_mels)
    predicted = model.synthesize(units, voice)
    assert len(predicted) % 4 == 0 and 4 * len(units) <= len(predicted) <= 4 * 25 * len(units)


def test_padding_does_not_change_mels_or_durations() -> None:
    model = small_unit_mel()
    frames = torch.randint(UNITS, (1, 12), generator=torch.Generator().manual_seed(0))
    voice = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([frames, torch.zeros(1, 5, dtype=torch.int64)], 1)
    mask = (torch.arange(17) < 12).float()[None, :, None]
    with torch.no_grad():
        alone, beside = model.mels(frames, voice, torch.ones(1, 12, 1)), model.mels(padded, voice, mask)
        torch.testing.assert_close(beside[:, :48], alone, atol=1e-5, rtol=1e-5)
        short = model.log_durations(frames, voice, torch.ones(1, 12, 1))
        torch.testing.assert_close(model.log_durations(padded, voice, mask)[:, :12], short, atol=1e-5, rtol=1e-5)


def test_files_give_the_same_vocoder(tmp_path: Path) -> None:
    voices = {"anna": np.linspace(-1, 1, 8, dtype=np.float32), "karl": np.ones(8, dtype=np.float32)}
    vocoder = Vocoder(small_vocoder(), small_unit_mel(), voices)
    vocoder.save(tmp_path / "vocoder")
    again = Vocoder.load(tmp_path / "vocoder")
    units, recording = np.array([1, 4, 2, 0]), vowels(0.5, 150.0)
    for voice in ("anna", None, vocoder.voice_of(recording)):
        assert np.array_equal(again.from_units(units, voice=voice), vocoder.from_units(units, voice=voice))
    assert not np.array_equal(vocoder.from_units(units, voice="anna"), vocoder.from_units(units, voice="karl"))
    assert np.array_equal(again.voice_of(recording), vocoder.voice_of(recording))
    assert again.sample_rate == MEL.sample_rate


def test_a_vocoder_without_networks_falls_back_and_says_what_is_missing(tmp_path: Path) -> None:
    Vocoder(None, mel_config=MEL).save(tmp_path)
    vocoder = Vocoder.load(tmp_path)
    mels = log_mel(torch.from_numpy(vowels(0.3, 120.0)), MEL)
    assert np.array_equal(vocoder.from_features(mels), griffin_lim(mels, MEL).numpy())
    with pytest.raises(InputError, match="no unit synthesizer"):
        vocoder.from_units(np.array([1]))
    with pytest.raises(InputError, match="name a known speaker"):
        vocoder.voice_of(vowels(0.3, 120.0))
    with pytest.raises(InputError, match="known: anna, or give a recording"):
        Vocoder(None, small_unit_mel(), {"anna": np.zeros(8, np.float32)}).from_units(np.array([1]), voice="ann")


@pytest.mark.parametrize("samples", [1, 200, 700])
def test_very_short_input_gives_finite_output(samples: int) -> None:
    vocoder = Vocoder(small_vocoder(), small_unit_mel())
    assert np.isfinite(vocoder.voice_of(vowels(samples / MEL.sample_rate, 120.0))).all()
    assert len(vocoder.from_units(np.zeros(0, np.int64))) == 0
    assert np.isfinite(vocoder.from_units(np.array([3]))).all()


class ToneCodec:
    """A codec at 24 kHz that decodes by itself: one second of 300 Hz a frame."""

    name, sample_rate, frame_rate, cardinalities = "codes", 24000, Fraction(1), (2,)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return np.sin(2 * np.pi * 300 / 24000 * np.arange(24000 * len(codes))).astype(np.float32)


def test_codes_of_another_rate_come_out_at_the_right_speed() -> None:
    made = Vocoder(None, mel_config=MEL).from_codes(np.zeros((1, 1), np.int64), ToneCodec())  # type: ignore[arg-type]
    assert len(made) == MEL.sample_rate
    assert int(np.abs(np.fft.rfft(made)).argmax()) == 300


def corpus(count: int, seconds: float) -> tuple[list[np.ndarray], list[np.ndarray], list[str]]:
    """Recordings, their units (what resonance, and whether high or low) and speakers."""
    recordings = [vowels(seconds, (110.0, 190.0)[i % 2], seed=i) for i in range(count)]
    units = [(np.arange(round(seconds * 25)) / 25 * 6 + i).astype(np.int64) % 3 for i in range(count)]
    return recordings, units, [("low", "high")[i % 2] for i in range(count)]


def test_the_spectral_vocoder_learns_and_repeats() -> None:
    recordings, _, _ = corpus(4, 0.7)
    losses: list[float] = []
    config = MelVocoderTraining(steps=100, batch=2, crop=24)
    first = train_mel_vocoder(recordings, None, config, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0]
    few = MelVocoderTraining(steps=8, batch=2, crop=24)
    one, again = (train_mel_vocoder(recordings, None, few) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values()))
    mels = log_mel(torch.from_numpy(recordings[0]), MEL)
    made = torch.from_numpy(Vocoder(first).from_features(mels))
    error = float((log_mel(made, MEL) - mels).abs().mean())
    assert error < float((mels.mean(0) - mels).abs().mean()), "worse than the mean spectrum"


def test_the_unit_synthesizer_learns_units_and_voices_and_repeats() -> None:
    recordings, units, speakers = corpus(6, 1.2)
    config = UnitMelTraining(steps=60, batch=4, crop=20, reference=40)
    model, voices = train_unit_mel(recordings, units, speakers, 3, config)
    few = UnitMelTraining(steps=6, batch=4, crop=20, reference=40)
    one, again = (train_unit_mel(recordings, units, speakers, 3, few)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values()))
    assert sorted(voices) == ["high", "low"] and voices["low"].shape == (64,)
    distance = {}
    for name in voices:
        runs, durations = deduplicate(units[0])
        made = model.synthesize(runs, torch.from_numpy(voices[name]), durations)
        distance[name] = float((made - log_mel(torch.from_numpy(recordings[0]), MEL)[: len(made)]).abs().mean())
    assert distance["low"] < distance["high"], "recording 0 is the low voice"


def test_recordings_shorter_than_a_crop_are_all_used() -> None:
    """A corpus of single words: crops become shorter instead of leaving nearly every recording out."""
    random = np.random.default_rng(0)
    lengths = [10] * 20 + [60]
    mels = [torch.zeros(4 * length, 80) for length in lengths]
    crops = Crops(mels, [random.integers(0, 5, length) for length in lengths], 32)
    assert len(crops.rows) == 21 and crops.length == 10
    assert crops.draw(4, random)[0].shape == (4, 40, 80)
    assert Crops(mels[-1:], [random.integers(0, 5, 60)], 32).length == 32
    with pytest.raises(InputError, match="as long as a unit"):
        Crops([torch.zeros(2, 80)], [np.zeros(1, np.int64)], 32)
    words = [vowels(0.2, 120.0, seed) for seed in range(3)]
    train_mel_vocoder(words, None, MelVocoderTraining(steps=2, batch=2))
    train_unit_mel(words, [np.zeros(5, np.int64)] * 3, ["", "", ""], 2, UnitMelTraining(steps=2, batch=2))


def test_durations_are_as_many_as_units() -> None:
    torch.manual_seed(0)
    units = UnitMel(UnitMelConfig(units=12, width=16, blocks=2, voice=4), MelConfig()).eval()
    vocoder = Vocoder(None, units, {"anna": np.ones(4, np.float32)})
    for lasting in ([4], [4, 6], [1, 2, 3, 4]):
        with pytest.raises(InputError, match=f"{len(lasting)} durations are given for 3 units"):
            vocoder.from_units(np.array([3, 1, 4]), voice="anna", durations=np.array(lasting))
    assert len(vocoder.from_units(np.array([3, 1, 4]), voice="anna", durations=np.array([4, 6, 2])))
    for wrong, message in (
        ({"durations": np.array([0, 0, 0])}, "durations lie from 0 to 0"),
        ({"durations": np.array([2, -1, 2])}, "durations lie from -1 to 2"),
        ({"durations": np.array([2.0, 1.5, 2.0])}, "durations lie from 1.5 to 2.0"),
        ({"voice": np.ones(5, np.float32)}, r"the voice is of shape \(5,\): this synthesizer takes \(4,\)"),
        ({"units": np.array([3, 12, 4])}, "units lie from 3 to 12: this synthesizer knows 0 to 11"),
        ({"units": np.array([-1, 2, 4])}, "units lie from -1 to 4"),
        ({"units": np.array([0.5, 2.0])}, "whole ones"),
    ):
        given: dict[str, Any] = {"units": np.array([3, 1, 4]), **wrong}
        with pytest.raises(InputError, match=message):
            vocoder.from_units(given.pop("units"), **given)
