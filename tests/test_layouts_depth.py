"""What a depth decoder is for: codes of one frame depend on each other, and heads side by side cannot know it."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from tests.test_generation_fast_step import COMPILED
from tests.test_layouts_conformance import MAKERS, C, make, most_likely
from unitok.layouts.depth import DepthLayout, FrameSteps
from unitok.layouts.registry import layout_pattern, make_layout
from unitok_tokenizers.grammar.streams import StreamInfo

WIDTH, CODES = 16, 4
STREAM = StreamInfo(name="codes", kind="codes", fingerprint="f", frame_rate=Fraction(25, 2), cardinalities=(CODES,) * 4)


def learned_cost(name: str, options: dict[str, object]) -> float:
    """Nats a position after training on positions where two slots repeat the first, which anything may be."""
    layout = make_layout(
        layout_pattern(name, STREAM, options), width=WIDTH, options=options, generator=torch.Generator().manual_seed(0)
    )
    draws = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(layout.parameters(), lr=0.02)
    cost = math.inf
    for _ in range(80):
        slots = torch.randint(CODES, (64, 1), generator=draws).expand(-1, 3)
        hidden, rows = torch.ones(64, WIDTH), torch.zeros(64, WIDTH)
        losses = layout.losses(hidden, rows, slots, torch.ones(64))
        mean = losses.total.sum() / 64
        optimizer.zero_grad()
        mean.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cost = mean.item()
    return cost


def test_depth_learns_what_parallel_heads_cannot() -> None:
    decoder = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 32}
    one_code = math.log(CODES)
    depth = learned_cost("depth", {"decoder": decoder})
    added = learned_cost("depth", {"decoder": decoder, "state_added": True})
    parallel = learned_cost("parallel", {})
    assert abs(depth - one_code) < 0.1 and abs(added - one_code) < 0.1, (depth, added)
    assert parallel > 3 * one_code - 0.1, parallel


def positions(count: int, seed: int, flush: int = 0) -> tuple[torch.Tensor, ...]:
    """States, rows (B, C), and where positions stand in their spans (B,)."""
    draws = torch.Generator().manual_seed(seed)
    before = torch.arange(count)
    return (*(torch.randn(count, C, generator=draws) for _ in range(2)), before, (before - 1).clamp(0, flush))


@pytest.mark.parametrize("ways", [{}, COMPILED])
@pytest.mark.parametrize("case", [case for case in MAKERS if case.startswith("depth")])
def test_quick_steps_are_the_plain_ones(case: str, ways: dict[str, bool]) -> None:
    """Frame after frame in the same memory, alone and together, before and after the weights have moved."""
    layout = make(case)
    assert isinstance(layout, DepthLayout)
    quick = layout.quick_step(**ways)
    for count, seed in ((1, 0), (1, 1), (5, 2), (1, 3), (5, 4)):
        if seed == 3:
            with torch.no_grad():
                for parameter in layout.parameters():
                    parameter.mul_(0.8)
        hidden, rows, before, behind = positions(count, seed, layout.pattern.flush)
        with torch.no_grad():
            wanted, costs = layout.step(hidden, rows, before, most_likely, behind)
        found, ours = quick(hidden, rows, before, most_likely, behind)
        assert torch.equal(found, wanted)
        assert torch.allclose(ours, costs, atol=1e-5), (ours - costs).abs().max()
    assert isinstance(quick, FrameSteps) and quick.made is not None, "it took the plain way"
    assert (quick.made[1].alone is not None) == bool(ways)


def test_quick_steps_in_half_precision_stay_near() -> None:
    layout = make("depth").to(torch.bfloat16)
    hidden, rows, before, behind = positions(3, 0)
    half = layout.quick_step()(hidden.bfloat16(), rows.bfloat16(), before, most_likely, behind)[1]
    with torch.no_grad():
        wide = make("depth").step(hidden, rows, before, most_likely, behind)[1]
    assert torch.allclose(half, wide, atol=0.3)


def test_what_only_the_decoder_knows_is_stepped_by_it() -> None:
    layout = make("depth")
    assert isinstance(layout, DepthLayout)
    layout.decoder.blocks[0].after_hook = lambda layer, x: x + 1
    hidden, rows, before, behind = positions(2, 0)
    with torch.no_grad():
        wanted = layout.step(hidden, rows, before, most_likely, behind)
    assert torch.equal(layout.quick_step()(hidden, rows, before, most_likely, behind)[0], wanted[0])
