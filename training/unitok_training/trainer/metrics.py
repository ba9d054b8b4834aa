"""Where the figures of a training run go: JSON Lines, TensorBoard where it is installed, and the terminal.

Rows come every so many steps; in between every step is counted, so that slow ones too give a sign of life.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from unitok_tokenizers.files import atomic_write_bytes
from unitok_tokenizers.progress import Watch, advance, heard

METRICS_FILE, VALIDATION_FILE = "metrics.jsonl", "validation.jsonl"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of a metrics file; a last line that was cut off by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """{"loss": {"asr": 1.0}} → {"loss/asr": 1.0}, numbers only."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        elif isinstance(value, int | float):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def named(values: Mapping[str, Any], name: str) -> float:
    """The number at a dotted place, whose keys may have points of their own (`asr.times`); NaN for none."""
    return {key.replace("/", "."): value for key, value in flatten(values).items()}.get(name, math.nan)


def finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None, which JSON has, for numbers that are not finite, which it has not."""
    return {
        key: finite(value) if isinstance(value, Mapping)
        else None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in values.items()
    }  # fmt: skip


class Reporter:
    """Writes one row per logged step. Only the main process has an active one; the others' do nothing."""

    def __init__(self, out: Path, *, steps: int, start: int, active: bool, console: Console | None = None) -> None:
        self.active = active
        self.steps = steps
        self.path = out / METRICS_FILE
        self.console = console or Console()
        self._board: Any = None
        self._watch: Watch | None = None
        if not active:
            return
        out.mkdir(parents=True, exist_ok=True)
        for path in (self.path, self.path.with_name(VALIDATION_FILE)):
            kept = [row for row in read_metrics(path) if row["step"] <= start] if start else []
            if kept or path.exists() or path == self.path:
                atomic_write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)
        if not heard():  # called as a function: nobody above shows anything
            self._watch = Watch("train").__enter__()
        self.step(start)

    def message(self, text: str) -> None:
        """Say something once."""
        if self.active:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def messages(self, texts: Iterable[str]) -> None:
        """Say several things."""
        for text in texts:
            self.message(text)

    def step(self, done: int, loss: float | None = None) -> None:
        """So many steps are done; the loss is that of the last one, where it is at hand without waiting for a GPU."""
        if self.active:
            advance("step", done, self.steps, loss)

    def row(self, row: Mapping[str, Any], said: str | None = None) -> None:
        """Write the figures of a logged step; `said` is its line on the terminal, where it has no losses by task."""
        if not self.active:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
        if self._board is not None:
            for name, value in flatten({key: value for key, value in row.items() if key != "step"}).items():
                self._board.add_scalar(name, value, row["step"])
        self.message(f"step {row['step']}/{self.steps} {self._figures(row) if said is None else said}")

    def validation(self, row: Mapping[str, Any], told: Mapping[str, float] | None = None) -> None:
        """Write the figures of a validation; `told` are the scores that the line of the terminal names."""
        if not self.active:
            return
        with open(self.path.with_name(VALIDATION_FILE), "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(row), allow_nan=False) + "\n")  # what is not finite is the worst, not an end
        if self._board is not None:
            for name, value in flatten({key: value for key, value in row.items() if key != "step"}).items():
                self._board.add_scalar(f"validation/{name}", value, row["step"])
        tasks = " ".join(f"{name} {value:.2f}" for name, value in row["loss_by_task"].items())
        scores = "".join(f", {name} {value:.3f}" for name, value in (told or {}).items())
        best = "the best so far" if row["best_step"] == row["step"] else f"best: step {row['best_step']}"
        self.message(f"step {row['step']}/{self.steps} validation loss {row['loss']:.3f} ({tasks}){scores}, {best}")

    @staticmethod
    def _figures(row: Mapping[str, Any]) -> str:
        tasks = " ".join(f"{name} {value:.2f}" for name, value in row["loss_by_task"].items())
        return f"loss {row['loss']:.3f} ({tasks}) {row['tokens_per_second']:,.0f} tokens/s"

    def close(self) -> None:
        """Flush and give the terminal back."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
        if self._board is not None:
            self._board.close()
