"""The order of items: the permutation of every epoch as it always was, without holding it whole; memory of a source."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.long_runs import MIXTURES, alone, source, write_shards
from unitok_training.data import hash_rng
from unitok_training.data.hash_rng import EpochOrder


@pytest.mark.parametrize("count", [1, 2, 7, 300, 5000])
def test_the_order_is_that_of_whole_permutations(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_rng, "HELD", 64)
    monkeypatch.setattr(hash_rng, "HELD_SHARE", 50)
    wanted = np.concatenate([np.random.default_rng([3, 9, epoch, 1]).permutation(count) for epoch in range(4)])
    order = EpochOrder(count, (3, 9), (1,))
    for size in (1, 5, 97, 2000):
        found = [order.items(np.arange(start, min(start + size, len(wanted)))) for start in range(0, len(wanted), size)]
        if size > 1 or count < 5000:
            assert np.array_equal(np.concatenate(found), wanted)
    assert [order.item(index) for index in (len(wanted) - 1, 0)] == [wanted[-1], wanted[0]]
    mixed = np.random.default_rng(0).permutation(len(wanted))
    assert np.array_equal(order.items(mixed), wanted[mixed])


def test_a_long_order_is_made_a_few_times_an_epoch_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    drawn = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda keys: made.append(keys) or drawn(keys))
    order = EpochOrder(400_000, (0, 1))
    for start in range(0, 400_000, 1000):
        order.items(np.arange(start, start + 1000))
    assert 2 <= len(made) <= 16, "not once for every example"
    assert order._stretch.nbytes <= 4 * (2 * hash_rng.HELD)


def test_a_source_takes_few_bytes_a_row(tmp_path: Path) -> None:
    """A twentieth of the rows of `benchmarks.long_runs`, where what does not grow with them counts too."""
    folder, few = write_shards(tmp_path / "rows", 50_000, 6000), write_shards(tmp_path / "few", 64, 4)
    found = alone(source, folder, few, MIXTURES["every task of the demo"])
    assert found["megabytes"] < 20, json.dumps(found)
