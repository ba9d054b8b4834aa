"""Products with updated matrices: equal to W + (α / r) B A in value and gradient, without ever making that matrix."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support.launching import ranks
from unitok.decoder.lora import (
    TARGETS,
    LoraConfig,
    UpdatedLinear,
    add_lora,
    lora_tensors,
    merge_lora,
    updates,
    without_lora,
)
from unitok.decoder.model import (
    CompiledBlocks,
    Decoder,
    DecoderConfig,
    FeedForward,
    PackedAttend,
    before_attention,
    finish_block,
    pack_documents,
)
from unitok.decoder.moe import MixtureConfig, mixture_factory
from unitok.decoder.products import Updated, gated_linear, linear, normed_linear, rms_norm

SIZES = DecoderConfig(vocab_size=40, width=48, layers=2, heads=4, kv_heads=2)
DOCUMENTS = pack_documents([[1, 2, 3, 4, 5], [6, 7, 8]])
GIVEN = torch.tensor([2, 1], dtype=torch.int32)
SOME, ALL = (LoraConfig(rank=4, alpha=8.0, targets=targets) for targets in (("q", "v", "up"), TARGETS))


def made(config: DecoderConfig = SIZES, lora: LoraConfig | None = None, *, experts: bool = False) -> Decoder:
    factory: Callable[[DecoderConfig], nn.Module] = mixture_factory(MixtureConfig()) if experts else FeedForward
    model = Decoder(config, generator=torch.Generator().manual_seed(0), feed_forward=factory)
    if lora is not None:
        add_lora(model, lora)
    return model


def moved(model: nn.Module) -> None:
    """Give every update a value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in lora_tensors(model).values():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))


def learned(model: Decoder) -> tuple[Tensor, dict[str, Tensor]]:
    """(hidden states, gradients by name) of one forward and backward pass; that of the input vectors is "input"."""
    x = model.embed(DOCUMENTS.ids).detach().mul(20).requires_grad_()
    for value in model.parameters():
        value.grad = None
    attend = PackedAttend(DOCUMENTS.cu_seqlens, DOCUMENTS.max_seqlen, model.prefix(DOCUMENTS.cu_seqlens, GIVEN, 8))
    hidden = model.run(x, DOCUMENTS.positions, attend)
    toward = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(2))
    (hidden * toward).sum().backward()
    assert x.grad is not None
    slopes = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return hidden.detach(), {"input": x.grad, **slopes}


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], limit: float = 1e-5) -> None:
    """Equal to within a share of each tensor's norm."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.norm() > 0 and (found[name] - value).norm() <= limit * value.norm(), name


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk_norm": {"config": DecoderConfig(**{**SIZES.__dict__, "qk_norm": True})},
    "bias": {"config": DecoderConfig(**{**SIZES.__dict__, "attention_bias": True})},
    "prefix": {"config": DecoderConfig(**{**SIZES.__dict__, "prefix_lm": True})},
    "experts": {"experts": True},
}


@pytest.mark.parametrize("lora", [SOME, ALL], ids=["some", "all"])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_values_they_change_no_bit_and_no_gradient(shape: str, lora: LoraConfig) -> None:
    hidden, slopes = learned(made(**SHAPES[shape]))
    branched, found = learned(made(**SHAPES[shape], lora=lora))
    assert torch.equal(branched, hidden)
    same({"input": found["input"]}, {"input": slopes["input"]})


@pytest.mark.parametrize("full", [False, True], ids=["updates", "all weights"])
@pytest.mark.parametrize("lora", [SOME, ALL], ids=["some", "all"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_sum(
    shape: str, lora: LoraConfig, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made(**SHAPES[shape], lora=lora)
    moved(model)
    for value in model.parameters():
        value.requires_grad_(value.requires_grad or full)
    hidden, found = learned(model)
    monkeypatch.setattr("unitok.decoder.model.updated", getattr)  # W + (α / r) B A, built and differentiated
    summed, wanted = learned(model)
    torch.testing.assert_close(hidden, summed, rtol=1e-4, atol=1e-5)
    same(found, wanted)
    assert full == ("blocks.0.norm" in found)


class Made(TorchDispatchMode):
    """Records the shapes of what operators make, views of what was there left out."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {one.data_ptr() for one in args if isinstance(one, Tensor)}
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, Tensor) and one.data_ptr() not in given:
                self.shapes |= {tuple(one.shape), tuple(reversed(one.shape))}
        return out


def test_no_tensor_of_a_frozen_matrix_s_shape_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(lora=ALL)
    moved(model)
    matrices = {tuple(value.shape) for name, value in model.named_parameters() if name.endswith(".original")}
    assert len(matrices) == 4

    def seen() -> set[tuple[int, ...]]:
        with Made() as record:
            learned(model)
        return record.shapes & matrices

    assert not seen()
    monkeypatch.setattr("unitok.decoder.model.updated", getattr)
    assert seen() == matrices, "the record sees what building the sum makes"


def test_blocks_that_are_computed_again_learn_the_same() -> None:
    model = made(lora=ALL)
    moved(model)
    hidden, wanted = learned(model)
    for keep in (False, True):
        model.recompute_blocks(2, keep_products=keep)
        again, found = learned(model)
        assert torch.equal(again, hidden) and all(torch.equal(found[name], wanted[name]) for name in wanted)


