"""Vocoders of a condition and a network: one conformance test for all; what each condition means; how they attach."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.tiny_model import speech, tiny_model
from tests.test_formats import compare, json_keys
from unitok.model import Model
from unitok.model_directory import attach_vocoder, with_vocoder
from unitok_tokenizers.acoustic.base import codec_mel
from unitok_tokenizers.acoustic.dmel import DmelCodec
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.pitch import SAMPLE_RATE
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.waveforms.waveform_sources import pitch_series
from unitok_vocoder.conditions import CodesInput, MelInput, UnitsInput, stride_of
from unitok_vocoder.generator import CONDITIONS, GENERATORS, Generator, fold_weights, normalize_weights
from unitok_vocoder.hifigan import HifiGanConfig, rates_of
from unitok_vocoder.streaming import UnitStream
from unitok_vocoder.unit_mel import UnitMel, UnitMelConfig
from unitok_vocoder.vocoder import Vocoder
from unitok_vocoder.vocos import VocosConfig

MEL = MelConfig(num_mels=80)
SIZES = {"vocos": VocosConfig(width=16, blocks=1), "hifigan": HifiGanConfig(width=16, fields=2)}
INPUTS = {
    "mel": MelInput(num_mels=80),
    "codes": CodesInput(cardinalities=(5, 4), stride=4, made_by="codec", width=16),
    "units": UnitsInput(units=6, stride=4, made_by="units", width=16, voice=4),
}
ALL = list(product(GENERATORS, CONDITIONS))


def make(kind: str, given: str) -> Generator:
    torch.manual_seed(0)
    return Generator(kind, SIZES[kind], given, INPUTS[given], MEL).eval()


def inputs(given: str, frames: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, ...]:
    """Of `frames` frames of the network, a multiple of four."""
    draw = torch.Generator().manual_seed(seed)
    tokens = frames // 4
    if given == "mel":
        return (torch.randn(batch, frames, 80, generator=draw) - 4,)
    if given == "codes":
        return (torch.randint(4, (batch, tokens, 2), generator=draw),)
    pitch = torch.rand(batch, tokens, generator=draw) * 200
    units = torch.randint(6, (batch, tokens), generator=draw)
    return units, pitch * (pitch > 60), torch.randn(batch, 4, generator=draw)


def test_every_kind_and_condition_is_tried() -> None:
    assert set(SIZES) == set(GENERATORS) and set(INPUTS) == set(CONDITIONS)


@pytest.mark.parametrize("kind, given", ALL)
def test_a_generator_keeps_its_promises(kind: str, given: str, tmp_path: Path) -> None:
    generator, taken = make(kind, given), inputs(given, 24, batch=2)
    made = generator(*taken)
    assert made.shape == (2, 24 * MEL.hop_length) and made.dtype == torch.float32 and bool(torch.isfinite(made).all())
    with torch.no_grad():
        assert torch.equal(generator(*taken), generator(*taken))
        alone = torch.cat([generator(*(one[row : row + 1] for one in taken)) for row in range(2)])
    torch.testing.assert_close(made.detach(), alone, atol=1e-5, rtol=1e-4)
    made.square().sum().backward()
    used = [name for name, value in generator.named_parameters() if value.grad is None or not value.grad.any()]
    predicted = ("condition.speaker", "condition.duration", "condition.pitch")  # learn by what they predict, or give
    assert not [name for name in used if not name.startswith(predicted)], used
    generator.save(tmp_path / "one")
    again = Generator.load(tmp_path / "one")
    with torch.no_grad():
        assert torch.equal(again(*taken), generator(*taken))
    assert (again.kind, again.given, again.condition.made_by) == (kind, given, generator.condition.made_by)


@pytest.mark.parametrize("kind", list(GENERATORS))
def test_a_sample_depends_on_the_frames_within_reach_alone(kind: str) -> None:
    generator, frames = make(kind, "mel"), 120
    (mels,) = inputs("mel", frames)
    other, place = mels.clone(), 60
    other[0, place] += 3
    with torch.no_grad():
        moved = (generator(mels) - generator(other))[0].view(frames, -1).abs().amax(1) > 0
    changed = moved.nonzero()[:, 0]
    assert place in changed
    assert place - generator.reach <= int(changed.min()) and int(changed.max()) <= place + generator.reach


def test_folded_weights_are_those_that_were_trained() -> None:
    generator, taken = make("hifigan", "mel"), inputs("mel", 12)
    names = set(generator.state_dict())
    before = generator(*taken).detach()
    normalize_weights(generator.network)  # type: ignore[arg-type]
    torch.testing.assert_close(generator(*taken).detach(), before, atol=1e-6, rtol=1e-5)
    assert set(generator.state_dict()) != names
    fold_weights(generator)
    assert set(generator.state_dict()) == names
    torch.testing.assert_close(generator(*taken).detach(), before, atol=1e-6, rtol=1e-5)


def test_rates_and_strides_make_the_hop() -> None:
    for hop in (160, 240, 256, 320, 512, 441):
        if hop != 441:
            assert int(np.prod(rates_of(hop))) == hop
        assert hop % stride_of(hop) == 0 and hop // stride_of(hop) <= 256
    assert rates_of(441) == (7, 7, 3, 3)
    assert (stride_of(640), stride_of(320), stride_of(1920)) == (4, 2, 8)
    with pytest.raises(InputError, match="prime factor 11"):
        rates_of(176)


def test_fewer_codebooks_can_be_spoken() -> None:
    generator = make("vocos", "codes")
    (codes,) = inputs("codes", 24)
    with torch.no_grad():
        first, both = generator(codes[..., :1]), generator(codes)
    assert first.shape == both.shape and not torch.equal(first, both)


def test_pitch_is_heard_and_noise_has_none() -> None:
    time = np.arange(8000) / SAMPLE_RATE
    units = [np.zeros(25, np.int64)]
    for hertz in (85.0, 140.0, 260.0, 350.0, 420.0):
        voice = sum(
            np.sin(2 * np.pi * hertz * k * time) * np.exp(-(((hertz * k - 700) / 600) ** 2)) for k in range(1, 20)
        )
        for loud in (0.1, 1e-4):
            (found,) = pitch_series([(loud * voice).astype(np.float32)], units, SAMPLE_RATE)
            assert float(found.median()) == pytest.approx(hertz, rel=0.03) and (found > 0).float().mean() > 0.9
    begun = (0.1 * voice * (time > 0.25)).astype(np.float32)  # units of 20 ms, two pitches each
    (found,) = pitch_series([begun], units, SAMPLE_RATE)
    assert found[found > 0].min() > 0.9 * hertz, "half a unit with a voice is none, and none of half its pitch"
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    (found,), (silent,) = (pitch_series([one], units, SAMPLE_RATE) for one in (noise, np.zeros(8000, np.float32)))
    assert (found > 0).float().mean() < 0.1 and not silent.any()


def spoken_units() -> Vocoder:
    voices = {"anna": np.ones(4, np.float32), "ben": -np.ones(4, np.float32)}
    return Vocoder(None, make("vocos", "units"), voices)


def test_units_are_spoken_with_durations_pitch_and_voice(tmp_path: Path) -> None:
    vocoder, units = spoken_units(), np.array([1, 4, 2, 0])
    durations, pitch = np.array([2, 1, 3, 1]), np.full(7, 120.0)
    made = vocoder.from_units(units, voice="anna", durations=durations, pitch=pitch)
    assert len(made) == 7 * 640 and made.dtype == np.float32
    assert not np.array_equal(made, vocoder.from_units(units, voice="ben", durations=durations, pitch=pitch))
    assert not np.array_equal(made, vocoder.from_units(units, voice="anna", durations=durations, pitch=2 * pitch))
    assert len(vocoder.from_units(units)) % 640 == 0
    assert vocoder.voice_of(speech(0.3)).shape == (4,)
    vocoder.save(tmp_path / "vocoder")
    again = Vocoder.load(tmp_path / "vocoder")
    for voice in ("anna", None):
        assert np.array_equal(again.from_units(units, voice=voice), vocoder.from_units(units, voice=voice))
    stream = UnitStream(again, voice="anna")
    parts = [stream.push([1, 4]), stream.push([2, 0]), stream.finish()]
    assert np.array_equal(np.concatenate(parts), vocoder.from_units(units, voice="anna"))
    with pytest.raises(InputError, match="3 durations are given for 4 units"):
        vocoder.from_units(units, durations=durations[:3])
    with pytest.raises(InputError, match="5 pitches are given for 7 frames"):
        vocoder.from_units(units, durations=durations, pitch=pitch[:5])


@pytest.mark.parametrize("kind", list(GENERATORS))
def test_units_through_log_mels_come_as_they_are_known(kind: str) -> None:
    torch.manual_seed(0)
    synthesizer = UnitMel(UnitMelConfig(units=6, width=16, blocks=1, voice=4), MelConfig()).eval()
    vocoder = Vocoder(make(kind, "mel"), synthesizer)
    units = np.random.default_rng(0).integers(0, 6, 60)
    stream = UnitStream(vocoder)
    parts = [stream.push(units[start : start + 6]) for start in range(0, 60, 6)]
    assert sum(len(part) > 0 for part in parts) > 1, "nothing came before the end"
    whole = vocoder.from_units(units)
    torch.testing.assert_close(np.concatenate([*parts, stream.finish()]), whole, atol=1e-4, rtol=1e-3)


def test_codes_are_spoken_by_the_network_of_their_codec_alone() -> None:
    model = tiny_model()
    assert model.codec is not None
    codes = model.codec.encode(speech(0.5))
    own = CodesInput(cardinalities=model.codec.cardinalities, stride=4, made_by=model.codec.fingerprint, width=16)
    torch.manual_seed(0)
    generator = Generator("vocos", SIZES["vocos"], "codes", own, MEL).eval()
    made = Vocoder(None, codes=generator).from_codes(codes, model.codec)
    with torch.no_grad():
        assert np.array_equal(made, generator(torch.from_numpy(codes)[None])[0].numpy())
    assert Vocoder(None, codes=generator).fallback(model.codec) == ""
    stranger = Vocoder(None, codes=make("vocos", "codes"))
    assert np.array_equal(stranger.from_codes(codes, model.codec), Vocoder(None).from_codes(codes, model.codec))
    assert "Griffin-Lim" in stranger.fallback(model.codec)


def test_the_folder_is_the_documented_one(tmp_path: Path) -> None:
    Vocoder(None, codes=make("hifigan", "codes")).save(tmp_path)
    compare("vocoder/codes/config.json", json_keys(tmp_path / "codes/config.json"))


def test_parts_of_several_sample_rates_are_refused() -> None:
    other = Generator("vocos", SIZES["vocos"], "mel", INPUTS["mel"], MelConfig(sample_rate=24000))
    with pytest.raises(InputError, match="16000 Hz and 24000 Hz"):
        Vocoder(other, make("vocos", "units"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_takes_a_vocoder_and_says_when_it_has_none(tmp_path: Path) -> None:
    model = tiny_model()
    assert "Griffin-Lim" in model.fallback
    Vocoder(make("vocos", "mel")).save(tmp_path / "mel")
    model.save(tmp_path / "model")
    before = contents(tmp_path / "model")
    attach_vocoder(tmp_path / "model", tmp_path / "mel", tmp_path / "model")
    again = Model.load(tmp_path / "model", device="cpu")
    assert again.fallback == "" and again.vocoder is not None
    after = contents(tmp_path / "model")
    assert after.keys() - before.keys() == {
        "vocoder/mel/config.json", "vocoder/mel/model.safetensors"
    }  # fmt: skip
    assert all(after[name] == value for name, value in before.items())
    said = model.with_vocoder(tmp_path / "mel").synthesize("the green house", lang="en", voice="anna")
    there = again.synthesize("the green house", lang="en", voice="anna")
    assert said.audio is not None and there.audio is not None and np.array_equal(said.audio, there.audio)
    assert not np.array_equal(said.audio, model.synthesize("the green house", lang="en", voice="anna").audio)
    for given in ("codes", "units"):
        part = make("vocos", given)
        (Vocoder(None, part) if given == "units" else Vocoder(None, codes=part)).save(tmp_path / given)
        with pytest.raises(InputError, match=f"speaks {given} of another tokenizer"):
            attach_vocoder(tmp_path / "model", tmp_path / given, tmp_path / "model")
    with pytest.raises(InputError, match="no model directory"):
        attach_vocoder(tmp_path / "mel", tmp_path / "mel", tmp_path / "other")


def test_a_network_of_other_log_mels_is_not_attached(tmp_path: Path) -> None:
    """Codes of 32 channels are no input of a network of 80."""
    model = tiny_model()
    codec = DmelCodec.open(choice="32")
    tokenizers = TokenizerSet.of(model.tokenizers.text, None, codec)
    other = Generator("vocos", SIZES["vocos"], "mel", INPUTS["mel"], MelConfig())
    with pytest.raises(InputError, match="other log-mels"):
        with_vocoder(None, Vocoder(other), tokenizers)
    own = Generator("vocos", SIZES["vocos"], "mel", MelInput(num_mels=32), codec.mel)
    assert with_vocoder(None, Vocoder(own), tokenizers).mel is own and codec_mel(codec) == codec.mel


def test_a_network_of_other_units_is_not_attached() -> None:
    model = tiny_model()
    (count,) = model.tokenizers.unit_tokenizer.info().cardinalities  # type: ignore[union-attr]
    for units, stride in ((count + 1, 4), (count, 2)):
        other = UnitMel(UnitMelConfig(units=units, stride=stride, width=16, blocks=1, voice=4), MelConfig())
        with pytest.raises(InputError, match=f"speaks {units} units at"):
            with_vocoder(None, Vocoder(None, other), model.tokenizers)
    own = UnitMel(UnitMelConfig(units=count, stride=4, width=16, blocks=1, voice=4), MelConfig())
    assert with_vocoder(None, Vocoder(None, own), model.tokenizers).units is own


@pytest.mark.parametrize("channels", ["20", "40", "128"])
def test_codes_of_any_log_mels_are_heard_without_a_network(channels: str) -> None:
    codec = DmelCodec.open(choice=channels)
    codes = np.full((10, int(channels)), 7)
    samples = 10 * codec.mel.hop_length
    other = MelConfig(hop_length=codec.mel.hop_length // 2)
    speaks = UnitMel(UnitMelConfig(units=6, stride=4, width=16, blocks=1, voice=4), other)
    for vocoder in (Vocoder(None), Vocoder(None, speaks)):
        assert abs(len(vocoder.from_codes(codes, codec)) - samples) <= codec.mel.hop_length
