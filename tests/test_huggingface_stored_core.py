"""Weights of `core/` that stay in their file: the same as `load_core` reads and `save_core` writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unitok.decoder.model import Decoder, DecoderConfig
from unitok.huggingface.stored_core import open_core, save_stored_core
from unitok.huggingface.weights import expand_vocabulary, load_core, save_core
from unitok_tokenizers.errors import InputError
from unitok_training.first_weights import grown_values

SHAPES = {
    "llama": DecoderConfig(vocab_size=50, width=16, layers=2, heads=4, kv_heads=2),
    "qwen2": DecoderConfig(vocab_size=51, width=16, layers=2, heads=2, kv_heads=1, attention_bias=True, tied=False),
    "qwen3": DecoderConfig(vocab_size=52, width=16, layers=1, heads=2, kv_heads=2, head_size=4, qk_norm=True),
    "both": DecoderConfig(vocab_size=53, width=16, layers=1, heads=2, kv_heads=1, qk_norm=True, attention_bias=True),
}
ENDS = {"bos": 1, "eos": 2, "pad": 0}


def decoder(config: DecoderConfig) -> Decoder:
    made = Decoder(config)
    with torch.no_grad():
        for value in made.parameters():
            value.normal_()
    return made.eval()


@pytest.mark.parametrize("kind", SHAPES)
def test_a_core_is_opened_and_written_as_it_is_loaded_and_saved(kind: str, tmp_path: Path) -> None:
    whole = decoder(SHAPES[kind])
    save_core(whole, tmp_path / "core", **ENDS)  # type: ignore[arg-type]
    opened = open_core(tmp_path / "core")
    assert opened is not None
    config, stored = opened
    assert config == load_core(tmp_path / "core").config
    assert list(stored) == [name for name, _ in whole.named_parameters()], "in the decoder's own order"
    for name, value in whole.named_parameters():
        assert torch.equal(stored[name].whole(), value) and torch.equal(stored[name][1:3], value[1:3])
    save_stored_core(config, stored, tmp_path / "again", **ENDS)
    for path in (tmp_path / "core").iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("kept", [50, 40])
def test_a_grown_vocabulary_is_that_of_the_whole_decoder(kind: str, kept: int, tmp_path: Path) -> None:
    whole = decoder(SHAPES[kind])
    save_core(whole, tmp_path / "core", **ENDS)  # type: ignore[arg-type]
    opened = open_core(tmp_path / "core")
    assert opened is not None
    wanted = expand_vocabulary(whole, 77, kept, generator=torch.Generator().manual_seed(3))
    found = dict(grown_values(opened[1], wanted.config, kept, 3))
    assert list(found) == [name for name, _ in wanted.named_parameters()]
    assert all(torch.equal(found[name].whole(), value) for name, value in wanted.named_parameters())


def test_what_only_the_whole_decoder_understands_is_left_to_it_and_damage_is_named(tmp_path: Path) -> None:
    config = SHAPES["llama"]
    save_core(decoder(config), tmp_path, **ENDS)  # type: ignore[arg-type]
    file = tmp_path / "model.safetensors"
    plain = load_file(file)
    save_file({**plain, "lm_head.weight": plain["model.embed_tokens.weight"] + 1}, file)
    assert open_core(tmp_path) is None, "a head of its own that the configuration denies"
    bias = "model.layers.0.self_attn.o_proj.bias"
    save_file({**plain, bias: torch.ones(config.width)}, file)
    assert open_core(tmp_path) is None
    save_file({**plain, bias: torch.zeros(config.width)}, file)
    assert open_core(tmp_path) is not None
    for changed, said in (
        ({**plain, "model.norm.weight": torch.ones(3)}, r"'model\.norm\.weight' is of another shape"),
        ({**plain, "more": torch.ones(3)}, "unknown weight 'more'"),
        ({name: value for name, value in plain.items() if "k_proj" not in name}, r"k_proj\.weight' is missing"),
    ):
        save_file(changed, file)
        with pytest.raises(InputError, match=said):
            open_core(tmp_path)
    file.unlink()
    assert open_core(tmp_path) is None