# torch warns of what its own compiler does to objects of autograd.
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_are_two_graphs_for_all_layers() -> None:
    model = made(DecoderConfig(**{**SIZES.__dict__, "layers": 4}), ALL)
    moved(model)
    hidden, wanted = learned(model)
    graphs: list[object] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(module)
        return module.forward

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function, dynamic=False, fullgraph=True, backend=backend)

    model.pieces = CompiledBlocks(compiled(before_attention), compiled(finish_block))
    again, found = learned(model)
    torch.testing.assert_close(again, hidden)
    same(found, wanted)
    assert len(graphs) == 2


@pytest.mark.parametrize("automatic", [True, False], ids=["autocast", "bf16 weights"])
def test_half_precision_keeps_float32_factors_and_their_gradients(automatic: bool) -> None:
    model = made(lora=ALL)
    moved(model)
    _, wanted = learned(model)
    if not automatic:  # the weights are rounded, the factors are not
        factors = {name: value.clone() for name, value in lora_tensors(model).items()}
        model.to(torch.bfloat16)
        for update in updates(model).values():
            update.float()
        for name, value in lora_tensors(model).items():
            value.copy_(factors[name])
    with torch.autocast("cpu", torch.bfloat16) if automatic else nullcontext():
        hidden, found = learned(model)
    assert hidden.dtype == (torch.float32 if automatic else torch.bfloat16)
    assert all(value.dtype == torch.float32 for name, value in found.items() if name != "input")
    for name in wanted:
        assert (found[name].float() - wanted[name]).norm() < 0.1 * wanted[name].norm(), name


def test_each_product_by_itself() -> None:
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, requires_grad=True)

    x, joined, norm, bias, weight, a, b = (
        drawn(5, 6), drawn(5, 12), drawn(6), drawn(7), drawn(7, 6), drawn(2, 6), drawn(3, 2)
    )  # fmt: skip
    matrix = Updated(weight, (a,), (b,), (2,), 0.5)  # rows 2 to 5 alone
    leaves = (x, joined, norm, bias, weight, a, b)
    summed = weight + 0.5 * functional.pad(b @ a, (0, 0, 2, 2))
    gate, up = joined.chunk(2, -1)
    pairs = (
        (linear(x, matrix, bias), functional.linear(x, summed, bias)),
        (normed_linear(x, norm, 1e-6, matrix, bias), functional.linear(rms_norm(x, norm, 1e-6), summed, bias)),
        (gated_linear(joined, matrix), functional.linear(functional.silu(gate) * up, summed)),
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted)
        toward = torch.randn(wanted.shape, generator=generator)
        for one, other in zip(
            torch.autograd.grad(found, leaves, toward, allow_unused=True),
            torch.autograd.grad(wanted, leaves, toward, allow_unused=True, retain_graph=True),
        ):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


class Attention(nn.Module):
    """Linear layers as encoders of transformers call them."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(6, 6), nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, 6) → (B, T, 4)."""
        return self.v_proj(functional.gelu(self.q_proj(x)))  # type: ignore[no-any-return]


def test_linear_layers_take_the_branch_and_their_attribute_is_the_sum() -> None:
    torch.manual_seed(0)
    layer, x = Attention(), torch.randn(2, 3, 6)
    before = layer(x)
    add_lora(layer, LoraConfig(rank=2))
    assert torch.equal(layer(x), before) and isinstance(layer.q_proj, UpdatedLinear)
    moved(layer)
    out = layer(x)
    read = functional.linear(
        functional.gelu(functional.linear(x, layer.q_proj.weight, layer.q_proj.bias)), layer.v_proj.weight
    )
    torch.testing.assert_close(out, read)
    assert layer.q_proj.weight.requires_grad, "who reads the attribute in training learns too"
    with without_lora(layer):
        assert torch.equal(layer(x), before)
    assert layer(x[0, 0]).shape == (4,) and layer(x[:0]).shape == (0, 3, 4)
    merged = merge_lora(layer, LoraConfig(rank=2))
    assert type(layer.q_proj) is nn.Linear
    torch.testing.assert_close(layer(x), out)
    merged.undo(layer)
    assert torch.equal(layer(x), out)


SCRIPT = """
import sys

import torch

from tests.test_decoder_products import ALL, DOCUMENTS, made, moved
from unitok_tokenizers.compute import resolve
from unitok_training.trainer.distributed import world_from_environment
from unitok_training.trainer.fsdp import ShardedMasterWeights, shard_decoder


def loss(model):
    hidden = model(DOCUMENTS.ids, DOCUMENTS.positions, DOCUMENTS.cu_seqlens, DOCUMENTS.max_seqlen)
    return model.logits(hidden).square().sum()


torch.set_num_threads(1)
with world_from_environment("cpu") as world:
    model, whole = made(lora=ALL), made(lora=ALL)
    moved(model)
    moved(whole)
    loss(model).backward()
    split = shard_decoder(whole, resolve(world.device, "fp32"), world)
    masters = ShardedMasterWeights(split, whole, world)
    (loss(split) / world.size).backward()
    masters.gradients()
    slopes = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert masters.named.keys() == slopes.keys() and len(slopes) == 28
    for name, value in masters.named.items():
        torch.testing.assert_close(value.grad, masters.part(name, slopes, name), rtol=1e-4, atol=1e-5)
"""


@pytest.mark.slow
def test_two_processes_with_split_weights_learn_what_one_learns(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = ranks([str(script)], 2)
    assert done.returncode == 0, done.stdout + done.stderr
