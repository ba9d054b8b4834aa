"""Checkpoints written beside training, by one process or several: they hold the moment of the call, whole or not at
all, and their errors are not lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tools.soak import digest
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.background import BackgroundSaver
from unitok_training.checkpoint.shard_files import Share
from unitok_training.checkpoint.state import (
    Checkpoint,
    latest_checkpoint,
    list_checkpoints,
    random_states,
    read_checkpoint,
    save_checkpoint,
)


def checkpoint(value: torch.Tensor) -> Checkpoint:
    return Checkpoint(model={"w": value}, optimizer={"w|m": value * 2}, rng=random_states(), state={"data": {}})


def test_a_checkpoint_holds_the_moment_of_the_call(tmp_path: Path) -> None:
    saver, weights = BackgroundSaver(), torch.ones(1000)
    saver.save(tmp_path, checkpoint(weights), step=1, keep=5)
    saver.wait()
    assert saver.process is not None and saver.process.pid != os.getpid()
    os.kill(saver.process.pid, signal.SIGSTOP)
    weights.fill_(3)
    saver.save(tmp_path, checkpoint(weights), step=2, keep=5)
    assert len(list_checkpoints(tmp_path)) == 1, "training does not wait for a process that stands still"
    weights.fill_(7)  # training goes on
    os.kill(saver.process.pid, signal.SIGCONT)
    saver.save(tmp_path, checkpoint(weights), step=3, keep=5)
    saver.wait()
    saver.close()
    found = [read_checkpoint(path) for path in list_checkpoints(tmp_path)]
    assert [float(one.model["w"][0]) for one in found] == [1, 3, 7]
    assert found[1].optimizer["w|m"].eq(6).all() and found[2].state["step"] == 3


def test_the_process_writes_the_files_that_a_plain_save_does(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 5).bfloat16(), "b": torch.tensor(4.0), "c": torch.arange(7), "d": torch.zeros(0, 4)}
    given = Checkpoint(model=tensors, optimizer={}, rng=random_states(), state={"data": {"window": 1}})
    saver = BackgroundSaver()
    saver.save(tmp_path / "beside", given, step=1, keep=1)
    saver.wait()
    saver.close()
    save_checkpoint(tmp_path / "plain", given, step=1)
    assert digest(tmp_path / "beside") == digest(tmp_path / "plain")
    again = read_checkpoint(tmp_path / "beside/step_00000001")
    assert all(torch.equal(again.model[name], value) for name, value in tensors.items())


def test_a_writer_that_is_killed_is_told_and_replaced(tmp_path: Path) -> None:
    saver = BackgroundSaver()
    saver.save(tmp_path, checkpoint(torch.ones(3)), step=1, keep=5)
    saver.wait()
    assert saver.process is not None
    os.kill(saver.process.pid, signal.SIGSTOP)
    saver.save(tmp_path, checkpoint(torch.ones(3)), step=2, keep=5)
    saver.process.kill()
    with pytest.raises(InputError, match="ended with code -9; the one before is whole"):
        saver.wait()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001"]
    saver.save(tmp_path, checkpoint(torch.ones(3)), step=2, keep=5)
    saver.wait()
    saver.close()
    assert len(list_checkpoints(tmp_path)) == 2


def test_an_error_of_a_write_comes_with_the_next_call(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    saver = BackgroundSaver()
    saver.save(blocked / "checkpoints", checkpoint(torch.ones(2)), step=1, keep=1)
    with pytest.raises((InputError, OSError)):
        saver.wait()
    saver.wait()
    saver.save(tmp_path / "good", checkpoint(torch.ones(2)), step=1, keep=1)
    saver.wait()
    saver.close()
    assert len(list_checkpoints(tmp_path / "good")) == 1


WHOLE = torch.arange(40.0).view(10, 4)
"""A weight of which the first process holds six rows and the second one four."""


@pytest.fixture
def pair() -> Iterator[list[BackgroundSaver]]:
    """The savers of two processes."""
    savers = [BackgroundSaver(), BackgroundSaver()]
    yield savers
    for saver in savers:
        if saver.process is not None:
            saver.process.kill()
        saver.close()


def save_share(saver: BackgroundSaver, folder: Path, rank: int, step: int, keep: int = 5, mark: str = "") -> None:
    """What a process of a run on two saves at a step; the second one has no random states and no step's number."""
    first, rows = (0, WHOLE[:6]) if rank == 0 else (6, WHOLE[6:])
    slices, offsets = {"model|w": rows + step, "optimizer|w|m": rows * step}, {"model|w": [first, 0]}
    offsets["optimizer|w|m"] = [first, 0]
    if rank == 0:
        slices["optimizer|w|step"], offsets["optimizer|w|step"] = torch.tensor(float(step)), []
    share = Share(rank=rank, size=2, mark=mark or f"save-{step}", offsets=offsets)
    parts = {"slices": slices, **({"rng": random_states()} if rank == 0 else {})}
    saver.save_share(folder, parts, {"data": {"pack": step}}, share, step=step, keep=keep)


def test_a_checkpoint_of_two_processes_has_its_name_when_both_have_written(
    pair: list[BackgroundSaver], tmp_path: Path
) -> None:
    for step in (1, 2):
        for rank, saver in enumerate(pair):
            save_share(saver, tmp_path, rank, step)
    for saver in pair:
        saver.wait()
    for step in (1, 2):
        found = read_checkpoint(tmp_path / f"step_{step:08d}")
        assert torch.equal(found.model["w"], WHOLE + step) and torch.equal(found.optimizer["w|m"], WHOLE * step)
        assert found.optimizer["w|step"] == step and found.state["data"] == {"pack": step} and "cpu" in found.rng
    names = {"rng.safetensors", "shards", "state.json"}
    assert {file.name for file in (tmp_path / "step_00000002").iterdir()} == names
    assert pair[1].process is not None
    os.kill(pair[1].process.pid, signal.SIGSTOP)
    for rank, saver in enumerate(pair):
        save_share(saver, tmp_path, rank, 3, keep=1)
    time.sleep(0.3)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000001", "step_00000002"]
    os.kill(pair[1].process.pid, signal.SIGCONT)
    for saver in pair:
        saver.wait()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step_00000003"], "keep=1"


@pytest.mark.parametrize("killed", [0, 1])
def test_a_save_that_one_of_two_is_killed_in_leaves_the_one_before(
    killed: int, pair: list[BackgroundSaver], tmp_path: Path
) -> None:
    for rank, saver in enumerate(pair):
        save_share(saver, tmp_path, rank, 1)
    for saver in pair:
        saver.wait()
    process = pair[killed].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    for rank, saver in enumerate(pair):
        save_share(saver, tmp_path, rank, 2)
    process.kill()
    with pytest.raises(InputError, match="ended with code -9; the one before is whole"):
        pair[killed].wait()
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.state["step"] == 1 and torch.equal(found.model["w"], WHOLE + 1)
    other = pair[1 - killed]
    assert other.process is not None
    other.process.kill()  # as its own process's end would
    with pytest.raises(InputError, match="ended with code -9"):
        other.wait()
    for rank, saver in enumerate(pair):  # what the killed ones left is in nobody's way
        save_share(saver, tmp_path, rank, 2, mark="another")
    for saver in pair:
        saver.wait()
    assert torch.equal(read_checkpoint(tmp_path / "step_00000002").model["w"], WHOLE + 2)
    assert not list(tmp_path.glob(".step_*"))
