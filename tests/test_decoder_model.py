"""The decoder against transformers' Llama, Mistral, Qwen2 and Qwen3 with the same random weights: logits, gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.huggingface.weights import load_core, save_core, to_hf_state
from unitok_tokenizers.errors import InputError

COMMON: dict[str, Any] = {
    "vocab_size": 67, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-3": ("Llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", {"tie_word_embeddings": False, "rope_parameters": LINEAR}),
    "llama-bias": ("Llama", {"attention_bias": True, "tie_word_embeddings": False}),
    "mistral": ("Mistral", {"head_dim": 20, "sliding_window": None, "tie_word_embeddings": False}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3-untied": ("Qwen3", {"head_dim": 24, "tie_word_embeddings": False}),
    "mistral-window": ("Mistral", {"head_dim": 20, "sliding_window": 5, "tie_word_embeddings": False}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
    "qwen3-window": ("Qwen3", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0}),
}


def reference(name: str) -> Any:
    import transformers

    family, options = FAMILIES[name]
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**COMMON, **options)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():  # biases and norms start at zero and one: make them count
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("name", list(FAMILIES))
def test_logits_and_gradients_equal_transformers(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    theirs.save_pretrained(tmp_path)
    ours = load_core(tmp_path)
    documents = [torch.randint(0, 67, (length,)) for length in (7, 1, 12)]
    packed = pack_documents(documents)
    hidden = ours(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
    logits = ours.logits(hidden)
    wanted = torch.cat([theirs(document[None]).logits[0] for document in documents])
    torch.testing.assert_close(logits, wanted, atol=1e-4, rtol=1e-4)
    weight = torch.randn_like(logits)
    (logits * weight).sum().backward()
    (wanted * weight).sum().backward()
    grads = dict(theirs.named_parameters())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.data = parameter.grad.clone() if parameter.grad is not None else torch.zeros_like(parameter)
    for key, value in to_hf_state(ours).items():
        other = grads.get(key)
        if other is not None and other.grad is not None:
            torch.testing.assert_close(value, other.grad, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=2),
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=1, attention_bias=True, tied=False),
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=2, kv_heads=2, qk_norm=True, head_size=20),
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=2, window=4),
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=1, attention_bias=True, window=4),
        DecoderConfig(vocab_size=50, width=32, layers=2, heads=2, kv_heads=2, qk_norm=True, window=4),
    ],
    ids=["llama", "qwen2", "qwen3", "mistral-window", "qwen2-window", "qwen3-window"],
)
def test_core_opens_in_stock_transformers_with_equal_logits(config: DecoderConfig, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    decoder = Decoder(config, generator=torch.Generator().manual_seed(0))
    decoder.embedding.data.mul_(10)
    save_core(decoder, tmp_path / "core", bos=1, eos=2, pad=3)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "core")
    ids = torch.randint(0, 50, (1, 11))
    packed = pack_documents([ids[0]])
    ours = decoder.logits(decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen))
    torch.testing.assert_close(ours, stock(ids).logits[0], atol=1e-4, rtol=1e-4)
    again = load_core(tmp_path / "core")
    save_core(again, tmp_path / "again", bos=1, eos=2, pad=3)
    for file in sorted((tmp_path / "core").iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_vectors_stand_in_for_embedding_rows() -> None:
    decoder = Decoder(DecoderConfig(vocab_size=20, width=16, layers=1, heads=2, kv_heads=1))
    packed = pack_documents([[1, 2, 3, 4]])
    arguments = (packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
    rows = decoder.embedding.detach()[[7, 8]]
    with_vectors = decoder(*arguments, vectors=rows, vector_index=torch.tensor([1, 2]))
    replaced = pack_documents([[1, 7, 8, 4]])
    torch.testing.assert_close(with_vectors, decoder(replaced.ids, *arguments[1:]))


def test_the_hook_after_attention_changes_nothing_when_it_returns_its_input() -> None:
    decoder = Decoder(DecoderConfig(vocab_size=20, width=16, layers=2, heads=2, kv_heads=1))
    packed = pack_documents([[1, 2, 3, 4]])
    arguments = (packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
    before = decoder(*arguments)
    seen: list[int] = []

    def hook(layer: int, x: torch.Tensor) -> torch.Tensor:
        seen.append(layer)
        return x

    for block in decoder.blocks:
        block.after_hook = hook
    torch.testing.assert_close(decoder(*arguments), before)
    assert seen == [0, 1]


def test_unknown_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    decoder = Decoder(DecoderConfig(vocab_size=20, width=16, layers=1, heads=2, kv_heads=1))
    save_core(decoder, tmp_path, bos=1, eos=2, pad=3)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    for change, message in (
        ({**state, "model.extra": torch.zeros(1)}, "unknown weight 'model.extra'"),
        ({k: v for k, v in state.items() if k != "model.norm.weight"}, "'model.norm.weight' is missing"),
        ({**state, "model.norm.weight": torch.zeros(3)}, "config.json means"),
    ):
        save_file(change, file)
        with pytest.raises(InputError, match=message):
            load_core(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("heads", 3), ("width", 30), ("head_size", 7)])
def test_impossible_shapes_are_refused(key: str, value: int) -> None:
    sizes: dict[str, Any] = {"width": 32, "heads": 4, "kv_heads": 2, key: value}
    with pytest.raises(InputError, match=key.split("_")[0]):
        DecoderConfig(vocab_size=10, **sizes)
