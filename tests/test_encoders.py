"""Frame encoders: one conformance test for all, and parity of what comes from transformers.

Run alone with `pytest tests/test_encoders.py`. The weights of transformers' models are random and tiny, written
by the test itself.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.hf_speech import hf_model
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.base import FrameEncoder
from unitok_tokenizers.encoders.combined import LayerMix, SideBySide
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TransformerEncoder, TrunkConfig
from unitok_tokenizers.encoders.ctc import CtcEncoder
from unitok_tokenizers.encoders.filterbank import DEVIATION, FILTERBANK, FilterbankEncoder
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.encoders.networks.ctc_network import CtcNetwork, CtcNetworkConfig
from unitok_tokenizers.encoders.pitch import LOUD, PitchEncoder
from unitok_tokenizers.encoders.pretrained import pretrained_encoder
from unitok_tokenizers.encoders.registry import FRAME_ENCODERS, frame_encoder_from_json
from unitok_tokenizers.encoders.speech_models import SpeechModelEncoder
from unitok_tokenizers.encoders.whisper import WhisperEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer

HAS_HF = importlib.util.find_spec("transformers") is not None
needs_hf = pytest.mark.skipif(not HAS_HF, reason="transformers is not installed (extra hf)")
SMALL = TrunkConfig(width=16, layers=2, heads=2, inner=24, labels=7)
MAKERS: dict[str, Callable[[], FrameEncoder]] = {
    "filterbank": FilterbankEncoder,
    "mfcc": MfccEncoder,
    "pitch": PitchEncoder,
    "transformer": lambda: TransformerEncoder(SMALL),
    "conformer": lambda: ConformerEncoder(SMALL),
    "layer_mix": lambda: LayerMix(TransformerEncoder(SMALL)),
    "side_by_side": lambda: SideBySide(ConformerEncoder(SMALL), FilterbankEncoder()),
    "speech_model": lambda: SpeechModelEncoder(hf_model("wav2vec2"), normalize=True),
    "whisper": lambda: WhisperEncoder(hf_model("whisper").encoder),
    "ctc": lambda: CtcEncoder(CtcNetwork(CtcNetworkConfig(width=16, blocks=2, dropout=0.0)), MelConfig(), 1),
}


def made(name: str) -> FrameEncoder:
    if name in ("speech_model", "whisper") and not HAS_HF:
        pytest.skip("transformers is not installed (extra hf)")
    torch.manual_seed(0)
    return MAKERS[name]().eval()


def recordings() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 0.1, size).astype(np.float32) for size in (9000, 100, 16000, 12345)]


def test_every_encoder_is_tested() -> None:
    assert set(MAKERS) == set(FRAME_ENCODERS)


@pytest.mark.parametrize("name", MAKERS)
def test_frames_have_the_promised_shape_and_none_depends_on_its_neighbors(name: str, tmp_path: Path) -> None:
    encoder, given = made(name), recordings()
    with torch.no_grad():
        found = encoder.encode(given)
        again = frame_encoder_from_json(json.loads(json.dumps(encoder.to_json()))).eval()
        again.load_state_dict(encoder.state_dict())
        assert torch.equal(again.encode(given).hidden, found.hidden)
        assert found.hidden.shape == (len(given), int(found.lengths.max()), encoder.width)
        assert len(found.layers) == encoder.depth and (found.ctc is not None) == bool(encoder.labels)
        for row, samples in enumerate(given):
            size = int(found.lengths[row])
            assert size == encoder.frames_of(len(samples))
            assert (
                abs(size - len(samples) / encoder.sample_rate * encoder.frame_rate) < 2
            )  # convolutions without padding
            alone = encoder.encode([samples])
            torch.testing.assert_close(found.hidden[row, :size], alone.hidden[0], atol=2e-5, rtol=1e-4)
            if found.ctc is not None and alone.ctc is not None:
                assert found.ctc.shape[2] == encoder.labels
                torch.testing.assert_close(found.ctc[row, :size], alone.ctc[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["transformer", "conformer", "layer_mix", "side_by_side"])
def test_gradients_reach_every_weight(name: str) -> None:
    encoder = made(name).train()
    found = encoder.encode(recordings()[:2])
    weight = torch.randn(found.hidden.shape, generator=torch.Generator().manual_seed(0))
    assert found.ctc is not None
    ((found.hidden * weight).sum() + found.ctc[..., 1].sum()).backward()
    for key, parameter in encoder.named_parameters():
        # The mix does not read the final norm; the bias of keys moves all scores alike.
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0 or key.endswith("k_proj.bias"), key


def test_filterbanks_match_a_reference_and_shift_with_the_sound() -> None:
    encoder = FilterbankEncoder()
    samples = recordings()[2]
    (mels,) = encoder.inputs(samples)
    padded = np.pad(samples.astype(np.float64), FILTERBANK.n_fft // 2, mode="reflect")
    window = np.zeros(FILTERBANK.n_fft)
    window[56:456] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    from unitok_tokenizers.audio.features import mel_filters

    for frame in (0, 7, 50):
        part = padded[frame * 160 : frame * 160 + 512] * window
        reference = np.log(np.maximum(np.abs(np.fft.rfft(part)) @ mel_filters(FILTERBANK).double().numpy(), 1e-5))
        np.testing.assert_allclose(mels[frame].numpy(), reference, atol=1e-4)
    (shifted,) = encoder.inputs(np.concatenate([np.zeros(160, np.float32), samples]))
    torch.testing.assert_close(shifted[4:90], mels[3:89], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("hertz", [80.0, 130.0, 250.0])
def test_a_pitch_is_where_the_sound_repeats(hertz: float) -> None:
    times = np.arange(8000) / 16000
    partials = np.arange(1, 12)[:, None]
    sound = (np.sin(2 * np.pi * hertz * partials * times + partials) / partials).sum(0).astype(np.float32)
    hidden = PitchEncoder().encode([0.1 * sound]).hidden[0, 10:-10]
    pitches = np.geomspace(60.0, 320.0, 48)
    expected = int(np.abs(pitches - hertz).argmin())
    above = hidden[:, expected - 6 :]  # an octave below, it repeats as well
    assert (above.argmax(-1) - 6).abs().max() <= 1 and float(above.max()) > 0.9 * LOUD
    assert PitchEncoder().encode([np.zeros(4000, np.float32)]).hidden.abs().max() == 0


def test_a_voice_is_left_in_where_constants_scale_filterbanks() -> None:
    sound = recordings()[2]
    quiet = {centered: FilterbankEncoder(centered=centered).encode([0.5 * sound]).hidden for centered in (True, False)}
    loud = {centered: FilterbankEncoder(centered=centered).encode([sound]).hidden for centered in (True, False)}
    torch.testing.assert_close(loud[True], quiet[True], atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(loud[False] - quiet[False], torch.full_like(quiet[False], np.log(2) / DEVIATION))
    again = FilterbankEncoder.from_json(FilterbankEncoder(centered=False).to_json())
    assert torch.equal(again.encode([sound]).hidden, loud[False])


def test_a_layer_is_chosen_or_learned() -> None:
    inner = TransformerEncoder(SMALL).eval()
    found = inner.encode(recordings()[:2])
    for layer in range(inner.depth):
        assert torch.equal(LayerMix(inner, layer).encode(recordings()[:2]).hidden, found.layers[layer])
    mix = LayerMix(inner)
    assert float(mix.weights.sum().detach()) == pytest.approx(1.0)
    mean = torch.stack(found.layers).mean(0)
    torch.testing.assert_close(mix.encode(recordings()[:2]).hidden, mean, atol=1e-5, rtol=1e-5)
    assert mix.scores is not None
    mix.encode(recordings()[:2]).hidden.pow(2).mean().backward()
    assert mix.scores.grad is not None and mix.scores.grad.abs().sum() > 0
    with pytest.raises(InputError, match="layers 0 to 2"):
        LayerMix(inner, 3)


def test_two_encoders_stand_side_by_side_in_time() -> None:
    first, second = ConformerEncoder(SMALL).eval(), FilterbankEncoder()
    both = SideBySide(first, second).encode(recordings())
    one, two = first.encode(recordings()), second.encode(recordings())
    for row, size in enumerate(both.lengths.tolist()):
        torch.testing.assert_close(both.hidden[row, :size, :16], one.hidden[row, :size])
        places = torch.arange(size).mul(4).clamp(max=int(two.lengths[row]) - 1)
        assert torch.equal(both.hidden[row, :size, 16:], two.hidden[row, places])


@needs_hf
@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm", "whisper"])
def test_local_weights_give_what_transformers_gives(kind: str, tmp_path: Path) -> None:
    model = hf_model(kind)
    model.save_pretrained(tmp_path)
    encoder = pretrained_encoder(tmp_path).eval()
    samples = recordings()[2]
    with torch.no_grad():
        found = encoder.encode([samples, samples[:7000]])
        if kind == "whisper":
            from transformers import WhisperFeatureExtractor

            mels = WhisperFeatureExtractor()(samples, sampling_rate=16000, return_tensors="pt").input_features
            reference = model.encoder(mels).last_hidden_state[:, :50]
        else:
            wave = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
            reference = model(wave).last_hidden_state
    torch.testing.assert_close(found.hidden[:1, : int(found.lengths[0])], reference, atol=1e-5, rtol=1e-5)
    assert encoder.frame_rate == 50
    for name, value in pretrained_encoder(tmp_path).state_dict().items():
        assert torch.equal(value, encoder.state_dict()[name]), name


@needs_hf
def test_whisper_reads_windows_of_thirty_seconds_one_after_another() -> None:
    encoder = made("whisper")
    samples = np.random.default_rng(1).normal(0, 0.1, 31 * 16000).astype(np.float32)
    with torch.no_grad():
        found, first = encoder.encode([samples]), encoder.encode([samples[: 30 * 16000]])
    assert found.lengths.tolist() == [1550]
    torch.testing.assert_close(found.hidden[:, :1500], first.hidden, atol=1e-5, rtol=1e-5)


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(InputError, match="bert"):
        pretrained_encoder(tmp_path)
    with pytest.raises(InputError, match="unknown frame encoder"):
        frame_encoder_from_json({"class": "ear"})


@pytest.mark.parametrize("name", MAKERS)
def test_units_are_k_means_over_any_layer_of_any_encoder(name: str, tmp_path: Path) -> None:
    encoder, given = made(name), recordings()
    for layer in (None, encoder.depth // 2):
        tokenizer = UnitTokenizer.fit(encoder, given, 5, seed=0, layer=layer)
        units = tokenizer.encode_batch(given)
        assert [len(one) for one in units] == [encoder.frames_of(len(samples)) for samples in given]
        assert all((tokenizer.encode(samples) == one).mean() > 0.95 for samples, one in zip(given, units))
        folder = tmp_path / str(layer)
        tokenizer.save(folder)
        again = UnitTokenizer.load(folder)
        assert again.fingerprint == tokenizer.fingerprint and again.layer == layer and again.info() == tokenizer.info()
        assert all(np.array_equal(*pair) for pair in zip(again.encode_batch(given), units, strict=True))
        with torch.no_grad():
            whole = encoder(encoder.placed_inputs(given[:1]))
            found, lengths = encoder.hidden_at(encoder.placed_inputs(given[:1]), layer)
        wanted = whole.hidden if layer is None else whole.layers[layer]
        assert torch.equal(found, wanted) and torch.equal(lengths, whole.lengths)
    with pytest.raises(InputError, match=f"layers 0 to {encoder.depth - 1}"):
        UnitTokenizer(encoder, torch.zeros(5, encoder.width), layer=encoder.depth)


@needs_hf
def test_an_encoder_of_two_inputs_stands_beside_one_of_one() -> None:
    whisper, bank = WhisperEncoder(hf_model("whisper").encoder).eval(), FilterbankEncoder()
    for first, second in ((whisper, bank), (bank, whisper)):
        both = SideBySide(first, second)
        found, alone = both.encode(recordings()), first.encode(recordings())
        assert both.parts == 3 and found.hidden.shape[2] == first.width + second.width
        for row, size in enumerate(found.lengths.tolist()):
            torch.testing.assert_close(found.hidden[row, :size, : first.width], alone.hidden[row, :size])
            assert both.frames_in(both.inputs(recordings()[row])) == first.frames_in(first.inputs(recordings()[row]))
