"""What the codecs give is what the networks' own packages give of one whole recording, and published files open."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.codecs import (
    ENCODEC,
    ENCODEC_TRANSFORMERS,
    SPEECHTOKENIZER,
    dac,
    dac_model,
    encodec,
    mimi,
    mimi_model,
    speechtokenizer,
    tone,
)
from unitok_tokenizers.acoustic.base import NetworkCodec
from unitok_tokenizers.acoustic.encodec import EncodecConfig, package_state
from unitok_tokenizers.acoustic.open import open_codec
from unitok_tokenizers.errors import InputError

LENGTHS = (1, 7, 319, 320, 641, 3199, 4000, 9601)
"""Samples: shorter than a window, whole frames, and ends in the middle of one."""
NON_CAUSAL = EncodecConfig(
    filters=4, dimension=16, lstm=1, bins=64, bandwidth=1.5, bandwidths=(0.75, 1.5), causal=False, shortcut=False
)
"""As the 32 kHz model of MusicGen is."""


def encodec_reference(codec: NetworkCodec, samples: Tensor) -> tuple[Tensor, Tensor]:
    frames = codec.model.encode(samples)
    return frames[0][0], codec.model.decode(frames)


def speechtokenizer_reference(codec: NetworkCodec, samples: Tensor) -> tuple[Tensor, Tensor]:
    codes = codec.model.encode(samples)
    return codes.transpose(0, 1), codec.model.decode(codes)


def mimi_reference(codec: NetworkCodec, samples: Tensor) -> tuple[Tensor, Tensor]:
    codes = codec.model.encode(samples, num_quantizers=len(codec.cardinalities)).audio_codes
    return codes, codec.model.decode(codes).audio_values


def dac_reference(codec: NetworkCodec, samples: Tensor) -> tuple[Tensor, Tensor]:
    more = -samples.shape[2] % codec.multiple  # what its feature extractor does
    codes = codec.model.encode(torch.nn.functional.pad(samples, (0, more))).audio_codes
    return codes, codec.model.decode(audio_codes=codes).audio_values[:, None]


REFERENCES: dict[str, tuple[Callable[[], NetworkCodec], Callable[[NetworkCodec, Tensor], tuple[Tensor, Tensor]]]] = {
    "encodec": (encodec, encodec_reference),
    "encodec that looks forward": (lambda: encodec(NON_CAUSAL), encodec_reference),
    "speechtokenizer": (speechtokenizer, speechtokenizer_reference),
    "mimi": (mimi, mimi_reference),
    "dac": (dac, dac_reference),
}


@pytest.mark.parametrize("name", REFERENCES)
@torch.no_grad()
def test_codes_and_waveforms_are_those_of_the_package(name: str) -> None:
    make, reference = REFERENCES[name]
    codec = make()
    for length in LENGTHS:
        samples = tone(codec.sample_rate, length / codec.sample_rate, seed=length)
        codes, waveform = reference(codec, torch.from_numpy(samples)[None, None])
        ours = codec.encode(samples)
        assert np.array_equal(ours, codes[0].T.numpy()), f"{length} samples"
        made = codec.decode(ours)
        assert made.shape == waveform[0, 0].shape
        np.testing.assert_allclose(made, waveform[0, 0].numpy(), atol=1e-4)
        assert length < 400 or np.abs(made).max() > 1e-2, "silence equals silence"


def transformers_encodec(**changes: Any) -> Any:
    """transformers' EnCodec with the weights of the package's."""
    from transformers import EncodecConfig as Config
    from transformers import EncodecModel

    model = EncodecModel(Config(**{**ENCODEC_TRANSFORMERS, **changes})).eval()
    source = encodec(NON_CAUSAL if changes else ENCODEC).model.state_dict()
    names = {name: torch.full_like(value, index) for index, (name, value) in enumerate(model.state_dict().items())}
    # the inverse of the map under test: which of ours each of theirs becomes
    placed = package_state({name: value.float() for name, value in names.items()}, source, "here")
    theirs = list(names)
    model.load_state_dict({theirs[int(value.flatten()[0])]: source[name] for name, value in placed.items()})
    return model


@pytest.mark.parametrize("changes", [{}, {"use_causal_conv": False, "use_conv_shortcut": False}], ids=str)
@torch.no_grad()
def test_encodec_of_transformers_and_of_the_package_are_one(changes: dict[str, Any], tmp_path: Path) -> None:
    model = transformers_encodec(**changes)
    model.save_pretrained(tmp_path)
    codec = open_codec(f"encodec:{tmp_path}@1.5")
    assert codec.fingerprint == encodec(NON_CAUSAL if changes else ENCODEC).fingerprint
    samples = tone(24000, 0.31)
    theirs = model.encode(torch.from_numpy(samples)[None, None], bandwidth=1.5)
    ours = codec.encode(samples)
    assert np.array_equal(ours, theirs.audio_codes[0, 0].T.numpy()) and ours.shape[1] == 3
    made, waveform = codec.decode(ours), model.decode(theirs.audio_codes, theirs.audio_scales).audio_values
    assert made is not None
    np.testing.assert_allclose(made, waveform[0, 0].numpy(), atol=1e-4)


def test_weight_norm_in_its_old_form_and_a_pickled_file_are_read(tmp_path: Path) -> None:
    """`facebook/encodec_24khz` was written so."""
    model = transformers_encodec()
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    state = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in model.state_dict().items()
    }
    assert any(name.endswith("weight_g") for name in state)
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert open_codec(f"encodec:{tmp_path}@1.5").fingerprint == encodec().fingerprint


@pytest.mark.parametrize("kind", ["mimi", "dac"])
def test_folders_of_transformers_open(kind: str, tmp_path: Path) -> None:
    model, codec = (mimi_model(), mimi()) if kind == "mimi" else (dac_model(), dac())
    model.save_pretrained(tmp_path)
    again = open_codec(f"{kind}:{tmp_path}@4")
    assert again.fingerprint == codec.fingerprint
    samples = tone(codec.sample_rate, 0.5)
    assert np.array_equal(again.encode(samples), codec.encode(samples))
    fewer = open_codec(f"{kind}:{tmp_path}@2")
    assert np.array_equal(fewer.encode(samples), codec.encode(samples)[:, :2])
    assert fewer.fingerprint != codec.fingerprint and len(fewer.cardinalities) == 2
    made = fewer.decode(fewer.encode(samples))
    assert made is not None and np.abs(made).max() > 1e-2
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert open_codec(f"{kind}:{tmp_path}@4").fingerprint == codec.fingerprint


PUBLISHED_NAMES = (
    ("encoder.encoder_seanet.", "encoder."),
    ("decoder.decoder_seanet.", "decoder."),
    ("encoder.encoder_transformer.", "encoder_transformer."),
    ("decoder.decoder_transformer.", "decoder_transformer."),
    ("encoder.downsample.", "downsample."),
    ("decoder.upsample.", "upsample."),
)


def test_the_published_names_of_mimi_open(tmp_path: Path) -> None:
    """`kyutai/mimi` was written before transformers put encoder and decoder into models of their own."""
    from safetensors.torch import save_file

    model, state = mimi_model(), {}
    model.save_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        for new, old in PUBLISHED_NAMES:
            if name.startswith(new):
                name = old + name.removeprefix(new)
                break
        state[name] = value.clone()
    assert "encoder.layers.0.conv.weight" in state and "encoder_transformer.layers.0.mlp.fc1.weight" in state
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert open_codec(f"mimi:{tmp_path}@4").fingerprint == mimi().fingerprint


def test_the_folder_of_speechtokenizer_opens(tmp_path: Path) -> None:
    codec = speechtokenizer()
    (tmp_path / "config.json").write_text(json.dumps(SPEECHTOKENIZER), encoding="utf-8")
    torch.save(codec.model.state_dict(), tmp_path / "SpeechTokenizer.pt")
    assert open_codec(f"speechtokenizer:{tmp_path}").fingerprint == codec.fingerprint
    fewer = open_codec(f"speechtokenizer:{tmp_path}@2")
    samples = tone(16000, 0.4)
    assert np.array_equal(fewer.encode(samples), codec.encode(samples)[:, :2])
    fewer.save(tmp_path / "saved")
    assert open_codec(f"speechtokenizer:{tmp_path / 'saved'}").fingerprint == fewer.fingerprint


def test_the_published_file_of_encodec_opens(tmp_path: Path) -> None:
    """In its published size, as `encodec_24khz-d7cc33bc.th` is written: a plain dictionary."""
    from unitok_tokenizers.acoustic.encodec import build_encodec

    torch.manual_seed(0)
    torch.save(build_encodec(EncodecConfig()).state_dict(), tmp_path / "encodec_24khz.th")
    found = {choice: open_codec(f"encodec:{tmp_path}/encodec_24khz.th{choice}") for choice in ("", "@1.5", "@24")}
    assert [len(one.cardinalities) for one in found.values()] == [8, 2, 32]
    assert len(open_codec(f"encodec:{tmp_path}@3").cardinalities) == 4
    assert found["@1.5"].frame_rate == 75 and found["@1.5"].cardinalities == (1024, 1024)
    with pytest.raises(InputError, match=r"no bandwidth '5' kbit/s; choose one of 1.5 \(2 codebooks\)"):
        open_codec(f"encodec:{tmp_path}@5")


def test_bandwidths_use_as_many_codebooks_as_the_models_say() -> None:
    from transformers import EncodecConfig as Config
    from transformers import EncodecModel

    ours = EncodecConfig()
    assert ours.codebooks == {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32}
    config = Config(**{**ENCODEC_TRANSFORMERS, "codebook_size": 1024, "target_bandwidths": [1.5, 3.0, 6.0]})
    quantizer = EncodecModel(config).quantizer
    for bandwidth in config.target_bandwidths:
        assert quantizer.get_num_quantizers_for_bandwidth(bandwidth) == ours.codebooks[bandwidth]


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    for kind, model in (("mimi", mimi_model()), ("dac", dac_model()), ("encodec", transformers_encodec())):
        model.save_pretrained(tmp_path / kind)

    def refused(name: str, message: str) -> None:
        with pytest.raises(InputError, match=message):
            open_codec(name)

    refused("soundstream:x", "unknown kind 'soundstream'")
    refused("mimi", "names no folder")
    refused("mimi:", "names no folder")
    refused(f"mimi:{tmp_path}/absent", "there is no")
    refused(f"mimi:{tmp_path}/dac", "model_type 'dac', and 'mimi' is wanted")
    refused(f"mimi:{tmp_path}/mimi@7", "has 6 codebooks, and @7 asks for 7")
    refused(f"dac:{tmp_path}/dac@1.5", "choose 1 to 4")
    refused("mel_rvq", "is trained")
    refused("dmel@500", "choose 1 to 128 channels")
    refused(f"dmel:{tmp_path}", "dmel has no weights")
    for kind in ("mimi", "dac", "encodec"):
        widths = {"mimi": "hidden_size", "dac": "encoder_hidden_size", "encodec": "num_filters"}
        value = json.loads((tmp_path / kind / "config.json").read_text("utf-8"))
        changed(tmp_path / kind, **{widths[kind]: 2 * value[widths[kind]]})
        refused(f"{kind}:{tmp_path}/{kind}", "not the weights of its config.json|damaged or incomplete")
        (tmp_path / kind / "config.json").write_text(json.dumps(value), encoding="utf-8")
        open_codec(f"{kind}:{tmp_path}/{kind}")
        (tmp_path / kind / "model.safetensors").rename(tmp_path / kind / "other.safetensors")
        refused(f"{kind}:{tmp_path}/{kind}", "holds neither model.safetensors nor pytorch_model.bin")
        (tmp_path / kind / "other.safetensors").rename(tmp_path / kind / "model.safetensors")
    changed(tmp_path / "encodec", audio_channels=2, normalize=True)
    refused(f"encodec:{tmp_path}/encodec", "audio_channels is 2")
    changed(tmp_path / "mimi", use_causal_conv=False)
    refused(f"mimi:{tmp_path}/mimi", "use_causal_conv is False")
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "config.json").write_text("{}", encoding="utf-8")
    refused(f"speechtokenizer:{tmp_path}/speech", "none of SpeechTokenizer")
    refused(f"encodec:{tmp_path}", r"no \*.th")


def test_a_layer_that_is_missing_is_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for kind, model in (("mimi", mimi_model()), ("dac", dac_model())):
        model.save_pretrained(tmp_path / kind)
        path = tmp_path / kind / "model.safetensors"
        state = load_file(path)
        del state[next(name for name in state if name.endswith("bias"))]
        save_file(state, path, metadata={"format": "pt"})
        with pytest.raises(InputError, match="lacks .*bias"):
            open_codec(f"{kind}:{tmp_path / kind}")


def test_saved_folders_are_opened_by_their_kind(tmp_path: Path) -> None:
    codec = mimi()
    codec.save(tmp_path / "codes@2")
    assert open_codec(f"mimi:{tmp_path}/codes@2/").fingerprint == codec.fingerprint
    with pytest.raises(InputError, match="is a mimi codec of its own number of codebooks"):
        open_codec(f"dac:{tmp_path}/codes@2/")
    assert len(open_codec("dmel@40").cardinalities) == 40
