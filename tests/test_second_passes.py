"""Second passes: the packed network against a plain one, what they read, what they learn, what they are built from."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.support.code_spans import IDS, NETWORK, SIZES, STREAM, TEXTS, VOICES, any_span, spoken, voiced_span
from tests.support.toy_plans import CODES, own
from unitok.decoder.model import Block, FeedForward
from unitok.layouts.base import SlotLosses
from unitok.layouts.first import FirstConfig, FirstNarLayout, FirstRegressLayout
from unitok.layouts.group import GroupConfig, GroupLayout
from unitok.second_passes.base import (
    CodeSpan,
    SecondPass,
    SpanBatch,
    code_span,
    greedy,
    refined_codebooks,
    refined_slots,
    unfinished,
)
from unitok.second_passes.refiner import Refiner, RefinerConfig
from unitok.second_passes.registry import SECOND_PASSES, make_second_pass, second_pass_from_config
from unitok.second_passes.regression import Regression, RegressionConfig
from unitok.second_passes.span_network import SpanNetwork
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern, SlotSpec
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.objectives.span_draws import drawn_beginning, drawn_stages

LATENT = 4
NAR, TOY_NAR = (FirstNarLayout.pattern_for(one, FirstConfig()) for one in (STREAM, CODES))
REGRESS = FirstRegressLayout.pattern_for(STREAM, FirstConfig())


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def refiner(*, tied: bool = True, sharp: float = 1.0, seed: int = 0) -> Refiner:
    """A refiner; `sharp` makes its weights larger, so that what it says differs from place to place."""
    made = Refiner(RefinerConfig(decoder=NETWORK, tied=tied), NAR, ids=IDS, generator=drawn(seed))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(sharp)
    return made


def regression() -> Regression:
    return Regression(RegressionConfig(decoder=NETWORK, latent=LATENT), REGRESS, ids=IDS, generator=drawn())


MAKERS: dict[str, Callable[[], SecondPass]] = {"first_nar": refiner, "first_regress": regression}
each_pass = pytest.mark.parametrize("name", SECOND_PASSES)

SHAPES = ((3, 4, 5), (0, 2, 1), (2, 0, 7), (1, 1, 0), (4, 3, 2))
"""Conditions, prompt, frames."""


def spans(seed: int = 0) -> list[CodeSpan]:
    rng = np.random.default_rng(seed)
    made = [any_span(rng, *shape) for shape in SHAPES]
    return [replace(one, latents=rng.normal(size=(len(one.codes), LATENT)).astype(np.float32)) for one in made]


# -- the same as a plain one --------------------------------------------------------------------------------------


def plain_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def plain_network(network: SpanNetwork, span: CodeSpan, read: int, stage: int | None) -> Tensor:
    """Frames (F, C) of one span, written out: dense attention, position by position sums."""
    config, eps = network.decoder.config, network.decoder.config.norm_eps
    rows = [network.decoder.embedding[one] + network.kinds[0] for one in span.conditions.tolist()]
    for kind, codes, most in ((1, span.prompt, len(SIZES)), (2, span.codes, read)):
        for frame in codes.tolist():
            rows.append(network.kinds[kind] + sum(network.tables[q][frame[q]] for q in range(most)))
    x = torch.stack(rows)
    angle = torch.arange(len(x))[:, None] * network.decoder.frequencies
    cosine, sine = angle.cos().repeat(1, 2)[:, None], angle.sin().repeat(1, 2)[:, None]

    def turned(one: Tensor) -> Tensor:
        first, second = one.chunk(2, -1)
        return one * cosine + torch.cat([-second, first], -1) * sine

    def normed(x: Tensor, weight: Tensor, place: int) -> Tensor:
        found = plain_norm(x, weight, eps)
        if stage is None:
            return found
        assert network.scale is not None and network.shift is not None
        return found * (1 + network.scale[stage, place]) + network.shift[stage, place]

    for index, block in enumerate(network.decoder.blocks):
        assert isinstance(block, Block) and isinstance(block.feed_forward, FeedForward)
        joint = (normed(x, block.norm, 2 * index) @ block.qkv.T).view(len(x), -1, config.head_dim)
        q, k, v = joint.split([config.heads, config.kv_heads, config.kv_heads], 1)
        share = config.heads // config.kv_heads
        k, v = (one.repeat_interleave(share, 1) for one in (turned(k), v))
        scores = torch.einsum("qhd,khd->hqk", turned(q), k) / config.head_dim**0.5
        x = x + torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1) @ block.out.T
        feed = block.feed_forward
        gate, up = (normed(x, feed.norm, 2 * index + 1) @ feed.gate_up.T).chunk(2, -1)
        x = x + (functional.silu(gate) * up) @ feed.down.T
    x = normed(x, network.decoder.norm, 2 * config.layers)
    return x[len(x) - len(span.codes) :]


@pytest.mark.parametrize("tied", [True, False])
def test_stage_by_stage_alone_is_what_packed_spans_give(tied: bool) -> None:
    model, made = refiner(tied=tied, sharp=3.0), spans()
    found = model.finish(SpanBatch.of(made), greedy)
    rest = found.split([len(one.codes) for one in made])
    for one, codes in zip(made, rest):
        known = one.codes.copy()
        for stage, book in enumerate(model.refined):
            if len(known):
                hidden = plain_network(model.network, replace(one, codes=known), 1 + stage, stage)
                head = model.network.tables[book] if tied else model.heads[stage]  # type: ignore[index]
                known[:, book] = (hidden @ head.T).argmax(-1).numpy()
        assert codes.numpy().tolist() == known.tolist()
    assert not np.array_equal(found.numpy(), np.concatenate([one.codes for one in made]))


@pytest.mark.parametrize("tied", [True, False])
def test_losses_are_those_of_every_span_and_stage_alone(tied: bool) -> None:
    model, made = refiner(tied=tied, sharp=3.0), spans()
    losses = model.losses(SpanBatch.of(made))
    frames = sum(len(one.codes) for one in made)
    assert losses.weight.tolist() == [frames] * 2
    for stage, book in enumerate(model.refined):
        total = torch.zeros(())
        for one in made:
            if len(one.codes):
                hidden = plain_network(model.network, one, 1 + stage, stage)
                head = model.network.tables[book] if tied else model.heads[stage]  # type: ignore[index]
                labels = torch.from_numpy(one.codes[:, book])
                total = total + functional.cross_entropy(hidden @ head.T, labels, reduction="sum")
        assert losses.total[stage].item() == pytest.approx(total.item(), abs=1e-5 * frames)


def test_a_drawn_stage_costs_what_it_costs_among_all() -> None:
    model, made = refiner(sharp=3.0), spans()
    stages = [0, 1, 1, 0, 0]
    found = model.losses(SpanBatch.of(made, stages=stages))
    for stage in range(2):
        own = model.losses(SpanBatch.of([one for one, drawn in zip(made, stages) if drawn == stage]))
        assert found.total[stage].item() == pytest.approx(own.total[stage].item(), abs=1e-4)
        assert found.weight[stage] == own.weight[stage]


def test_latents_of_packed_spans_are_those_of_a_plain_network() -> None:
    model, made = regression(), spans()
    model.fit_range(torch.from_numpy(np.concatenate([one.latents for one in made if one.latents is not None])))
    found = model.finish(SpanBatch.of(made), greedy).split([len(one.codes) for one in made])
    total = torch.zeros(2)
    for one, latents in zip(made, found):
        assert one.latents is not None
        if len(one.codes):
            hidden = plain_network(model.network, one, 1, None)
            wanted = (hidden @ model.out.T + model.bias) * model.range.deviation + model.range.mean
            assert torch.allclose(latents, wanted, atol=1e-5)
            error = (wanted - torch.from_numpy(one.latents)) / model.range.deviation
            total += torch.stack([error.abs().mean(1).sum(), error.square().mean(1).sum()])
    losses = model.losses(SpanBatch.of(made))
    assert torch.allclose(losses.total, total, atol=1e-4) and losses.weight.tolist() == [15.0, 15.0]


@each_pass
def test_spans_in_a_batch_cost_what_they_cost_alone(name: str) -> None:
    model, made = MAKERS[name](), spans()
    together = model.losses(SpanBatch.of(made))
    alone = [model.losses(SpanBatch.of([one])) for one in made]
    assert torch.allclose(together.total, torch.stack([one.total for one in alone]).sum(0), atol=1e-4)
    assert torch.equal(together.weight, torch.stack([one.weight for one in alone]).sum(0))
    assert len(model.loss_names) == len(together.total)


# -- what is read -------------------------------------------------------------------------------------------------


def at_stage(model: Refiner, span: CodeSpan, stage: int) -> Tensor:
    return model.logits(model.hidden(SpanBatch.of([span]), torch.tensor([stage])), stage)


def test_a_stage_reads_the_codebooks_before_it_and_no_later_one() -> None:
    model, one = refiner(sharp=3.0), spans()[0]
    for stage in range(2):
        for book in range(len(SIZES)):
            other = one.codes.copy()
            other[0, book] = (other[0, book] + 1) % SIZES[book]
            same = torch.equal(at_stage(model, one, stage), at_stage(model, replace(one, codes=other), stage))
            assert same == (book > stage), (stage, book)


def test_all_codebooks_of_the_prompt_and_all_conditions_are_read_from_both_ends() -> None:
    model, one = refiner(sharp=3.0), spans()[0]
    before = at_stage(model, one, 0)
    for book in range(len(SIZES)):
        prompt = one.prompt.copy()
        prompt[-1, book] = (prompt[-1, book] + 1) % SIZES[book]
        assert (at_stage(model, replace(one, prompt=prompt), 0) - before).abs().amax(1).min() > 1e-6
    conditions = one.conditions.copy()
    conditions[0] = (conditions[0] + 1) % IDS
    assert (at_stage(model, replace(one, conditions=conditions), 0) - before).abs().amax(1).min() > 1e-6
    last = one.codes.copy()
    last[-1, 0] = (last[-1, 0] + 1) % SIZES[0]
    moved = (at_stage(model, replace(one, codes=last), 0) - before).abs().amax(1)
    assert moved.min() > 1e-6, "the first frame does not see the last"


def test_each_stage_has_norms_of_its_own() -> None:
    model, one = refiner(), spans()[0]
    batch = SpanBatch.of([one])
    read = torch.full((len(one.codes),), 1)
    first, second = (model.network(batch, read, torch.tensor([stage])) for stage in range(2))
    assert (first - second).abs().max() > 1e-3
    with torch.no_grad():
        assert model.network.scale is not None and model.network.shift is not None
        for parameter in (model.network.scale, model.network.shift):
            parameter[1] = parameter[0]
    assert torch.equal(model.network(batch, read, torch.tensor([0])), model.network(batch, read, torch.tensor([1])))


def test_what_stands_in_the_place_of_a_code_to_be_found_is_not_read() -> None:
    model, made = refiner(sharp=3.0), spans()
    wanted = model.finish(SpanBatch.of(made), greedy)
    hidden = [replace(one, codes=unfinished(one.codes[:, :1], model.pattern)) for one in made]
    assert torch.equal(model.finish(SpanBatch.of(hidden), greedy), wanted)


def test_the_chooser_is_asked_once_a_stage_about_every_frame() -> None:
    model, asked = refiner(), list[tuple[int, tuple[int, ...]]]()

    def choose(slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((slot, tuple(logits.shape)))
        return torch.full((len(logits),), slot + 2), torch.zeros(len(logits))

    found = model.finish(SpanBatch.of(spans()), choose)
    assert asked == [(0, (15, 5)), (1, (15, 5))]
    assert found[:, 1:].unique(dim=0).tolist() == [[2, 3]]


# -- learning -----------------------------------------------------------------------------------------------------


@each_pass
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    for model in [MAKERS[name](), *([refiner(tied=False)] if name == "first_nar" else [])]:
        rng = np.random.default_rng(3)
        many = [any_span(rng, 40, 40, 40) for _ in range(2)]
        many = [replace(one, latents=rng.normal(size=(40, LATENT)).astype(np.float32)) for one in many]
        losses: SlotLosses = model.losses(SpanBatch.of(many))
        losses.total.sum().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), key


def test_codes_that_are_absent_have_no_loss() -> None:
    model, made = refiner(), spans()
    codes = made[0].codes.copy()
    codes[1:, 2] = -1
    found = model.losses(SpanBatch.of([replace(made[0], codes=codes)]))
    assert found.weight.tolist() == [5.0, 1.0]
    for one in (refiner(), refiner(tied=False), regression()):
        nothing = one.losses(SpanBatch.of([made[3]], stages=[1]))
        assert nothing.weight.tolist() == nothing.total.tolist() == [0.0, 0.0]
        nothing.total.sum().backward()
        assert all(parameter.grad is not None for parameter in one.parameters()), "ranks would wait for each other"


@each_pass
def test_half_precision_is_close(name: str) -> None:
    model, batch = MAKERS[name](), SpanBatch.of(spans())
    wide = model.losses(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.losses(batch)
    half = model.to(torch.bfloat16).losses(batch)
    for found in (mixed, half):
        assert found.total.dtype == torch.float32
        assert torch.allclose(found.total, wide.total, rtol=0.05, atol=0.1)


def test_groups_of_frames_may_be_refined() -> None:
    pattern = GroupLayout.pattern_for(STREAM, GroupConfig(frames=2))
    assert refined_codebooks(pattern) == (1, 2) and refined_slots(pattern) == (0, 1)
    model = Refiner(RefinerConfig(decoder=NETWORK), pattern, ids=IDS, generator=drawn())
    plain = refiner()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(model.finish(SpanBatch.of(spans()), greedy), plain.finish(SpanBatch.of(spans()), greedy))


@pytest.fixture(scope="module")
def trained() -> Refiner:
    """A refiner that has seen 9,600 spans of three voices and two texts, each at one stage."""
    steps, model = 300, Refiner(RefinerConfig(decoder=NETWORK), NAR, ids=IDS, generator=drawn())
    optimizer, rng = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0), np.random.default_rng(1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        examples = np.arange(32) + 32 * step
        batch = SpanBatch.of([voiced_span(rng) for _ in range(32)], stages=drawn_stages(5, examples, 2))
        losses = model.losses(batch)
        optimizer.zero_grad()
        (losses.total.sum() / losses.weight.sum()).backward()
        optimizer.step()
    return model


def test_held_out_spans_get_the_codes_that_text_and_first_codebook_decide(trained: Refiner) -> None:
    rng = np.random.default_rng(99)
    held = SpanBatch.of([voiced_span(rng) for _ in range(96)])
    made = trained.finish(held, greedy)
    for book in (1, 2):
        assert (made[:, book] == held.codes[:, book]).float().mean() > 0.9


def test_the_prompt_decides_the_voice_whatever_the_text(trained: Refiner) -> None:
    rng = np.random.default_rng(98)
    followed = list[float]()
    for text in range(TEXTS):
        one = voiced_span(rng, frames=12, voice=0, text=text)
        for voice in range(VOICES):
            for _ in range(10):
                prompt = spoken(rng.integers(SIZES[0], size=3), 0, voice)
                made = trained.finish(SpanBatch.of([replace(one, prompt=prompt)]), greedy)[:, 1].numpy()
                followed.append(float((made == spoken(one.codes[:, 0], text, voice)[:, 1]).mean()))
    assert np.mean(followed) >= 0.9
    alone = trained.finish(SpanBatch.of([replace(one, prompt=one.prompt[:0])]), greedy)[:, 1].numpy()
    shares = [float((alone == spoken(one.codes[:, 0], TEXTS - 1, voice)[:, 1]).mean()) for voice in range(VOICES)]
    assert sorted(shares)[1] < 0.9, "without a prompt no voice is known"


def test_regression_learns_latents_that_the_prompt_decides() -> None:
    rng, model = np.random.default_rng(1), regression()
    tables = np.random.default_rng(2).normal(size=(len(SIZES), max(SIZES), LATENT)).astype(np.float32)

    def said(one: CodeSpan) -> CodeSpan:
        return replace(one, latents=sum(tables[q][one.codes[:, q]] for q in range(len(SIZES))))

    model.fit_range(torch.from_numpy(np.concatenate([said(voiced_span(rng)).latents for _ in range(50)])))  # type: ignore[misc]
    optimizer, steps = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0), 250
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        losses = model.losses(SpanBatch.of([said(voiced_span(rng)) for _ in range(32)]))
        optimizer.zero_grad()
        (losses.total.sum() / losses.weight.sum()).backward()
        optimizer.step()
    held = SpanBatch.of([said(voiced_span(rng)) for _ in range(64)])
    assert held.latents is not None
    left = (model.finish(held, greedy) - held.latents).square().mean() / held.latents.var()
    assert left < 0.1
    turned = SpanBatch.of([said(replace(voiced_span(rng, voice=0), prompt=voiced_span(rng, voice=1).prompt))])
    assert turned.latents is not None
    assert (model.finish(turned, greedy) - turned.latents).square().mean() / held.latents.var() > left


def test_a_stage_and_a_beginning_are_drawn_from_the_seed_and_the_example_alone() -> None:
    examples = np.arange(6_000)
    stages = drawn_stages(7, examples, 3)
    assert np.array_equal(stages[100:200], drawn_stages(7, examples[100:200], 3))
    assert not np.array_equal(stages, drawn_stages(8, examples, 3))
    assert np.allclose(np.bincount(stages) / len(stages), 1 / 3, atol=0.03)
    frames = np.where(examples % 2, 40, 3)
    begun = drawn_beginning(7, examples, frames, least=2, most=20)
    assert np.array_equal(begun[50:60], drawn_beginning(7, examples[50:60], frames[50:60], least=2, most=20))
    assert begun[1::2].min() == 2 and begun[1::2].max() == 20
    assert set(begun[::2].tolist()) == {2}, "a frame at least is left"
    assert drawn_beginning(7, np.arange(3), np.array([0, 1, 2]), least=2, most=20).tolist() == [0, 0, 1]


# -- built again, and from sequences ------------------------------------------------------------------------------


@each_pass
def test_it_is_built_again_from_its_config_and_weights(name: str) -> None:
    model = MAKERS[name]()
    again = second_pass_from_config(json.loads(json.dumps(model.config())))
    assert type(again) is type(model) and again.config() == model.config() and again.pattern == model.pattern
    batch = SpanBatch.of(spans())
    assert not torch.equal(again.losses(batch).total, model.losses(batch).total)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.losses(batch).total, model.losses(batch).total)


def test_options_are_read_by_name() -> None:
    made = make_second_pass("first_nar", NAR, ids=9, options={"decoder": {"width": 16, "layers": 1}}, generator=drawn())
    assert isinstance(made, Refiner) and made.options.tied and made.options.decoder.heads == 4
    assert made.network.decoder.embedding.shape == (9, 16) and len(made.network.decoder.blocks) == 1


def test_what_is_no_second_pass_is_refused() -> None:
    with pytest.raises(InputError, match="unknown second pass 'depth'"):
        make_second_pass("depth", NAR, ids=9)
    with pytest.raises(InputError, match="has no option 'latent'; it has decoder, tied"):
        make_second_pass("first_nar", NAR, ids=9, options={"latent": 3})
    for options in ({}, {"latent": 3, "decoder": {"depth": 2}}):
        with pytest.raises(InputError, match="options .* are not whole"):
            make_second_pass("first_regress", REGRESS, ids=9, options=options)
    with pytest.raises(InputError, match="no second pass"):
        second_pass_from_config({"second_pass": "first_nar", "pattern": NAR.to_json()})
    slots = tuple(SlotSpec(stream="codes", codebook=book, size=SIZES[book], role="refined") for book in (0, 2))
    with pytest.raises(InputError, match="takes the last ones"):
        refined_codebooks(FramePattern(layout="x", stream="codes", cardinalities=SIZES, inline=(1,), slots=slots))
    with pytest.raises(InputError, match="are none, not 4 wide"):
        regression().losses(SpanBatch.of([replace(spans()[0], latents=None)]))


def frames(*rows: tuple[int, int, int], kind: str = "codes") -> Span:
    return Span(kind, np.array(rows, np.int64).reshape(-1, 3))


def test_a_span_is_made_of_what_a_sequence_says() -> None:
    vocabulary, pattern = own(), TOY_NAR
    voice, said = frames((0, 1, 2), (3, 4, 1), kind="voice"), frames((7, 7, 4), (1, 0, 0), (2, 2, 2))
    text, units = Span("text", np.array([20, 21])), Span("units", np.array([1, 8]))
    plan = SequenceSpec("tts", "en", None, ("<out:codes>",), (voice, text), (units, said))
    found = code_span(plan, vocabulary, pattern)
    assert found is not None
    ids = [
        vocabulary.control("<text>"),
        20,
        21,
        vocabulary.control("<units>"),
        *vocabulary.to_ids("units", units.content),
    ]
    assert found.conditions.tolist() == ids and found.prompt.tolist() == voice.content.tolist()
    assert found.codes.tolist() == said.content.tolist()
    forced = SequenceSpec("vtts", "en", conditions=(text,), outputs=(said,), forced=2)
    begun = code_span(forced, vocabulary, pattern)
    assert begun is not None and begun.conditions.tolist() == ids[:3]
    assert begun.prompt.tolist() == said.content[:2].tolist() and begun.codes.tolist() == said.content[2:].tolist()
    asr = SequenceSpec("asr", "en", conditions=(units,), outputs=(text,))
    assert code_span(asr, vocabulary, pattern) is None


def test_units_that_are_a_voice_are_a_condition_and_no_prompt() -> None:
    vocabulary, units = own(), Span("voice", np.array([1, 8]))
    plan = SequenceSpec(
        "slm", "en", None, ("<out:codes>",), (units,), (Span("units", np.array([2])), frames((1, 2, 3)))
    )
    found = code_span(plan, vocabulary, TOY_NAR)
    assert found is not None and len(found.prompt) == 0
    assert found.conditions[0] == vocabulary.control("<voice>") and len(found.conditions) == 5
