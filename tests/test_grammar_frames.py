"""How codes lie on positions: every pattern gives back the codes that it laid."""

from __future__ import annotations

import numpy as np
import pytest

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec

SIZES = (7, 5, 5)


def slots(*delays: int) -> tuple[SlotSpec, ...]:
    return tuple(SlotSpec(stream="codes", codebook=q + 1, size=5, delay=d) for q, d in enumerate(delays))


PATTERNS = {
    "flat": FramePattern(layout="flat", stream="codes", cardinalities=SIZES, inline=(0, 1, 2)),
    "coarse_fine": FramePattern(layout="coarse_fine", stream="codes", cardinalities=SIZES, inline=(0, 1, 2), coarse=1),
    "depth": FramePattern(layout="depth", stream="codes", cardinalities=SIZES, inline=(0,), slots=slots(0, 0)),
    "delay": FramePattern(layout="delay", stream="codes", cardinalities=SIZES, inline=(0,), slots=slots(1, 3)),
    "channels": FramePattern(
        layout="channels", stream="codes", cardinalities=(4, 4), inline=(),
        slots=tuple(SlotSpec(stream="codes", codebook=q, size=4) for q in range(2)),
    ),
    "group": FramePattern(
        layout="group", stream="codes", cardinalities=(7,), inline=(0,), frames=3,
        slots=tuple(SlotSpec(stream="codes", codebook=0, size=7, frame=f) for f in (1, 2)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 7])
def test_codes_come_back(name: str, frames: int) -> None:
    pattern = PATTERNS[name]
    codes = np.random.default_rng(frames).integers(
        0, np.asarray(pattern.cardinalities), (frames, len(pattern.cardinalities))
    )
    inline, columns = pattern.lay(codes)
    assert len(inline) == len(columns) == pattern.positions(frames)
    assert np.array_equal(pattern.gather(inline, columns), codes)
    assert FramePattern.from_json(pattern.to_json()) == pattern


def test_delays_stand_behind_their_frames() -> None:
    inline, columns = PATTERNS["delay"].lay(np.array([[1, 2, 3], [4, 0, 1]]))
    assert inline[:, 0].tolist() == [1, 4, ABSENT, ABSENT, ABSENT]
    assert columns.T.tolist() == [[ABSENT, 2, 0, ABSENT, ABSENT], [ABSENT, ABSENT, ABSENT, 3, 1]]


def test_what_a_limit_cut_is_left_out() -> None:
    pattern = PATTERNS["delay"]
    inline, columns = pattern.lay(np.ones((4, 3), np.int64))
    assert len(pattern.gather(inline[:5], columns[:5])) == 2


@pytest.mark.parametrize("codes", [[[7, 0, 0]], [[0, -1, 0]], [[0, 0]], [0, 0, 0]])
def test_codes_outside_are_refused(codes: list[list[int]]) -> None:
    with pytest.raises(InputError, match="codes"):
        PATTERNS["depth"].lay(np.array(codes))


def test_a_pattern_holds_every_codebook() -> None:
    with pytest.raises(InputError, match="must hold all 3"):
        FramePattern(layout="depth", stream="codes", cardinalities=SIZES, inline=(0,), slots=slots(0))


@pytest.mark.parametrize(
    "wrong", [{"frame": 3}, {"delay": 0.5}, {"delay": -1}, {"size": 6}, {"codebook": 0, "size": 7}]
)
def test_a_slot_that_has_no_place_is_refused(wrong: dict[str, float]) -> None:
    """As where a file of a model was changed by hand."""
    value = PATTERNS["depth"].to_json()
    value["slots"] = (
        [*value["slots"], {**value["slots"][0], **wrong}]
        if "codebook" in wrong
        else [{**value["slots"][0], **wrong}, value["slots"][1]]
    )
    with pytest.raises(InputError, match="slot|place|twice"):
        FramePattern.from_json(value)
