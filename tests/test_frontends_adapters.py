"""Adapters: one conformance test for all of them, and what each promises beside.

Run alone with `pytest tests/test_frontends_adapters.py`.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unitok.decoder.lora import LoraConfig, add_lora
from unitok.frontends.adapters.base import Adapter, AdapterSizes
from unitok.frontends.adapters.blank_probability import BlankProbabilityAdapter
from unitok.frontends.adapters.frame_averaging import average_runs
from unitok.frontends.adapters.random_downsampling import RandomDownsamplingAdapter
from unitok.frontends.adapters.registry import ADAPTERS, adapter_class, adapter_from_json, make_adapter
from unitok.frontends.adapters.token_mapping import TokenMappingAdapter
from unitok.frontends.base import LatentFrontEnd
from unitok_tokenizers.encoders.filterbank import FilterbankEncoder
from unitok_tokenizers.errors import InputError
from unitok_training.recipes.config import overridden
from unitok_training.recipes.latent import tiny

SIZES = AdapterSizes(frames=12, vectors=16, labels=5)
OPTIONS: dict[str, dict[str, Any]] = {
    "linear": {"stride": 3, "hidden": 24},
    "stacking": {"stride": 3},
    "convolution": {"stride": 2, "kernel": 5, "hidden": 8},
    "fully_connected": {"stride": 2, "hidden": 8},
    "transformer": {"stride": 2, "heads": 2, "layers": 1},
    "cross_attention": {"queries": 3, "heads": 2},
    "blank_removal": {},
    "frame_averaging": {},
    "blank_probability": {"threshold": 0.3},
    "qformer": {"queries": 3, "heads": 2, "width": 8},
    "window_qformer": {"window": 4, "queries": 2, "heads": 2, "width": 8},
    "random_downsampling": {"rate": 3, "hidden": 8},
    "token_mapping": {"expected": True},
    "spelling": {"stride": 4, "hidden": 8, "kernel": 3, "alphabet": "abc"},
    "subwords": {"hidden": 8, "kernel": 3, "subwords": ("a", "b", " ab")},
    "pooling": {"stride": 2},
}
FORMULAS = {
    "linear": lambda t: math.ceil(t / 3),
    "stacking": lambda t: math.ceil(t / 3),
    "convolution": lambda t: math.ceil(t / 2),
    "fully_connected": lambda t: math.ceil(t / 2),
    "transformer": lambda t: math.ceil(t / 2),
    "cross_attention": lambda t: 3,
    "qformer": lambda t: 3,
    "window_qformer": lambda t: math.ceil(t / 4) * 2,
    "random_downsampling": lambda t: math.ceil(t / 3),
    "spelling": lambda t: math.ceil(t / 4),
    "pooling": lambda t: math.ceil(t / 2),
}
LENGTHS = (13, 1, 8, 5)


def made(name: str) -> Adapter:
    assert name in OPTIONS, "a new adapter has its options in OPTIONS, so that it is tested"
    torch.manual_seed(0)
    return make_adapter(name, SIZES, OPTIONS[name]).eval()


def ragged(lengths: tuple[int, ...] = LENGTHS, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Frames and CTC output with rubbish behind the rows' ends."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(len(lengths), max(lengths), SIZES.frames, generator=generator)
    ctc = (2 * torch.randn(len(lengths), max(lengths), SIZES.labels, generator=generator)).log_softmax(-1)
    return frames, torch.tensor(lengths), ctc


def test_every_adapter_is_tested() -> None:
    assert set(OPTIONS) == set(ADAPTERS)
    assert set(FORMULAS) == {name for name in ADAPTERS if not made(name).by_content}


@pytest.mark.parametrize("name", ADAPTERS)
def test_lengths_are_those_of_the_formula(name: str) -> None:
    adapter = made(name)
    frames, lengths, ctc = ragged()
    vectors, sizes = adapter(frames, lengths, ctc)
    assert vectors.shape == (len(LENGTHS), int(sizes.max()), SIZES.vectors) and int(sizes.min()) >= 1
    for length, size in zip(LENGTHS, sizes.tolist()):
        if adapter.by_content:
            assert size <= adapter.length(length)
        else:
            assert size == adapter.length(length) == FORMULAS[name](length)


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_row_is_the_same_alone_as_in_a_batch(name: str) -> None:
    adapter = made(name)
    frames, lengths, ctc = ragged()
    vectors, sizes = adapter(frames, lengths, ctc)
    for row, length in enumerate(LENGTHS):
        alone, size = adapter(frames[row : row + 1, :length], lengths[row : row + 1], ctc[row : row + 1, :length])
        assert int(size) == int(sizes[row])
        torch.testing.assert_close(vectors[row, : int(size)], alone[0], atol=1e-5, rtol=1e-5)
        assert not vectors[row, int(size) :].any()


@pytest.mark.parametrize("name", ADAPTERS)
def test_gradients_reach_everything_that_is_trained(name: str) -> None:
    adapter = made(name).train()
    frames, lengths, ctc = ragged()
    frames.requires_grad_(), ctc.requires_grad_()
    vectors, _ = adapter(frames, lengths, ctc)
    (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for key, parameter in adapter.named_parameters():
        # The bias of keys moves all scores of a query alike: a softmax does not see it.
        assert parameter.grad is not None and (parameter.grad.abs().sum() > 0 or key.endswith("k_proj.bias")), key
    source = ctc if name == "token_mapping" else frames
    assert source.grad is not None
    assert all(source.grad[row, :length].abs().sum() > 0 for row, length in enumerate(LENGTHS))
    assert all(not source.grad[row, length:].any() for row, length in enumerate(LENGTHS))


@pytest.mark.parametrize("name", ADAPTERS)
def test_saved_and_loaded_it_is_the_same(name: str, tmp_path: Path) -> None:
    adapter = made(name)
    embedding = torch.full((9, SIZES.vectors), 0.25)
    adapter.initialize(embedding)
    adapter.match_scale(embedding)
    (tmp_path / "a.json").write_text(json.dumps(adapter.to_json()), encoding="utf-8")
    save_file(adapter.state_dict(), tmp_path / "a.safetensors")
    again = adapter_from_json(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))).eval()
    again.load_state_dict(load_file(tmp_path / "a.safetensors"))
    batch = ragged()
    assert torch.equal(adapter(*batch)[0], again(*batch)[0])


@pytest.mark.parametrize("name", ADAPTERS)
def test_vectors_are_as_loud_as_the_text_where_asked(name: str) -> None:
    adapter = made(name)
    embedding = 0.02 * torch.randn(50, SIZES.vectors, generator=torch.Generator().manual_seed(3))
    adapter.match_scale(embedding)
    vectors, sizes = adapter(*ragged())
    for row, size in enumerate(sizes.tolist()):
        loudness = vectors[row, :size].pow(2).mean(-1).sqrt()
        torch.testing.assert_close(loudness, embedding.pow(2).mean().sqrt().expand(size), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", [name for name in ADAPTERS if made(name).needs_labels])
def test_of_nothing_but_blanks_one_frame_is_kept(name: str) -> None:
    frames, lengths, _ = ragged()
    ctc = torch.full((len(LENGTHS), max(LENGTHS), SIZES.labels), -9.0)
    ctc[..., 0] = 0.0
    assert made(name)(frames, lengths, ctc.log_softmax(-1))[1].tolist() == [1] * len(LENGTHS)
    with pytest.raises(InputError, match="CTC head"):
        make_adapter(name, AdapterSizes(frames=4, vectors=4))


def best(labels: list[int]) -> Tensor:
    """CTC output (1, T, V) whose best path is `labels`."""
    return (5.0 * torch.nn.functional.one_hot(torch.tensor([labels]), SIZES.labels)).log_softmax(-1)


def test_compression_keeps_exactly_what_it_says() -> None:
    labels = [0, 2, 2, 0, 3, 3, 3, 0]
    frames = torch.arange(8.0)[None, :, None].expand(1, 8, SIZES.frames)
    lengths = torch.tensor([8])
    removal = made("blank_removal")
    torch.testing.assert_close(removal(frames, lengths, best(labels))[0], removal.project(frames[:, [1, 2, 4, 5, 6]]))
    means, found, runs = average_runs(frames, torch.tensor([labels]), lengths)
    assert means[0, :, 0].tolist() == [0.0, 1.5, 3.0, 5.0, 7.0] and found.tolist() == [[0, 2, 0, 3, 0]]
    averaging = made("frame_averaging")
    assert averaging(frames, lengths, best(labels))[1].tolist() == [2] and runs.tolist() == [5]
    keeping = make_adapter("frame_averaging", SIZES, {"keep_blanks": True})
    assert keeping(frames, lengths, best(labels))[1].tolist() == [5]


def test_a_higher_threshold_never_drops_more_and_one_keeps_all() -> None:
    frames, lengths, ctc = ragged()
    sizes = []
    for threshold in (0.0, 0.1, 0.3, 0.6, 0.9, 1.0):
        adapter = make_adapter("blank_probability", SIZES, {"threshold": threshold})
        assert isinstance(adapter, BlankProbabilityAdapter)
        sizes.append(adapter(frames, lengths, ctc)[1])
    assert all(bool((a <= b).all()) for a, b in zip(sizes, sizes[1:]))
    assert sizes[-1].tolist() == list(LENGTHS) and sizes[0].tolist() == [1] * len(LENGTHS)


def test_a_convolution_as_wide_as_its_stride_is_stacking() -> None:
    conv, stacked = make_adapter("convolution", SIZES, {"stride": 3}), make_adapter("stacking", SIZES, {"stride": 3})
    with torch.no_grad():
        kernel = conv.down.conv.weight  # type: ignore[union-attr]
        stacked.project.weight.copy_(kernel.transpose(1, 2).flatten(1))  # type: ignore[union-attr,operator]
        stacked.project.bias.copy_(conv.down.conv.bias)  # type: ignore[union-attr,operator]
    torch.testing.assert_close(conv(*ragged())[0], stacked(*ragged())[0], atol=1e-6, rtol=1e-6)


def test_a_window_sees_itself_only() -> None:
    adapter = made("window_qformer")
    frames, lengths, ctc = ragged((12,))
    before, _ = adapter(frames, lengths, ctc)
    frames[0, 5] = -frames[0, 5]  # in the second of three windows
    changed = (adapter(frames, lengths, ctc)[0] - before).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [False, False, True, True, False, False]


def test_random_frames_are_ordered_seeded_and_drawn_anew() -> None:
    adapter = make_adapter("random_downsampling", SIZES, {"rate": 3})
    assert isinstance(adapter, RandomDownsamplingAdapter)
    lengths = torch.tensor(LENGTHS)
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(adapter.train().kept(lengths, 13))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert all(draw.sum(1).tolist() == [5, 1, 3, 2] for draw in draws)
    assert adapter.eval().kept(lengths, 13)[0].nonzero()[:, 0].tolist() == [0, 3, 6, 9, 12]


@pytest.mark.parametrize("expected", [False, True])
@pytest.mark.parametrize("block", [1, 3, 100])
def test_tokens_of_blocks_are_those_of_the_whole(expected: bool, block: int) -> None:
    adapter = make_adapter("token_mapping", SIZES, {"expected": expected})
    assert isinstance(adapter, TokenMappingAdapter)
    silence = torch.full((7, SIZES.labels), -9.0)
    silence[:, 0] = 0.0
    for ctc in (best([0, 2, 2, 0, 2, 3, 3, 1, 0])[0], ragged()[2][0], silence.log_softmax(-1)):
        whole, _ = adapter(torch.zeros(1, len(ctc), SIZES.frames), torch.tensor([len(ctc)]), ctc[None])
        stream = adapter.stream()
        parts = [stream.push(part) for part in ctc.split(block)]
        torch.testing.assert_close(torch.cat([*parts, stream.finish()]), whole[0])


def test_tokens_are_the_texts_own_rows() -> None:
    adapter = make_adapter("token_mapping", SIZES)
    assert isinstance(adapter, TokenMappingAdapter)
    embedding = torch.randn(20, SIZES.vectors)
    adapter.initialize(embedding)
    vectors, _ = adapter(torch.zeros(1, 5, SIZES.frames), torch.tensor([5]), best([1, 1, 0, 3, 4]))
    assert torch.equal(vectors[0], embedding[[0, 2, 3]])


def test_blocks_are_as_loud_as_the_whole() -> None:
    adapter = made("token_mapping")
    assert isinstance(adapter, TokenMappingAdapter)
    adapter.match_scale(3 * torch.randn(9, SIZES.vectors, generator=torch.Generator().manual_seed(3)))
    ctc = best([0, 2, 2, 0, 2, 3, 3, 1, 0])[0]
    whole, _ = adapter(torch.zeros(1, len(ctc), SIZES.frames), torch.tensor([len(ctc)]), ctc[None])
    stream = adapter.stream()
    torch.testing.assert_close(torch.cat([*(stream.push(part) for part in ctc.split(2)), stream.finish()]), whole[0])


@pytest.mark.parametrize("name", ["qformer", "window_qformer", "transformer", "cross_attention"])
def test_low_rank_updates_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    encoder = FilterbankEncoder()
    sizes = replace(SIZES, frames=encoder.width)
    torch.manual_seed(0)
    front = LatentFrontEnd(encoder, make_adapter(name, sizes, OPTIONS[name])).eval()
    add_lora(front.adapter, LoraConfig(rank=2))
    with torch.no_grad():
        for parameter in front.adapter.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    front.save(tmp_path)
    again, (sound,) = LatentFrontEnd.load(tmp_path), (torch.randn(8000).numpy(),)
    torch.testing.assert_close(again.encode([sound])[0], front.encode([sound])[0])


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    for name in ("qformer", "window_qformer", "transformer", "cross_attention"):
        with pytest.raises(InputError, match=r"must be a multiple of twice adapter\.heads \(7\)"):
            make_adapter(name, SIZES, {**OPTIONS[name], "heads": 7})


def test_letters_that_no_text_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"adapter\.alphabet holds 'B'"):
        make_adapter("spelling", SIZES, {"alphabet": "aBc"})
    with pytest.raises(InputError, match=r"adapter\.subwords holds ' The'"):
        make_adapter("subwords", SIZES, {"subwords": (" ", "a", " The")})


def test_another_kind_does_not_inherit_what_it_lacks() -> None:
    for name in ADAPTERS:
        made = overridden(tiny(), [f"adapter.kind={name}"]).adapter
        assert set(made.options()) <= set(adapter_class(name).Config.__dataclass_fields__), name
    both = overridden(tiny(), ["adapter.queries=8", "adapter.kind=qformer"]).adapter
    assert both.options() == {"queries": 8}, "what is said beside the kind stays, wherever it stands"
    assert overridden(tiny(), ["adapter.kind=linear"]).adapter.stride == 2
    with pytest.raises(InputError, match=r"adapter\.kind is \['a'\]: it takes a text"):
        overridden(tiny(), ["adapter.kind=[a]"])
    wrong = overridden(tiny(), ["adapter.kind=qformer", "adapter.stride=2"]).adapter
    with pytest.raises(InputError, match="the adapter 'qformer' has no option 'stride'"):
        make_adapter("qformer", SIZES, wrong.options())


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="known: linear"):
        make_adapter("linaer", SIZES)
    with pytest.raises(InputError, match="has stride, hidden"):
        make_adapter("linear", SIZES, {"strides": 3})
    with pytest.raises(InputError, match=r"adapter\.stride is 0"):
        make_adapter("linear", SIZES, {"stride": 0})
