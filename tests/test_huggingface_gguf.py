"""GGUF files come in as the folder that they were made from, or are refused by what would be left out."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.hf_gguf import write_gguf
from tests.support.hf_hosts import TEXTS, write_host
from tests.test_huggingface_export import own_logits
from unitok.export import import_hf
from unitok.huggingface.gguf import CUTS, _scaled
from unitok.huggingface.weights import load_core
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.huggingface import HostText

MISSING = [name for name in ("gguf", "accelerate") if importlib.util.find_spec(name) is None]
needs_gguf = pytest.mark.skipif(bool(MISSING), reason=f"the gguf extra is not installed ({MISSING})")

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 96}  # what blocks of 32 divide
CUT_LIKE_QWEN = "qwen2"
"""How the byte-level tokenizers of `hf_hosts` cut a text, near enough: only runs of line breaks differ."""


@pytest.mark.parametrize(
    ("fields", "scaled"),
    [
        ({}, False), ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, False),
        ({"rope.scaling.type": "yarn"}, True), ({"rope.scaling.factor": 2.0}, True), ({"rope.scale_linear": 2.0}, True),
        ({"rope.scaling.factor": 1.0}, False), ({"attention.key_length": 64, "rope.dimension_count": 64}, False),
        ({"attention.key_length": 64, "rope.dimension_count": 32}, True),
        ({"attention.key_length": 64, "rope.dimension_count": 32, "rope.scaling.type": "none"}, True),
    ],
)  # fmt: skip
def test_positions_that_are_scaled_are_seen(fields: dict[str, object], scaled: bool) -> None:
    assert _scaled({f"llama.{name}": value for name, value in fields.items()}, "llama") is scaled


@needs_gguf
@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "smollm2", "qwen2", "qwen3", "qwen2 tied"])
def test_a_file_is_the_folder_that_it_was_made_from(name: str, tmp_path: Path) -> None:
    write_host(tmp_path / "host", name, **SIZES)
    (tmp_path / "file").mkdir()
    path = tmp_path / "file/model.gguf"
    write_gguf(tmp_path / "host", path, pre=CUT_LIKE_QWEN)
    assert (tmp_path / "file").is_dir() and len(list((tmp_path / "file").iterdir())) == 1, "no tokenizer beside it"
    model = Model.load(import_hf(path, tmp_path / "model"))
    wanted, told = load_core(tmp_path / "host"), HostText.from_folder(tmp_path / "host")
    size = told.size
    for text in TEXTS:
        ids = told.encode(text)
        assert model.tokenizers.text.encode(text) == ids
        ours, theirs = (own_logits(one, np.array(ids))[:, :size] for one in (model.decoder, wanted))
        assert (ours - theirs).abs().max() <= 1e-5
    config = model.decoder.config
    for field in ("width", "layers", "kv_heads", "head_dim", "rope_theta", "norm_eps", "tied", "max_positions"):
        assert getattr(config, field) == pytest.approx(getattr(wanted.config, field)), field
    assert torch.equal(model.decoder.embedding[:size], wanted.embedding[:size])
    assert model.vocabulary.bos == 1 and model.vocabulary.eos == 2
    assert model.info["imported_from"] == wanted_kind(name)
    text = model.tokenizers.text
    assert isinstance(text, HostText) and text.settings.chat_template == "{{ messages[0]['content'] }}"


def wanted_kind(name: str) -> str:
    return "llama" if name == "smollm2" else name.split()[0]


@needs_gguf
@torch.no_grad()
def test_quantized_weights_come_in_as_numbers_and_the_tokenizer_beside_is_taken(tmp_path: Path) -> None:
    write_host(tmp_path / "host", "smollm2", **SIZES)
    (tmp_path / "file").mkdir()
    path = tmp_path / "file/model.gguf"
    write_gguf(tmp_path / "host", path, pre="something new", quantized=True)
    with pytest.raises(InputError, match=r"'something new'.*put the model's tokenizer\.json beside"):
        import_hf(path, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tmp_path / "host" / name, tmp_path / "file" / name)
    model = Model.load(import_hf(path, tmp_path / "model"))
    wanted = load_core(tmp_path / "host")
    off = (model.decoder.embedding[:300] - wanted.embedding[:300]).abs().max() / wanted.embedding[:300].abs().max()
    assert 0 < off < 0.01
    told = HostText.from_folder(tmp_path / "host")
    assert [model.tokenizers.text.encode(text) for text in TEXTS] == [told.encode(text) for text in TEXTS]


@needs_gguf
def test_what_would_be_left_out_is_refused(tmp_path: Path) -> None:
    write_host(tmp_path / "biased", "llama with linear rope and biases", **SIZES)
    write_gguf(tmp_path / "biased", tmp_path / "biased.gguf", pre="smollm")
    with pytest.raises(InputError, match="not all find a place"):
        import_hf(tmp_path / "biased.gguf", tmp_path / "out")
    write_host(tmp_path / "host", "llama", **SIZES)
    path = tmp_path / "model.gguf"
    write_gguf(tmp_path / "host", path, pre="smollm", llama__rope__scaling__type="yarn")
    with pytest.raises(InputError, match="rotary positions are scaled"):
        import_hf(path, tmp_path / "out")
    data = path.read_bytes()
    for cut in (data[:10], data[: len(data) // 2], b"words, no GGUF"):
        path.write_bytes(cut)
        with pytest.raises(InputError, match="no whole GGUF file"):
            import_hf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    real = importlib.util.find_spec
    monkeypatch.setattr("unitok.huggingface.gguf.find_spec", lambda name: None if name == "gguf" else real(name))
    with pytest.raises(InputError, match=r"missing: gguf.*; pip install 'unitok\[hf,gguf\]'"):
        import_hf(tmp_path / "model.gguf", tmp_path / "out")
    with pytest.raises(InputError, match=r"no config\.json; give .* a \.gguf file"):
        import_hf(tmp_path / "nowhere.gguf", tmp_path / "out")


@pytest.mark.parametrize("pre", CUTS)
def test_texts_are_cut_as_the_makers_cut_them(pre: str) -> None:
    """Against what each family's own tokenizer does with numbers, lines and letters."""
    from tokenizers import Tokenizer, models

    plain = json.loads(Tokenizer(models.BPE()).to_str())
    value = {**plain, "pre_tokenizer": {"type": "Sequence", "pretokenizers": CUTS[pre]}}
    cut = Tokenizer.from_str(json.dumps(value)).pre_tokenizer
    found = [part.replace("Ġ", " ").replace("Ċ", "\n") for part, _ in cut.pre_tokenize_str("we'LL see 12345\n\n two")]
    wanted = {
        "gpt-2": ["we", "'", "LL", " see", " 12345", "\n\n", " two"],
        "smollm": ["we", "'", "LL", " see", " ", "1", "2", "3", "4", "5", "\n\n", " two"],
        "llama-bpe": ["we", "'LL", " see", " ", "123", "45", "\n\n", " two"],
        "qwen2": ["we", "'LL", " see", " ", "1", "2", "3", "4", "5", "\n\n", " two"],
    }
    assert found == wanted[pre]
