"""Folders of other makers come in: the same function on text, new rows like the old ones, and a way out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.hf_hosts import BASE, HOSTS, TEXTS, write_host
from tests.support.tiny_model import speech, tokenizers
from tests.test_huggingface_export import USER_TEXTS, files, own_logits
from unitok.cli.main import main
from unitok.export import export_hf, import_hf
from unitok.huggingface.tokenizer import token_names
from unitok.huggingface.weights import expand_vocabulary, from_hf_config, load_core, load_hf_state, read_state
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.text.huggingface import HostText

transformers = pytest.importorskip("transformers", reason="the hf extra is not installed")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizers whose units and codes join the host."""
    folder = tmp_path_factory.mktemp("bundle") / "tokenizers"
    tokenizers().save(folder)
    return folder


def texts_as_ids(host: HostText) -> list[np.ndarray]:
    return [np.array(host.encode(text)) for text in TEXTS]


@pytest.mark.parametrize("name", HOSTS)
def test_text_logits_are_those_of_the_host(name: str, bundle: Path, tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", name)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "host").eval()
    assert stock.config.vocab_size > length
    import_hf(tmp_path / "host", tmp_path / "model", tokenizers=bundle, languages=["en", "de"])
    model, before = Model.load(tmp_path / "model"), load_core(tmp_path / "host")
    assert model.decoder.config.vocab_size == model.vocabulary.size > length + 500
    for ids in texts_as_ids(HostText.from_folder(tmp_path / "host")):
        ours = own_logits(model.decoder, ids)[:, :length]
        assert torch.equal(ours, own_logits(before, ids)[:, :length])
        with torch.no_grad():
            theirs = stock(torch.from_numpy(ids)[None]).logits[0, :, :length]
        assert (ours - theirs).abs().max() <= 1e-4
    assert torch.equal(model.decoder.embedding[:length], before.embedding[:length])
    assert torch.equal(model.decoder.head_weight[:length], before.head_weight[:length])


@pytest.mark.parametrize("name", ["llama", "qwen2 tied"])
def test_new_rows_are_on_the_scale_of_the_old_ones(name: str, bundle: Path, tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", name)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model", tokenizers=bundle))
    for table in (model.decoder.embedding.detach(), model.decoder.head_weight.detach()):
        old, new = table[:length], table[length:]
        assert new.norm(dim=1).mean() / old.norm(dim=1).mean() == pytest.approx(1, abs=0.05)
        assert new.std(0).mean() / old.std(0).mean() == pytest.approx(1, abs=0.1)
        assert (new.mean(0) - old.mean(0)).norm() < 0.2 * old.mean(0).norm()
        assert torch.pdist(new).min() > 0.3 * torch.pdist(old).median()
    again = import_hf(tmp_path / "host", tmp_path / "again", tokenizers=bundle)
    other = import_hf(tmp_path / "host", tmp_path / "other", tokenizers=bundle, seed=1)
    weights = [(folder / "core/model.safetensors").read_bytes() for folder in (tmp_path / "model", again, other)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3"])
def test_an_imported_host_goes_out_and_comes_back(name: str, bundle: Path, tmp_path: Path) -> None:
    write_host(tmp_path / "host", name)
    command = ["import", str(tmp_path / "host"), str(tmp_path / "model"), "--tokenizers", str(bundle)]
    assert main([*command, "--languages", "en", "de"]) == 0
    export_hf(tmp_path / "model", tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "back")
    export_hf(tmp_path / "back", tmp_path / "again")
    assert files(tmp_path / "back") == files(tmp_path / "model")
    assert files(tmp_path / "again") == files(tmp_path / "hf")
    model = Model.load(tmp_path / "back")
    _check_stock(model, tmp_path / "hf")
    result = model.transcribe(speech(0.4), lang="en")
    assert result.finish_reason in ("eos", "length")


def _check_stock(model: Model, folder: Path) -> None:
    """Stock classes read an export of a host's tokenizer as we do."""
    text, size = model.tokenizers.text, model.tokenizers.text.size
    stock = transformers.AutoTokenizer.from_pretrained(folder)
    for one in (*TEXTS, *USER_TEXTS, "<|im_end|></s><think> <s>"):
        ids = stock(one, split_special_tokens=True).input_ids
        assert ids == text.encode(one), one
        assert all(token < size for token in ids)
        assert not {text.pieces()[token] for token in ids} & {"<|im_end|>", "</s>", "<s>", "<think>"}
    names = token_names(model.vocabulary)[size:]
    assert [stock(name, add_special_tokens=False).input_ids for name in names] == [
        [size + index] for index in range(len(names))
    ]
    assert len(stock) == model.vocabulary.size
    unit = int(model.vocabulary.to_ids("units", 3))
    typed = ("<mt>", "<lang:en>", "<lang:de>", "<text>", "</text>", model.vocabulary.names()[unit])
    prompt = "".join([*typed[:4], TEXTS[0], *typed[4:]])
    control = [model.vocabulary.id_of(one) for one in typed]
    expected = [*control[:4], *text.encode(TEXTS[0]), *control[4:]]
    assert stock(prompt, add_special_tokens=False).input_ids == expected
    decoder = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = decoder(torch.tensor(expected)[None]).logits[0]
    assert (logits - own_logits(model.decoder, np.array(expected))).abs().max() <= 1e-4


def test_half_precision_hosts_come_in_exactly(tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", "qwen3", dtype=torch.bfloat16)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "host", dtype=torch.bfloat16)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model"))
    assert torch.equal(model.decoder.embedding[:length], stock.model.embed_tokens.weight[:length].float())


