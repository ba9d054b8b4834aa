"""What every layout of codebooks owes: to add one is a line in the registry and a maker here.

P positions, S slots, C width.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from unitok.layouts.base import CodebookLayout, SlotLosses
from unitok.layouts.depth import DepthLayout
from unitok.layouts.registry import LAYOUTS, layout_from_config, layout_pattern, make_layout
from unitok.layouts.slots import SlotHeads
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern
from unitok_tokenizers.grammar.streams import StreamInfo

C = 16
DEPTH = {"decoder": {"width": 12, "layers": 2, "heads": 2, "kv_heads": 1, "ffn": 24}}


def stream(*sizes: int) -> StreamInfo:
    return StreamInfo(name="codes", kind="codes", fingerprint="f", frame_rate=Fraction(25, 2), cardinalities=sizes)


MAKERS = {
    "depth": ("depth", stream(4, 3, 4), DEPTH),
    "depth, state added": ("depth", stream(4, 3, 4), {**DEPTH, "state_added": True, "step_projections": True}),
    "depth, own tables": ("depth", stream(4, 3, 4), {**DEPTH, "own_tables": True, "shared_head": True}),
    "depth, a step's own": ("depth", stream(4, 3, 4, 3), {**DEPTH, "step_projections": True, "delays": [0, 1, 1]}),
    "depth, one beside": ("depth", stream(4, 3), {**DEPTH, "own_tables": True}),
    "depth, absence": ("depth", stream(4, 3, 4), {**DEPTH, "absent_rows": True, "delays": [1, 1]}),
    "delay": ("delay", stream(4, 3, 4), {}),
    "delay, any": ("delay", stream(4, 3, 3), {"delays": [2, 0], "reads_id": True}),
    "delay, absence": ("delay", stream(4, 3, 3), {"delays": [1, 1], "absent_rows": True}),
    "parallel": ("parallel", stream(4, 3, 4), {"reads_id": True}),
    "group": ("group", stream(4), {"frames": 3}),
    "group, summed": ("group", stream(4), {"frames": 3, "joined": False, "reads_id": True}),
    "group, refined": ("group", stream(4, 3), {"frames": 2}),
    "group, in parallel": ("group", stream(3, 2), {"frames": 3, "refined": False}),
    "channels": ("channels", stream(3, 3, 3), {}),
}
"""Case → (registry name, stream, options); each registry name at least once."""


def pattern_of(case: str) -> FramePattern:
    name, codes, options = MAKERS[case]
    return layout_pattern(name, codes, options)


def make(case: str, seed: int = 0, pattern: FramePattern | None = None) -> CodebookLayout:
    """A layout whose weights are large enough for each to matter."""
    layout = make_layout(
        pattern or pattern_of(case), width=C, options=MAKERS[case][2], generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        for parameter in layout.parameters():
            parameter.mul_(10.0 if parameter.ndim > 1 else 1.0)
    return layout


def laid(pattern: FramePattern, frames: int, seed: int = 0) -> Tensor:
    """Slots (P, S) of a span of random codes; all roles."""
    generator = torch.Generator().manual_seed(seed)
    codes = [torch.randint(size, (frames,), generator=generator) for size in pattern.cardinalities]
    return torch.from_numpy(pattern.lay(torch.stack(codes, 1).numpy())[1])


def inputs(positions: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Hidden states and rows (P, C)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(positions, C, generator=generator) for _ in range(2))  # type: ignore[return-value]


class Script:
    """Chooses what it is told to, and says what that cost."""

    def __init__(self, wanted: Tensor) -> None:
        self.wanted = wanted
        self.asked: list[int] = []

    def __call__(self, slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
        assert logits.dtype == torch.float32
        self.asked.append(slot)
        absent = logits.shape[1] - 1  # where there is a class for it
        codes = torch.where(self.wanted[:, slot] == ABSENT, absent, self.wanted[:, slot])
        return codes, functional.log_softmax(logits, -1).gather(1, codes[:, None])[:, 0]


def most_likely(slot: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    best = functional.log_softmax(logits, -1).max(-1)
    return best.indices, best.values


def everything(pattern: FramePattern) -> Tensor:
    """Every content (N, S) that the predicted slots of one position in the middle of a span can have."""
    columns = [column for column, slot in enumerate(pattern.slots) if slot.role == "predicted"]
    several = pattern.frames > 1
    found = []
    for codes in itertools.product(*(range(-several, pattern.slots[column].size) for column in columns)):
        row = [ABSENT] * len(pattern.slots)
        for column, code in zip(columns, codes):
            row[column] = code
        there = [True] * pattern.frames
        for column, slot in enumerate(pattern.slots):
            if several and slot.codebook == 0:
                there[slot.frame] = row[column] != ABSENT
        alike = all((row[column] != ABSENT) == there[pattern.slots[column].frame] for column in columns)
        if alike and there == sorted(there, reverse=True):
            found.append(row)
    return torch.tensor(found)


def one_by_one(layout: CodebookLayout, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> list[SlotLosses]:
    return [
        layout.losses(hidden[i : i + 1], rows[i : i + 1], slots[i : i + 1], weight[i : i + 1])
        for i in range(len(hidden))
    ]


def test_every_layout_is_made() -> None:
    assert {name for name, _, _ in MAKERS.values()} == set(LAYOUTS)


@pytest.mark.parametrize("case", MAKERS)
def test_losses_are_a_probability_and_what_step_samples(case: str) -> None:
    layout, slots = make(case), everything(pattern_of(case))
    hidden, rows = (one.expand(len(slots), -1) for one in inputs(1))
    with torch.no_grad():
        costs = [float(one.total.sum()) for one in one_by_one(layout, hidden, rows, slots, torch.ones(len(slots)))]
        before = torch.full((len(slots),), layout.pattern.flush)
        script = Script(slots)
        chosen, scores = layout.step(hidden, rows, before, script, torch.zeros_like(before))
    assert abs(sum(torch.tensor(costs).double().neg().exp().tolist()) - 1) < 1e-5
    assert len(set(costs)) > len(costs) // 2, "codes do not matter"
    assert torch.equal(chosen, slots)
    assert torch.allclose(scores.sum(1), -torch.tensor(costs), atol=1e-5)
    assert script.asked == [column for column, slot in enumerate(layout.pattern.slots) if slot.role == "predicted"]


@pytest.mark.parametrize("case", MAKERS)
def test_packed_is_one_by_one(case: str) -> None:
    layout = make(case)
    slots = torch.cat([laid(layout.pattern, frames, frames) for frames in (1, 5, 2)])
    hidden, rows = inputs(len(slots))
    weight = torch.linspace(0, 2, len(slots))
    packed = layout.losses(hidden, rows, slots, weight)
    alone = one_by_one(layout, hidden, rows, slots, torch.ones(len(slots)))
    for name in ("total", "weight"):
        each = torch.stack([getattr(one, name) for one in alone])
        assert torch.allclose(getattr(packed, name), (weight[:, None] * each).sum(0), atol=1e-4)


@pytest.mark.parametrize("case", MAKERS)
def test_a_batch_steps_as_its_rows_do(case: str) -> None:
    layout, count = make(case), 6
    hidden, rows = inputs(count)
    before, behind = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 0, 0, 0, 1, 2]).clamp(max=layout.pattern.flush)
    with torch.no_grad():
        slots, scores = layout.step(hidden, rows, before, most_likely, behind)
        for row in range(count):
            own = slice(row, row + 1)
            one, score = layout.step(hidden[own], rows[own], before[own], most_likely, behind[own])
            assert torch.equal(one[0], slots[row])
            assert torch.allclose(score[0], scores[row], atol=1e-5)


@pytest.mark.parametrize("case", MAKERS)
def test_a_span_steps_as_it_is_laid(case: str) -> None:
    """Positions of a whole span, those before delays have passed and those that flush them among them."""
    layout = make(case)
    frames = 2 * layout.pattern.frames + 1
    slots = laid(layout.pattern, frames)
    refined = torch.tensor([slot.role == "refined" for slot in layout.pattern.slots])
    slots = slots.masked_fill(refined, ABSENT)
    hidden, rows = inputs(len(slots))
    before = torch.arange(len(slots))
    with torch.no_grad():
        chosen, scores = layout.step(hidden, rows, before, Script(slots), (before - frames + 1).clamp_min(0))
        losses = layout.losses(hidden, rows, slots, torch.ones(len(slots)))
    assert torch.equal(chosen, slots)
    assert torch.allclose(scores.sum(0), -losses.total, atol=1e-5)


@pytest.mark.parametrize("case", MAKERS)
def test_every_parameter_learns_and_what_is_given_does_not_count(case: str) -> None:
    layout = make(case)
    slots = torch.cat([laid(layout.pattern, frames, frames) for frames in (7, 8)])
    hidden, rows = (one.requires_grad_() for one in inputs(len(slots)))
    weight = torch.ones(len(slots))
    weight[::3] = 0
    losses = layout.losses(hidden, rows, slots, weight)
    (losses.total.sum() + layout.vectors(slots).pow(2).sum()).backward()  # type: ignore[no-untyped-call]
    for name, parameter in layout.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert hidden.grad is not None and (hidden.grad[weight == 0] == 0).all()
    # A position all of whose slots are still delayed costs nothing either.
    predicted = torch.tensor([slot.role == "predicted" for slot in layout.pattern.slots])
    costs = (weight > 0) & ((slots[:, predicted] != ABSENT).any(1) | (layout.pattern.frames > 1))
    assert (hidden.grad[costs].abs().amax(1) > 0).all()


@pytest.mark.parametrize("case", MAKERS)
@pytest.mark.parametrize("positions", [0, 3])
def test_nothing_to_predict_is_a_loss_too(case: str, positions: int) -> None:
    layout = make(case)
    slots = laid(layout.pattern, 9)[:positions]
    losses = layout.losses(*inputs(positions), slots, torch.zeros(positions))
    assert losses.total.tolist() == losses.weight.tolist() == [0.0] * len(layout.pattern.slots)
    (losses.total.sum() + layout.vectors(slots[:0]).sum()).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in layout.parameters()), "ranks would wait for each other"


@pytest.mark.parametrize("case", MAKERS)
def test_configuration_and_weights_come_back(case: str) -> None:
    layout = make(case)
    again = layout_from_config(json.loads(json.dumps(layout.config())))
    again.load_state_dict(layout.state_dict())
    slots = laid(layout.pattern, 5)
    hidden, rows = inputs(len(slots))
    assert again.pattern == layout.pattern and again.config() == layout.config()
    assert torch.equal(layout.vectors(slots), again.vectors(slots))
    weight = torch.ones(len(slots))
    assert torch.equal(
        layout.losses(hidden, rows, slots, weight).total, again.losses(hidden, rows, slots, weight).total
    )


@pytest.mark.parametrize("case", MAKERS)
def test_the_generator_draws_the_weights(case: str) -> None:
    first, same, other = make(case).state_dict(), make(case).state_dict(), make(case, seed=1).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first if first[name].ndim > 1)


@pytest.mark.parametrize("case", [case for case in MAKERS if "absence" not in case])
def test_what_is_absent_adds_and_costs_nothing(case: str) -> None:
    layout = make(case)
    nothing = torch.full((1, len(layout.pattern.slots)), ABSENT)
    assert (layout.vectors(nothing) == 0).all()
    hidden, rows = inputs(1)
    losses = layout.losses(hidden, rows, nothing, torch.ones(1))
    if layout.pattern.frames > 1:  # that nothing follows is predicted once, with what stands beside frame 0 left out
        assert (losses.weight > 0).sum() == 1
    else:
        assert losses.total.tolist() == losses.weight.tolist() == [0.0] * len(layout.pattern.slots)
    slots = laid(layout.pattern, 6)[2:3]
    alone = [torch.where(torch.arange(slots.shape[1]) == column, slots, ABSENT) for column in range(slots.shape[1])]
    assert torch.allclose(layout.vectors(slots), sum(layout.vectors(one) for one in alone), atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", ["depth, absence", "delay, absence"])
def test_absence_may_have_a_row(case: str) -> None:
    layout = make(case)
    nothing = torch.full((1, len(layout.pattern.slots)), ABSENT)
    assert (layout.vectors(nothing) != 0).any()
    assert layout.losses(*inputs(1), nothing, torch.ones(1)).weight.sum() == 0


@pytest.mark.parametrize("case", ["depth", "depth, state added", "delay", "channels"])
def test_forced_slots_are_read_and_not_predicted(case: str) -> None:
    """What the other side of a dialogue says enters the decoder; the layout is never asked for it."""
    own = pattern_of(case)
    forced = replace(own, slots=(replace(own.slots[0], role="forced"), *own.slots[1:]))
    layout = make(case, pattern=forced)
    slots = laid(forced, 6)
    hidden, rows = inputs(len(slots))
    losses = layout.losses(hidden, rows, slots, torch.ones(len(slots)))
    assert losses.weight[0] == 0 and (losses.weight[1:] > 0).all()
    other = slots.clone()
    other[2, 0] = (slots[2, 0] + 1) % 3
    assert not torch.allclose(layout.vectors(other)[2], layout.vectors(slots)[2])
    script = Script(slots)
    before = torch.arange(len(slots))
    chosen, scores = layout.step(hidden, rows, before, script)
    assert (chosen[:, 0] == ABSENT).all() and (scores[:, 0] == 0).all() and 0 not in script.asked


@pytest.mark.parametrize("case", MAKERS)
def test_half_precision_is_close(case: str) -> None:
    layout = make(case)
    slots = laid(layout.pattern, 5)
    hidden, rows = inputs(len(slots))
    weight = torch.ones(len(slots))
    wide = layout.losses(hidden, rows, slots, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layout.losses(hidden, rows, slots, weight)
    assert mixed.total.dtype == layout.vectors(slots).dtype == torch.float32
    assert torch.allclose(mixed.total, wide.total, rtol=0.05, atol=0.1)
    half = layout.to(torch.bfloat16)
    half_losses = half.losses(hidden.bfloat16(), rows.bfloat16(), slots, weight)
    assert half_losses.total.dtype == torch.float32 and half.vectors(slots).dtype == torch.bfloat16
    assert torch.allclose(half_losses.total, wide.total, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("each", [False, True])
def test_logits_in_pieces_are_logits_at_once(each: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = SlotHeads([4, 3], 5, generator=torch.Generator().manual_seed(0))
    states = torch.randn(7, *((2,) if each else ()), 5, generator=torch.Generator().manual_seed(1))
    classes = torch.tensor([[0, 1], [3, 2], [-1, 0], [1, -1], [2, 2], [0, 0], [3, 1]])
    found = []
    for at_once in (1 << 25, 16):
        monkeypatch.setattr("unitok.layouts.slots.LOGITS_AT_ONCE", at_once)
        heads.zero_grad()
        nll = heads.losses(states, classes)
        nll.sum().backward()  # type: ignore[no-untyped-call]
        assert heads.weight.grad is not None
        with torch.no_grad():
            assert torch.allclose(heads.losses(states, classes), nll)
        found.append((nll.detach(), heads.weight.grad.clone()))
    for one, other in zip(*found):
        assert torch.allclose(one, other, atol=1e-6)


def test_what_cannot_be_made_is_refused() -> None:
    for name, codes, options, message in (
        ("depth", stream(4), {}, "several codebooks"),
        ("delay", stream(4, 4), {"delays": [1, 2]}, "2 delays"),
        ("group", stream(4), {"frames": 1}, "2 or more"),
        ("depth", stream(4, 4), {"layers": 2}, "no option 'layers'"),
        ("depth", stream(4, 4), {"decoder": {"depth": 2}}, "no such option"),
        ("rq", stream(4, 4), {}, "unknown layout"),
    ):
        with pytest.raises(InputError, match=message):
            layout_pattern(name, codes, options)
    with pytest.raises(InputError, match="no layout"):
        layout_from_config({"layout": "depth"})
    own = pattern_of("depth")
    with pytest.raises(InputError, match="predicts no slot"):
        make_layout(replace(own, slots=tuple(replace(slot, role="forced") for slot in own.slots)), width=C)


def test_logits_are_those_of_transformers() -> None:
    """A CSM depth decoder (transformers' class, random weights) and ours with the same weights."""
    from transformers import CsmDepthDecoderConfig, CsmDepthDecoderForCausalLM

    torch.manual_seed(0)
    books, size = 5, 7
    theirs = CsmDepthDecoderForCausalLM(
        CsmDepthDecoderConfig(
            num_codebooks=books, vocab_size=size, backbone_hidden_size=C, hidden_size=24, intermediate_size=40,
            num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=books + 1,
            initializer_range=0.3,
        )
    ).eval()  # fmt: skip
    name, codes = "depth", stream(*[size] * books)
    shape = {"width": 24, "layers": 3, "heads": 4, "kv_heads": 2, "ffn": 40, "norm_eps": 1e-5, "rope_theta": 500000.0}
    options = {"decoder": shape}
    layout = make_layout(layout_pattern(name, codes, options), width=C, options=options)
    assert isinstance(layout, DepthLayout)
    weights = theirs.state_dict()
    table = weights["model.embed_tokens.weight"]  # (books · size, C): as the large decoder's, so codebook 0 first
    ours = {
        "tables.weight": table[size:],
        "projection": weights["model.inputs_embeds_projector.weight"][None],
        "heads.weight": weights["codebooks_head.weight"].transpose(1, 2),
        "decoder.norm": weights["model.norm.weight"],
    }
    for layer in range(3):
        source, target = f"model.layers.{layer}.", f"decoder.blocks.{layer}."
        attention, feed = source + "self_attn.", source + "mlp."
        ours |= {
            target + "norm": weights[source + "input_layernorm.weight"],
            target + "qkv": torch.cat([weights[f"{attention}{one}_proj.weight"] for one in "qkv"]),
            target + "out": weights[attention + "o_proj.weight"],
            target + "feed_forward.norm": weights[source + "post_attention_layernorm.weight"],
            target + "feed_forward.gate_up": torch.cat([weights[f"{feed}{one}_proj.weight"] for one in ("gate", "up")]),
            target + "feed_forward.down": weights[feed + "down_proj.weight"],
        }
    layout.load_state_dict(ours)
    frames = torch.randint(size, (6, books), generator=torch.Generator().manual_seed(1))
    hidden, _ = inputs(len(frames))
    rows = table[frames[:, 0]]
    with torch.no_grad():
        given = torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)  # the first is replaced by the state
        wanted = theirs(input_ids=given, backbone_last_hidden_state=hidden).logits
        found = layout.heads.logits(layout.states(hidden, rows, frames[:, 1:-1]))
        greedy, _ = layout.step(hidden, rows, torch.zeros(len(frames), dtype=torch.int64), most_likely)
        made = torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :1]], 1)
        for _ in range(books - 1):
            logits = theirs(input_ids=made, backbone_last_hidden_state=hidden).logits
            made = torch.cat([made, logits[:, -1:].argmax(-1)], 1)
    assert (wanted - found).abs().max() < 1e-4 and wanted.std() > 0.1
    assert torch.equal(greedy, made[:, 2:])
