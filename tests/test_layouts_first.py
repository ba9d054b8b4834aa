"""The first pass of layouts with a second one: what given frames add, and that nothing is predicted beside the id."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.code_spans import SIZES, STREAM
from unitok.layouts.first import FirstConfig, FirstNarLayout, FirstRegressLayout, readable
from unitok.second_passes.base import greedy, refined_codebooks, refined_slots
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo

SLOTS = torch.tensor([[1, 2], [-1, 3], [-1, -1], [4, -1]])
PATTERN = FirstNarLayout.pattern_for(STREAM, FirstConfig())


@pytest.mark.parametrize("kind", [FirstNarLayout, FirstRegressLayout])
def test_codebook_0_stands_in_the_sequence_and_the_others_are_refined(kind: type[FirstNarLayout]) -> None:
    pattern = kind.pattern_for(STREAM, FirstConfig())
    assert pattern.layout == kind.name and pattern.inline == (0,)
    assert refined_codebooks(pattern) == (1, 2) and refined_slots(pattern) == (0, 1)
    assert not pattern.plain and pattern.flush == 0 and pattern.positions(7) == 7
    codes = np.random.default_rng(0).integers(SIZES, size=(7, 3))
    assert np.array_equal(pattern.gather(*pattern.lay(codes)), codes)
    with pytest.raises(InputError, match="several codebooks"):
        kind.pattern_for(StreamInfo("codes", "codes", "c", None, (8,)), FirstConfig())


def test_given_frames_add_rows_only_where_sums_are_asked_for() -> None:
    summed = FirstNarLayout(FirstConfig(sums=True), PATTERN, width=6)
    assert summed.vectors(SLOTS).abs().sum(1).gt(0).tolist() == [True, True, False, True]
    alone = FirstNarLayout(FirstConfig(), PATTERN, width=6)
    assert not list(alone.parameters())
    assert alone.vectors(SLOTS).shape == (4, 6) and not alone.vectors(SLOTS).any()


def test_refined_codes_are_readable_only_where_they_are_given() -> None:
    found = readable(PATTERN, SLOTS, torch.tensor([0.0, 1.0, 0.0, 0.5]))
    assert found.tolist() == [[1, 2], [-1, -1], [-1, -1], [-1, -1]]


def test_nothing_is_predicted_or_lost_step_by_step() -> None:
    model = FirstNarLayout(FirstConfig(), PATTERN, width=6)
    losses = model.losses(torch.randn(4, 6), torch.randn(4, 6), SLOTS, torch.ones(4))
    assert losses.total.tolist() == losses.weight.tolist() == [0.0, 0.0]
    codes, logprobs = model.step(torch.randn(3, 6), torch.randn(3, 6), torch.zeros(3, dtype=torch.int64), greedy)
    assert codes.tolist() == [[-1, -1]] * 3 and codes.dtype == torch.int64 and not logprobs.any()
