"""The first pass of layouts with a second one: what given frames add, and that nothing is predicted beside the id."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.support.code_spans import SIZES, STREAM
from unitok.layouts.first import FirstConfig, FirstPass, first_nar_pattern, first_regress_pattern, readable
from unitok.layouts.second_pass import greedy, refined_codebooks, refined_slots
from unitok_tokenizers.grammar.frames import FramePattern

SLOTS = torch.tensor([[1, 2], [-1, 3], [-1, -1], [4, -1]])


def first(*, sums: bool) -> FirstPass:
    options = FirstConfig(width=6, sums=sums)
    return FirstPass(first_nar_pattern(STREAM), options, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [first_nar_pattern, first_regress_pattern])
def test_codebook_0_stands_in_the_sequence_and_the_others_are_refined(make: object) -> None:
    assert callable(make)
    pattern: FramePattern = make(STREAM)
    assert pattern.inline == (0,) and refined_codebooks(pattern) == (1, 2) and refined_slots(pattern) == (0, 1)
    assert not pattern.plain and pattern.flush == 0 and pattern.positions(7) == 7
    codes = np.random.default_rng(0).integers(SIZES, size=(7, 3))
    assert np.array_equal(pattern.gather(*pattern.lay(codes)), codes)
    assert FramePattern.from_json(json.loads(json.dumps(pattern.to_json()))) == pattern


def test_given_frames_add_the_rows_of_their_codes_where_sums_are_asked_for() -> None:
    model = first(sums=True)
    second, third = model.tables
    wanted = torch.stack([second[1] + third[2], third[3], torch.zeros(6), second[4]])
    assert torch.allclose(model.vectors(SLOTS), wanted)
    alone = first(sums=False)
    assert not list(alone.parameters()) and not alone.vectors(SLOTS).any() and alone.vectors(SLOTS).shape == (4, 6)


def test_refined_codes_are_readable_only_where_they_are_given() -> None:
    found = readable(first_nar_pattern(STREAM), SLOTS, torch.tensor([0.0, 1.0, 0.0, 0.5]))
    assert found.tolist() == [[1, 2], [-1, -1], [-1, -1], [-1, -1]]


def test_nothing_is_predicted_or_lost_step_by_step() -> None:
    model = first(sums=True)
    losses = model.losses(torch.randn(4, 6), torch.randn(4, 6), SLOTS, torch.ones(4))
    assert losses.total.tolist() == losses.weight.tolist() == [0.0, 0.0]
    codes, logprobs = model.step(torch.randn(3, 6), torch.randn(3, 6), torch.zeros(3, dtype=torch.int64), greedy)
    assert codes.tolist() == [[-1, -1]] * 3 and codes.dtype == torch.int64 and not logprobs.any()


@pytest.mark.parametrize("sums", [True, False])
def test_it_is_built_again_from_its_config_and_weights(sums: bool) -> None:
    model = first(sums=sums)
    again = FirstPass.from_config(json.loads(json.dumps(model.config())), torch.Generator().manual_seed(9))
    again.load_state_dict(model.state_dict())
    assert again.config() == model.config() and torch.equal(again.vectors(SLOTS), model.vectors(SLOTS))
