"""Every codec behind the one interface: shapes, rates, determinism, files. The two packages must be installed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.codecs import ENCODEC, MAKERS, SPEECHTOKENIZER, encodec, mel_rvq, speechtokenizer
from tests.support.codecs import tone as tone_at
from unitok_tokenizers.acoustic.base import AcousticTokenizer, LatentCodec, NetworkCodec, StreamingCodec
from unitok_tokenizers.acoustic.encodec import EncodecCodec
from unitok_tokenizers.acoustic.registry import CODECS, load_codec
from unitok_tokenizers.acoustic.speechtokenizer import SpeechTokenizerCodec
from unitok_tokenizers.audio.features import MelConfig
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_training.fitting.codec import CodecConfig, exchange, train_codec
from unitok_vocoder.vocoder import Vocoder


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> AcousticTokenizer:
    assert request.param in MAKERS, "a new codec is made in MAKERS, so that it is tested"
    return MAKERS[request.param]()


def tone(codec: AcousticTokenizer, seconds: float) -> np.ndarray:
    return tone_at(codec.sample_rate, seconds)


def test_codes_have_the_stated_rate_books_and_range(codec: AcousticTokenizer) -> None:
    codes = codec.encode(tone(codec, 1.0))
    assert codes.dtype == np.int64 and codes.shape[1] == len(codec.cardinalities)
    assert abs(len(codes) - float(codec.frame_rate)) <= 1
    assert (codes >= 0).all() and (codes < np.asarray(codec.cardinalities)).all()
    assert len(np.unique(codes[:, -1])) > 1, "a codec that says the same of every frame proves nothing"


def test_encoding_repeats_and_does_not_depend_on_the_batch(codec: AcousticTokenizer) -> None:
    recordings = [tone(codec, 0.5), tone(codec, 0.8)]
    batch = codec.encode_batch(recordings)
    for one, samples in zip(batch, recordings):
        assert np.array_equal(one, codec.encode(samples))


def test_decoding_gives_as_much_audio_as_was_encoded(codec: AcousticTokenizer) -> None:
    samples = tone(codec, 0.8)
    codes = codec.encode(samples)
    audio, features = codec.decode(codes), codec.decode_features(codes)
    assert (audio is None) != (features is None)
    if audio is not None:
        assert audio.ndim == 1 and np.isfinite(audio).all()
        assert abs(len(audio) - len(samples)) <= 2 * codec.sample_rate / float(codec.frame_rate)
    if features is not None:
        assert features.shape == (len(codes) * MelConfig().frame_rate / codec.frame_rate, 80)
        assert np.isfinite(features).all()


@pytest.mark.parametrize("long", [False, True])
def test_latents_decode_to_what_their_codes_do(
    codec: AcousticTokenizer, long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(codec, LatentCodec):
        assert codec.info().cardinalities == (16,) * 80, "channels of a spectrogram say no common vector"
        with pytest.raises(InputError, match="no latents"):
            Vocoder(None).from_latents(np.zeros((2, 80), np.float32), codec)
        return
    monkeypatch.setattr("unitok_tokenizers.acoustic.base.WHOLE_SECONDS", 2)
    monkeypatch.setattr("unitok_tokenizers.acoustic.base.PIECE_SECONDS", 1)
    codes = codec.encode(tone(codec, 0.8))
    codes = np.tile(codes, (4, 1)) if long else codes
    latents = codec.latents(codes)
    assert latents.dtype == np.float32 and len(latents) == len(codes) and latents.ndim == 2
    for made, wanted in (
        (codec.decode_latents(latents), codec.decode(codes)),
        (codec.decode_latent_features(latents), codec.decode_features(codes)),
    ):
        assert (made is None) == (wanted is None)
        if made is not None and wanted is not None:  # some processors add up pieces of other lengths in another order
            np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)
    moved = codec.decode_latents(latents + 1.0)
    assert moved is None or not np.array_equal(moved, codec.decode(codes))
    spoken = Vocoder(None).from_latents(latents, codec)
    np.testing.assert_allclose(spoken, Vocoder(None).from_codes(codes, codec), rtol=1e-4, atol=1e-5)
    assert not len(Vocoder(None).from_latents(latents[:0], codec))


def test_files_give_the_same_codec(codec: AcousticTokenizer, tmp_path: Path) -> None:
    codec.save(tmp_path / "codec")
    again = load_codec(tmp_path / "codec")
    assert again.fingerprint == codec.fingerprint and again.info() == codec.info()
    samples = tone(codec, 0.5)
    assert np.array_equal(again.encode(samples), codec.encode(samples))


def test_nothing_and_next_to_nothing_are_encoded(codec: AcousticTokenizer) -> None:
    if not isinstance(codec, NetworkCodec):
        return  # who reads features needs a window of samples
    nothing = codec.encode(np.zeros(0, dtype=np.float32))
    assert nothing.shape == (0, len(codec.cardinalities)) and codec.decode(nothing).shape == (0,)
    assert len(codec.encode(np.full(1, 0.1, dtype=np.float32))) == 1


def test_networks_take_recordings_in_pieces(codec: AcousticTokenizer) -> None:
    assert isinstance(codec, StreamingCodec) == isinstance(codec, NetworkCodec)


def test_published_weight_files_load(tmp_path: Path) -> None:
    """The official formats: a plain `.th` dictionary, and `config.json` with a `.pt`."""
    import json

    source = encodec()
    torch.save(source.model.state_dict(), tmp_path / "encodec.th")
    assert EncodecCodec.from_weights(tmp_path / "encodec.th", ENCODEC).fingerprint == source.fingerprint
    other = speechtokenizer()
    (tmp_path / "config.json").write_text(json.dumps(SPEECHTOKENIZER), encoding="utf-8")
    torch.save(other.model.state_dict(), tmp_path / "SpeechTokenizer.pt")
    loaded = SpeechTokenizerCodec.from_weights(tmp_path / "config.json", tmp_path / "SpeechTokenizer.pt")
    assert loaded.fingerprint == other.fingerprint


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "wrong.th")
    with pytest.raises(InputError, match="not the weights"):
        EncodecCodec.from_weights(tmp_path / "wrong.th", ENCODEC)
    with pytest.raises(InputError, match="no weights"):
        EncodecCodec.from_weights(tmp_path / "absent.th", ENCODEC)


def test_the_packages_leave_no_placeholder_behind() -> None:
    import sys

    encodec()
    assert "torchaudio" not in sys.modules


def test_a_corpus_of_single_words_suffices_for_the_codebooks() -> None:
    """Recordings of a third of a second: one batch holds fewer frames than a codebook has codes."""
    encoder = MfccEncoder(MelConfig(hop_length=640))
    words = [tone(mel_rvq(), 0.32) * np.float32(scale) for scale in np.linspace(0.2, 1, 12)]
    units = UnitTokenizer.fit(encoder, words, 4, seed=0)
    fitted = train_codec(words, units, CodecConfig(steps=2, batch=2, codebooks=1, cardinality=32))
    codes = fitted.encode(words[0])
    assert codes.shape == (8, 2) and codes[:, 1].max() < 32


def test_exchanged_residuals_are_those_of_other_frames_of_the_row() -> None:
    residual = torch.randn(3, 50, 4)
    found = exchange(residual, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(found, exchange(residual, 0.4, torch.Generator().manual_seed(0)))
    assert torch.equal(exchange(residual, 0.0, torch.Generator()), residual)
    for row in range(3):
        assert (found[row][:, None] == residual[row][None]).all(-1).any(1).all(), "a frame of another row"
    assert 0.2 < (found != residual).any(-1).float().mean() < 0.5
    with pytest.raises(InputError, match="exchanged is 1.5"):
        CodecConfig(exchanged=1.5)
