"""Checkpoints written beside training: they hold the moment of the call, and their errors are not lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from tests.soak import digest
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint import Checkpoint, list_checkpoints, random_states, read_checkpoint, save_checkpoint
from unitok_training.saving import BackgroundSaver


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
