"""Figures of some steps: what counts as bits of a codec, and what a run that stops keeps of them."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.tiny_model import tiny_model
from unitok_training.objectives.base import TOKENS, BatchLosses
from unitok_training.objectives.token_loss import TokenLosses
from unitok_training.trainer.distributed import World
from unitok_training.trainer.figures import BITS, Figures

KEYS = ("tts.units", "tts.codes")


def figures(rows: list[tuple[int, int, float]]) -> Figures:
    """Of labels: (task, id, loss) each."""
    tasks, labels, losses = (torch.tensor(column) for column in zip(*rows))
    made = Figures(KEYS, tiny_model().vocabulary, [TOKENS], World())
    tokens = TokenLosses(total=losses.sum(), losses=losses, labels=labels, task_ids=tasks)
    found = BatchLosses(terms={TOKENS: losses.sum()}, tokens=tokens, used=1, positions=1, supervised=len(rows))
    made.add(found, {TOKENS: float(len(rows))})
    return made


def test_units_that_share_the_ids_of_a_codec_are_no_codes_of_it() -> None:
    vocabulary = tiny_model().vocabulary
    books = vocabulary.block_ranges("codes")
    assert vocabulary.streams["units"].views == "codes" and len(books) > 1
    codes = [(1, start, 2.0) for start, _ in books]
    units = [(0, books[0][0] + 1, 0.5)] * 9
    alone, mixed = figures(codes).read(), figures(codes + units).read()
    rate = float(vocabulary.streams["codes"].frame_rate or 0)
    assert alone[BITS] == mixed[BITS] == {"codes": pytest.approx(2.0 * rate * len(books) / math.log(2))}
    assert mixed["loss_by_stream"]["codes.0"] == pytest.approx((2.0 + 9 * 0.5) / 10), "by stream every id counts"
    assert BITS not in figures(units).read()


def test_what_was_summed_up_goes_on() -> None:
    books = tiny_model().vocabulary.block_ranges("codes")
    stopped = figures([(1, start, 2.0) for start, _ in books])
    state, wanted = stopped.state(), stopped.read()
    again = figures([(0, books[0][0], 9.0)])
    again.load(state)
    found = again.read()
    assert {**found, "seconds": 0, "tokens_per_second": 0} == {**wanted, "seconds": 0, "tokens_per_second": 0}
