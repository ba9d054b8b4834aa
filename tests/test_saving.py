"""Checkpoints written beside training: they hold the moment of the call, and their errors are not lost."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from unitok_tokenizers.errors import InputError
from unitok_training import saving
from unitok_training.checkpoint import Checkpoint, list_checkpoints, random_states, read_checkpoint
from unitok_training.saving import BackgroundSaver


def checkpoint(value: torch.Tensor) -> Checkpoint:
    return Checkpoint(model={"w": value}, optimizer={"w|m": value * 2}, rng=random_states(), state={"data": {}})


def test_a_checkpoint_holds_the_moment_of_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, write = threading.Event(), saving.save_checkpoint

    def late(*given: object, **named: object) -> object:
        assert gate.wait(30)
        return write(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "save_checkpoint", late)
    saver, weights = BackgroundSaver(), torch.ones(1000)
    begin = time.perf_counter()
    saver.save(tmp_path, checkpoint(weights), step=1, keep=5)
    assert time.perf_counter() - begin < 20 and not list_checkpoints(tmp_path), "the write has not begun"
    weights.fill_(7)  # training goes on
    gate.set()
    saver.save(tmp_path, checkpoint(weights), step=2, keep=5)
    saver.wait()
    first, second = (read_checkpoint(path) for path in list_checkpoints(tmp_path))
    assert first.model["w"].eq(1).all() and first.optimizer["w|m"].eq(2).all()
    assert second.model["w"].eq(7).all() and second.state["step"] == 2


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
    assert len(list_checkpoints(tmp_path / "good")) == 1
