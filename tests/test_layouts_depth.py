"""What a depth decoder is for: codes of one frame depend on each other, and heads side by side cannot know it."""

from __future__ import annotations

import math
from fractions import Fraction

import torch

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
