"""Stages of a pipeline in this process, one after another: for what they make, not for how they are started."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from unitok_training.runs.stage_process import stage


@dataclass
class Ended:
    """A stage that has run."""

    code: int
    pid: int = field(default_factory=os.getpid)

    def poll(self) -> int:
        return self.code

    def wait(self) -> int:
        return self.code

    def terminate(self) -> None:
        """It has ended."""


class StagesHere:
    """Stands for `Stages`; `test_experiments_demo.py` runs a graph in processes of its own."""

    def __init__(self, run: Path, modules: Iterable[str], *, forks: bool) -> None:
        pass

    def start(self, words: Sequence[str], *, threads: int, precision: Mapping[str, str], log: Path) -> Ended:
        with pytest.MonkeyPatch.context() as patch, open(log, "w", encoding="utf-8") as out:
            for name, value in precision.items():
                patch.setenv(name, value)
            with redirect_stdout(out), redirect_stderr(out):
                return Ended(stage(words))

    def close(self) -> None:
        """Nothing is left."""


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pipeline runs its stages so, and waits for nothing."""
    monkeypatch.setattr("unitok_training.runs.stage_graph.Stages", StagesHere)
    monkeypatch.setattr("unitok_training.runs.stage_graph.POLL_SECONDS", 0.0)
