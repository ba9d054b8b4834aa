"""The order of items: the permutation of every epoch as it always was, without holding it whole; memory of a source."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from benchmarks.long_runs import MIXTURES, alone, source, vocabulary, write_shards
from unitok_tokenizers.data.shards import Shards
from unitok_training.data import columns, hash_rng
from unitok_training.data.examples import ExampleSource
from unitok_training.data.hash_rng import EpochOrder
from unitok_training.data.mixture import Mixture


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


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A twentieth of the rows of `benchmarks.long_runs`, and a few."""
    place = tmp_path_factory.mktemp("rows")
    return write_shards(place / "rows", 50_000, 6000), write_shards(place / "few", 64, 4)


def test_a_source_takes_few_bytes_a_row(folders: tuple[Path, Path]) -> None:
    """Where what does not grow with the rows counts too."""
    found = alone(source, *folders, MIXTURES["every task of the demo"])
    assert found["megabytes"] < 20, json.dumps(found)


def test_a_source_is_made_in_little_more_memory_than_it_holds(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "STRETCH", 1 << 10)  # of 50,000 rows what it is of a million and more
    made, mixture = [], Mixture(tasks=dict.fromkeys(MIXTURES["every task of the demo"], 1.0))

    def make(folder: Path) -> None:
        made.append(ExampleSource(Shards.open(folder), vocabulary(), mixture, seed=0))
        made[-1].check(4096)

    make(folders[1])  # and whatever is imported for it
    tracemalloc.start()
    try:
        make(folders[0])
        held, peak = (size / 50_000 for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert held < 54, f"{held:.1f} bytes a row; 60 with what is read of files"
    assert peak < 90, f"{peak:.1f} bytes a row; a million rows may take 100 MB"
    assert "table" not in vars(made[-1].shards.folders[0].shards), "files are opened again where they are needed"
