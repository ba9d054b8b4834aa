"""Low-rank updates: nothing at the start, what peft computes afterwards, merged and taken apart again bit for bit.

Run alone with `pytest tests/test_decoder_lora.py`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unitok.decoder.fast_step import Stepper, fingerprint
from unitok.decoder.lora import (
    LoraConfig,
    add_lora,
    load_lora,
    lora_config,
    lora_tensors,
    merge_lora,
    updates,
    without_lora,
)
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.huggingface.weights import save_core
from unitok_tokenizers.encoders.conformer import ConformerEncoder, TrunkConfig
from unitok_tokenizers.errors import InputError

SIZES = DecoderConfig(vocab_size=40, width=32, layers=2, heads=4, kv_heads=2)
ALL = LoraConfig(rank=4, alpha=8.0, targets=("q", "k", "v", "out", "gate", "up", "down"))
DOCUMENTS = pack_documents([[1, 2, 3, 4, 5], [6, 7, 8]])


def decoder() -> Decoder:
    return Decoder(SIZES, generator=torch.Generator().manual_seed(0)).eval()


def logits(model: Decoder) -> Tensor:
    hidden = model(DOCUMENTS.ids, DOCUMENTS.positions, DOCUMENTS.cu_seqlens, DOCUMENTS.max_seqlen)
    return model.logits(hidden).detach()


def moved(model: Decoder) -> None:
    """Give every update a value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in lora_tensors(model).values():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))


@pytest.mark.parametrize("config", [LoraConfig(), ALL])
def test_at_the_start_and_switched_off_the_logits_are_bit_equal(config: LoraConfig) -> None:
    model = decoder()
    before = logits(model)
    add_lora(model, config)
    assert torch.equal(logits(model), before)
    moved(model)
    assert not torch.allclose(logits(model), before, atol=1e-4)
    with without_lora(model):
        assert torch.equal(logits(model), before)
    assert not torch.allclose(logits(model), before, atol=1e-4)


def test_trainable_weights_are_the_factors_alone_and_as_many_as_the_formula_says() -> None:
    model = decoder()
    add_lora(model, LoraConfig(rank=3, targets=("q", "v")))
    count = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert count == SIZES.layers * 3 * ((32 + 32) + (32 + 16))
    moved(model)
    logits_of = model.logits(model(DOCUMENTS.ids, DOCUMENTS.positions, DOCUMENTS.cu_seqlens, DOCUMENTS.max_seqlen))
    logits_of.pow(2).sum().backward()
    for name, value in model.named_parameters():
        assert (value.grad is not None and bool(value.grad.any())) == (".a." in name or ".b." in name), name


def test_merged_it_is_the_same_and_taken_apart_it_is_what_it_was() -> None:
    model = decoder()
    first = {name: value.clone() for name, value in model.state_dict().items()}
    add_lora(model, ALL)
    moved(model)
    before, factors = logits(model), {name: value.clone() for name, value in lora_tensors(model).items()}
    merged = merge_lora(model, ALL)
    assert not updates(model) and model.state_dict().keys() == first.keys()
    torch.testing.assert_close(logits(model), before, rtol=1e-4, atol=1e-6)  # another order of the same sums
    merged.undo(model)
    assert torch.equal(logits(model), before)
    assert all(torch.equal(value, factors[name]) for name, value in lora_tensors(model).items())
    with without_lora(model):
        assert torch.equal(logits(model), logits(decoder()))


def test_files_hold_the_factors_and_refuse_others() -> None:
    model, other = decoder(), decoder()
    add_lora(model, LoraConfig(rank=4))
    moved(model)
    found = lora_config(model)
    assert found == LoraConfig(rank=4) and lora_config(decoder()) is None
    add_lora(other, found)
    load_lora(other, lora_tensors(model))
    assert torch.equal(logits(other), logits(model))
    wrong = decoder()
    add_lora(wrong, LoraConfig(rank=2))
    with pytest.raises(InputError, match="another model or rank"):
        load_lora(wrong, lora_tensors(model))


def test_the_quick_step_reads_updated_weights() -> None:
    model = decoder()
    add_lora(model, ALL)
    before = fingerprint(model)
    moved(model)
    assert fingerprint(model) != before  # so that a stepper made earlier is made again
    stepper = Stepper(model)
    assert stepper.fits(model)
    with without_lora(model):
        assert not stepper.fits(model), "its weights have the updates in them"
    assert stepper.fits(model)
    lora_tensors(model)["blocks.0.qkv.b.q"].mul_(1)
    assert not stepper.fits(model)
    from unitok.generation.generate import generate

    prompts = [DOCUMENTS.ids[:5].numpy()]
    general, quick = (
        generate(model, prompts, max_new_tokens=6, stepper=stepper)[0].ids for stepper in (None, Stepper(model))
    )
    merge_lora(model, ALL)
    assert general.tolist() == quick.tolist() == generate(model, prompts, max_new_tokens=6)[0].ids.tolist()


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft asks transformers for it
@pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed")
def test_updates_are_those_of_peft(tmp_path: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    model = decoder()
    save_core(model, tmp_path, bos=1, eos=2, pad=0)
    names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj", "gate": "gate_proj", "up": "up_proj"}
    names["down"] = "down_proj"
    host = AutoModelForCausalLM.from_pretrained(tmp_path)
    wanted = peft.LoraConfig(r=4, lora_alpha=8, target_modules=list(names.values()), bias="none")
    host = peft.get_peft_model(host, wanted).eval()
    add_lora(model, ALL)
    moved(model)
    state = dict(host.named_parameters())
    with torch.no_grad():
        for path, update in updates(model).items():
            layer = path.split(".")[1]
            for name in update.a:
                part = "self_attn" if name in ("q", "k", "v", "out") else "mlp"
                key = f"base_model.model.model.layers.{layer}.{part}.{names[name]}"
                state[f"{key}.lora_A.default.weight"].copy_(update.a[name])
                state[f"{key}.lora_B.default.weight"].copy_(update.b[name])
        ids = DOCUMENTS.ids[:5][None]
        torch.testing.assert_close(logits(model)[:5], host(ids).logits[0], atol=1e-5, rtol=1e-5)
    ours = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert ours == sum(value.numel() for value in host.parameters() if value.requires_grad)


def test_an_encoders_attention_takes_updates_too() -> None:
    torch.manual_seed(0)
    encoder = ConformerEncoder(TrunkConfig(width=16, layers=2, heads=2, inner=24)).eval()
    samples = [torch.randn(4000).mul(0.1).numpy()]
    before = encoder.encode(samples).hidden
    add_lora(encoder, LoraConfig(rank=2))
    assert torch.equal(encoder.encode(samples).hidden, before) and len(updates(encoder)) == 4
    encoder.encode(samples).hidden.pow(2).sum().backward()
    trained = [name for name, value in encoder.named_parameters() if value.requires_grad]
    assert len(trained) == 8 and all(".a." in name or ".b." in name for name in trained)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"lora\.rank"):
        LoraConfig(rank=0)
    with pytest.raises(InputError, match="choose from q, k"):
        LoraConfig(targets=("queries",))
    with pytest.raises(InputError, match="no such matrices"):
        add_lora(torch.nn.Linear(2, 2), LoraConfig())