@torch.no_grad()
def test_expansion_keeps_text_logits_in_half_precision(tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", "llama 3.1", dtype=torch.bfloat16)
    before = load_core(tmp_path / "host", dtype=torch.bfloat16)
    after = expand_vocabulary(before, 1000, length, generator=torch.Generator().manual_seed(0))
    for ids in texts_as_ids(HostText.from_folder(tmp_path / "host")):
        assert torch.equal(own_logits(after, ids)[:, :length], own_logits(before, ids)[:, :length])


REFUSED: dict[str, dict[str, Any]] = {
    "model_type is 'gemma'": {"model_type": "gemma"},
    "rope scaling 'yarn'": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "hidden_act 'gelu'": {"hidden_act": "gelu"},
    "rope scaling is .*above 0": {"rope_scaling": {"rope_type": "linear", "factor": 0}},
    "rotary positions are 'linear'": {"rope_scaling": "linear"},
    "one base and scaling for all layers": {
        "rope_scaling": None,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}},
    },
    "rope_theta is None": {"rope_theta": None},
    "rope_theta is 'abc'": {"rope_parameters": {"rope_type": "default", "rope_theta": "abc"}},
    "rope_theta is -1": {"rope_parameters": {"rope_type": "default", "rope_theta": -1}},
    r"rope scaling \['linear'\]": {"rope_scaling": {"rope_type": ["linear"], "factor": 2.0}},
    "rms_norm_eps is nan": {"rms_norm_eps": float("nan")},
    "max_position_embeddings is 0": {"max_position_embeddings": 0},
    "tie_word_embeddings is 'false'": {"tie_word_embeddings": "false"},
    "attention_bias is 'false'": {"attention_bias": "false"},
    "sliding_window is 'abc'": {"model_type": "mistral", "sliding_window": "abc"},
    "sliding_window is True": {"model_type": "mistral", "sliding_window": True},
    "max_position_embeddings is None": {"max_position_embeddings": None},
    "rms_norm_eps is None": {"rms_norm_eps": None},
    "head_dim is '16'": {"head_dim": "16"},
    "quantized": {"quantization_config": {"bits": 4}},
    "hidden_size is None": {"hidden_size": None},
    "partial_rotary_factor 0.5": {"partial_rotary_factor": 0.5},
    "config.json means": {"intermediate_size": 96},
    "is missing": {"num_hidden_layers": 3},
    "unknown weight": {"num_hidden_layers": 1},
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("host") / "host"
    write_host(folder, "llama")
    return folder


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_computed_is_refused(message: str, host: Path, tmp_path: Path) -> None:
    for file in host.iterdir():
        (tmp_path / file.name).symlink_to(file)
    value = json.loads((host / "config.json").read_text())
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({**value, **REFUSED[message]}))
    with pytest.raises(InputError, match=message):
        import_hf(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors.index.json", "{}"), ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": ["a"]}'),
        ("model.safetensors.index.json", '{"weight_map": {"model.norm.weight": 7}}'),
        ("config.json", "[]"), ("tokenizer_config.json", "[1]"), ("tokenizer.json", b"\xff\xfe\x00"),
    ],
)  # fmt: skip
def test_files_that_hold_something_else_are_named(file: str, content: str | bytes, host: Path, tmp_path: Path) -> None:
    for one in host.iterdir():
        (tmp_path / one.name).symlink_to(one)
    (tmp_path / file).unlink(missing_ok=True)
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=file.replace(".", r"\.")):
        import_hf(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "window"),
    [
        ({"use_sliding_window": True}, (None, 256)),  # from layer 28 on, of two
        ({"use_sliding_window": True, "max_window_layers": 0}, (4096, 256)),
        ({"use_sliding_window": True, "max_window_layers": 0, "sliding_window": 64}, (64, 256)),
        ({"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 64}, (None, 64)),
        ({"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 64}, (None, 256)),
        ({"use_sliding_window": True, "sliding_window": 64, "layer_types": ["full_attention"] * 2}, (None, 256)),
        ({"use_sliding_window": False, "max_window_layers": 0, "sliding_window": 64}, (None, 256)),
    ],
)
def test_windows_are_those_of_the_stock_class(
    given: dict[str, Any], window: tuple[int | None, int], tmp_path: Path
) -> None:
    value = {**BASE, "model_type": "qwen2", "vocab_size": 100, **given}
    found = from_hf_config(value, tmp_path)
    assert (found.window, found.max_positions) == window
    stock = transformers.Qwen2Config(**value)
    slides = [one == "sliding_attention" for one in stock.layer_types]
    assert all(slides) == (found.window is not None)
    if all(slides):
        assert stock.sliding_window == found.window


def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    write_host(tmp_path / "host", "llama")
    index = json.loads((tmp_path / "host/model.safetensors.index.json").read_text())
    part = tmp_path / "host" / next(iter(index["weight_map"].values()))
    data = part.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="not readable"):
        import_hf(tmp_path / "host", tmp_path / "out")
    part.unlink()
    with pytest.raises(InputError, match="missing"):
        import_hf(tmp_path / "host", tmp_path / "out")
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    (tmp_path / "host/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="leaves the folder"):
        import_hf(tmp_path / "host", tmp_path / "out")
    (tmp_path / "host/tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        import_hf(tmp_path / "host", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def reshard(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights of a folder in several files: what is new goes into a file of its own."""
    from safetensors.torch import load_file, save_file

    index = json.loads((folder / "model.safetensors.index.json").read_text())
    state: dict[str, torch.Tensor] = {}
    for name in set(index["weight_map"].values()):
        state.update(load_file(folder / name))
    before = set(state)
    change(state)
    for name in {*index["weight_map"].values()}:
        part = {key: state[key].contiguous() for key in before & set(state) if index["weight_map"][key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    fresh = {key: state[key].contiguous() for key in set(state) - before}
    save_file(fresh, folder / "model-extra.safetensors", metadata={"format": "pt"})
    index["weight_map"].update(dict.fromkeys(fresh, "model-extra.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


TIED = "llama with every head its own and tied"


@pytest.mark.parametrize("kind", ["another", "the embedding once more"])
@torch.no_grad()
def test_a_head_beside_a_claim_to_be_tied_is_read_as_stock_reads_it(kind: str, tmp_path: Path) -> None:
    length = write_host(tmp_path / "host", TIED)
    another = kind == "another"

    def add(state: dict[str, torch.Tensor]) -> None:
        table = state["model.embed_tokens.weight"]
        state["lm_head.weight"] = torch.randn(table.shape) if another else table.clone()

    reshard(tmp_path / "host", add)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "host").eval()
    decoder = load_core(tmp_path / "host")
    assert decoder.config.tied is not another
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model"))
    export_hf(tmp_path / "model", tmp_path / "hf")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    for ids in texts_as_ids(HostText.from_folder(tmp_path / "host")):
        theirs = stock(torch.from_numpy(ids)[None]).logits[0]
        assert (own_logits(decoder, ids) - theirs).abs().max() <= 1e-4
        assert (own_logits(model.decoder, ids)[:, :length] - theirs[:, :length]).abs().max() <= 1e-4
        assert (back(torch.from_numpy(ids)[None]).logits[0, :, :length] - theirs[:, :length]).abs().max() <= 1e-4


@torch.no_grad()
def test_a_tied_decoder_takes_no_head_of_its_own(tmp_path: Path) -> None:
    write_host(tmp_path / "host", TIED)
    decoder, state = load_core(tmp_path / "host"), read_state(tmp_path / "host")
    load_hf_state(decoder, {**state, "lm_head.weight": state["model.embed_tokens.weight"]})
    with pytest.raises(InputError, match=r"lm_head\.weight.*tie_word_embeddings to false"):
        load_hf_state(decoder, {**state, "lm_head.weight": state["model.embed_tokens.weight"] + 1})


def test_of_old_checkpoints_the_rotary_buffers_alone_are_left_out(tmp_path: Path) -> None:
    write_host(tmp_path / "host", "llama")

    def add(state: dict[str, torch.Tensor]) -> None:
        state["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(6)

    before = load_core(tmp_path / "host")
    reshard(tmp_path / "host", add)
    assert torch.equal(load_core(tmp_path / "host").frequencies, before.frequencies)
    reshard(tmp_path / "host", lambda state: state.update({"audio.rotary_emb.inv_freq": torch.ones(6)}))
    with pytest.raises(InputError, match=r"unknown weight 'audio\.rotary_emb\.inv_freq'"):
        load_core(tmp_path / "host")


def test_weights_that_need_scales_or_come_twice_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    write_host(tmp_path / "host", "llama")
    name = "model.layers.0.mlp.down_proj.weight"

    def narrow(state: dict[str, torch.Tensor]) -> None:
        state[name] = state[name].to(torch.float8_e4m3fn)

    reshard(tmp_path / "host", narrow)
    with pytest.raises(InputError, match="float8_e4m3fn; give the folder of the unquantized model"):
        load_core(tmp_path / "host")
    index = json.loads((tmp_path / "host/model.safetensors.index.json").read_text())
    other = next(one for key, one in index["weight_map"].items() if one != index["weight_map"][name])
    save_file({name: torch.zeros(48, 80)}, tmp_path / "host" / other)
    with pytest.raises(InputError, match=f"{name}' is in another file too"):
        load_core(tmp_path / "host")


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "llama 3.1", "llama with linear rope and biases", "qwen3"])
def test_rotary_frequencies_are_the_hosts_in_every_precision(name: str, tmp_path: Path) -> None:
    write_host(tmp_path / "host", name)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "host", dtype=torch.bfloat16)
    wanted = stock.model.rotary_emb.inv_freq
    assert wanted.dtype == torch.float32
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        found = load_core(tmp_path / "host", dtype=dtype)
        assert found.embedding.dtype == dtype and torch.equal(found.frequencies, wanted)
    before = load_core(tmp_path / "host", dtype=torch.bfloat16)
    after = expand_vocabulary(before, 1000, 300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(after.frequencies, wanted)
    model = Model.load(import_hf(tmp_path / "host", tmp_path / "model"), dtype=torch.bfloat16)
    assert torch.equal(model.decoder.frequencies, wanted)
