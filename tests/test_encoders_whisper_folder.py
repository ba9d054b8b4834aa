"""Whisper folders of CTranslate2 and Hugging Face: equal weights, equal answers, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.ct2_whisper import WORDS, ct2_bytes, ct2_variables, in_type, tiny_whisper, write_ct2, write_hf
from tests.support.tiny_model import speech, tiny_model
from unitok.pipelines.backends.choose import recognizer_of
from unitok.pipelines.backends.whisper import WhisperRecognizer, greedy_ids
from unitok_tokenizers.encoders.folders.ctranslate2 import read_ct2
from unitok_tokenizers.encoders.folders.whisper import load_whisper, whisper_of_ct2
from unitok_tokenizers.errors import InputError


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_every_tensor_is_equal(tmp_path: Path, kind: torch.dtype) -> None:
    model = tiny_whisper()
    read = load_whisper(write_ct2(tmp_path / "ct2", model, kind)).model
    assert type(read) is type(model) and not read.training
    expected = model.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, value in read.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, expected[name].to(kind).float()), name


def test_integers_are_multiplied_out(tmp_path: Path) -> None:
    model = tiny_whisper()
    read = load_whisper(write_ct2(tmp_path / "ct2", model, torch.int8)).model
    expected = model.state_dict()
    assert read.state_dict().keys() == expected.keys()
    for name, value in read.state_dict().items():
        half_a_step = expected[name].flatten(1).abs().amax(1).max() / 254 if value.ndim > 1 else 0.0
        assert float((value - expected[name]).abs().max()) <= float(half_a_step) * 1.001, name


def test_sixteen_bit_integers_share_one_scale(tmp_path: Path) -> None:
    value = torch.tensor([[0.5, -1.0], [0.25, 0.125]])
    variables = {"a/weight": (value * 1024).to(torch.int16), "a/weight_scale": torch.tensor(1024.0)}
    (tmp_path / "model.bin").write_bytes(ct2_bytes(variables, aliases={}))
    found = read_ct2(tmp_path / "model.bin")
    assert torch.equal(found.tensors["a/weight"], value)
    assert found.tensors.keys() == {"a/weight"} and not found.scalars


def test_a_head_of_its_own_stays_its_own(tmp_path: Path) -> None:
    model = tiny_whisper()
    variables = ct2_variables(model) | {"decoder/projection/weight": torch.randn(18, 16)}
    (tmp_path / "model.bin").write_bytes(ct2_bytes(variables, aliases={}))
    read = whisper_of_ct2(read_ct2(tmp_path / "model.bin"), "here")
    assert torch.equal(read.proj_out.weight, variables["decoder/projection/weight"])
    assert torch.equal(read.model.decoder.embed_tokens.weight, variables["decoder/embeddings/weight"])


def plus(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda variables: variables | {name: value}


def without(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda variables: {other: value for other, value in variables.items() if other != name}


def with_key_bias(variables: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "encoder/layer_1/self_attention/linear_0/bias"
    return variables | {name: variables[name] + 1.0}


BIG = torch.zeros(3, 3)
REFUSED: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], dict[str, Any], str]] = {
    "version": (dict, {"version": 5}, "binary version 5"),
    "spec": (dict, {"spec": "TransformerSpec"}, "TransformerSpec"),
    "revision": (dict, {"revision": 4}, "revision 4"),
    "name": (plus("decoder/layer_0/self_attention/q_norm/gamma", torch.ones(8)), {}, "q_norm"),
    "setting": (plus("decoder/alibi", torch.tensor(1, dtype=torch.int8)), {}, "decoder/alibi = 1"),
    "new setting": (plus("decoder/sliding_window", torch.tensor(9, dtype=torch.int32)), {}, "sliding_window"),
    "activation": (plus("decoder/activation", torch.tensor(0, dtype=torch.int8)), {}, "activation = 0"),
    "missing": (without("encoder/conv2/bias"), {}, "encoder/conv2/bias"),
    "key": (with_key_bias, {}, "bias of the key"),
    "integers": (plus("encoder/conv1/weight", torch.ones(16, 80, 3, dtype=torch.int8)), {}, "without a scale"),
    "scales": (plus("encoder/conv1/weight_scale", torch.ones(7)), {}, "conv1/weight_scale"),
    "alias": (dict, {"aliases": {"decoder/projection/weight": "encoder/conv1/weight"}}, "alias"),
    "alias of nothing": (dict, {"aliases": {"decoder/projection/weight": "nothing"}}, "alias of nothing"),
    "no head": (dict, {"aliases": {}}, "decoder/projection/weight"),
    "extra layer": (plus("encoder/layer_2/ffn/layer_norm/beta", torch.zeros(16)), {}, "layer_2"),
    "shape": (plus("encoder/conv1/weight", BIG), {}, "damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused(tmp_path: Path, case: str) -> None:
    change, options, message = REFUSED[case]
    (tmp_path / "model.bin").write_bytes(ct2_bytes(change(ct2_variables(tiny_whisper())), **options))
    with pytest.raises(InputError, match=message):
        whisper_of_ct2(read_ct2(tmp_path / "model.bin"), "here")


def test_a_file_that_is_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    data = ct2_bytes(in_type(ct2_variables(tiny_whisper()), torch.float16))
    path = tmp_path / "model.bin"
    for share in np.linspace(0.0, 0.999, 25):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match="damaged"):
            read_ct2(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(InputError, match="1 bytes behind"):
        read_ct2(path)


@pytest.mark.parametrize("lost", ["tokenizer.json", "config.json", "model.bin"])
def test_a_folder_without_a_file_says_which(tmp_path: Path, lost: str) -> None:
    folder = write_ct2(tmp_path / "ct2", tiny_whisper())
    (folder / lost).unlink()
    with pytest.raises(InputError, match=lost):
        load_whisper(folder)


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = write_ct2(tmp_path / "ct2", tiny_whisper())
    (folder / "vocabulary.json").write_text('["a"]', encoding="utf-8")
    with pytest.raises(InputError, match="vocabulary of 1"):
        load_whisper(folder)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    with pytest.raises(InputError, match="no Whisper folder"):
        load_whisper(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        load_whisper(tmp_path / "nothing")


def test_both_kinds_of_folder_answer_alike(tmp_path: Path) -> None:
    model = tiny_whisper()
    recordings = [speech(seconds, seed=seed) for seed, seconds in enumerate((0.7, 0.9, 0.4))]
    ours = WhisperRecognizer.load(write_ct2(tmp_path / "ct2", model))
    theirs = WhisperRecognizer.load(write_hf(tmp_path / "hf", model))
    theirs.parts.model.generation_config.suppress_tokens = [len(WORDS) + 2]
    theirs.parts.model.generation_config.begin_suppress_tokens = [0, len(WORDS)]
    texts = [found[0].text for found in ours.recognize(recordings, lang="en")]
    assert texts == [found[0].text for found in theirs.recognize(recordings, lang="en")]
    assert any(texts)
    with pytest.raises(InputError, match="English only"):
        ours.recognize(recordings, lang="de")
    chosen = recognizer_of(str(tmp_path / "hf"), tiny_model())
    assert isinstance(chosen, WhisperRecognizer) and chosen.cutting == ours.cutting


def by_hand(model: Any, features: torch.Tensor, prompt: list[int], limit: int) -> list[int]:
    """One recording, no cache."""
    config = model.generation_config
    ids = list(prompt)
    for step in range(limit):
        logits = model(input_features=features, decoder_input_ids=torch.tensor([ids])).logits[0, -1].clone()
        logits[config.suppress_tokens] = -torch.inf
        if step == 0:
            logits[config.begin_suppress_tokens] = -torch.inf
        if int(logits.argmax()) == config.eos_token_id:
            break
        ids.append(int(logits.argmax()))
    return ids[len(prompt) :]


def test_a_batch_decodes_as_each_alone_without_a_cache(tmp_path: Path) -> None:
    parts = load_whisper(write_ct2(tmp_path / "ct2", tiny_whisper(seed=3)))
    recordings = [speech(0.9, seed=seed) for seed in range(5)]
    features = parts.features(recordings, sampling_rate=16000, return_tensors="pt").input_features
    limits = [9, 9, 4, 9, 0]
    found = greedy_ids(parts.model, features, parts.prompt(), limits)
    alone = [by_hand(parts.model, one[None], parts.prompt(), n + 1) for one, n in zip(features, limits)]
    assert found == [(ids[:n], len(ids) <= n) for ids, n in zip(alone, limits)]
    assert len({tuple(ids) for ids, _ in found}) > 2 and not found[4][1]


def test_silence_is_empty_and_long_recordings_are_cut(tmp_path: Path) -> None:
    recognizer = WhisperRecognizer.load(write_ct2(tmp_path / "ct2", tiny_whisper()))
    long = np.concatenate([speech(0.8, seed=1), np.zeros(8000, np.float32), speech(0.8, seed=2)])
    nothing = [np.zeros(0, np.float32), np.zeros(16000, np.float32)]
    texts = [found[0].text for found in recognizer.recognize([*nothing, long], lang="en")]
    assert texts[:2] == ["", ""]
    first = recognizer.recognize([long[:16000]], lang="en")[0][0].text
    assert first and len(texts[2].split()) > len(first.split())


def test_a_cascade_takes_such_a_folder(tmp_path: Path) -> None:
    found = recognizer_of(str(write_ct2(tmp_path / "ct2", tiny_whisper())), tiny_model())
    assert isinstance(found, WhisperRecognizer)
