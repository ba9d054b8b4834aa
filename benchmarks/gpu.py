"""`python -m benchmarks gpu [--device cuda|cpu] [--seconds 480] [--rows NAME …] [-o runs/gpu]`: one call, every check.

What a GPU computes is compared with what the processor computes, then it is timed. Each row is one line, printed and
appended to `rows.jsonl` as it ends: PASS, FAIL with the reason, or NOT RUN where the time that is left would not do. A
row that fails stops no other. Exit code 0 where all that ran passed, 1 where one failed, 2 where there is no GPU.

`--device cpu` runs the same comparisons with tiny shapes, the processor against itself: a check of the checks.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from unitok_tokenizers.compute import resolve_device
from unitok_tokenizers.errors import InputError

SECONDS = 480.0
"""Of one call: what a short booking of a GPU allows."""
KEPT = 10.0
"""Seconds that are left to write and end."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a row is given."""

    device: torch.device
    """What is checked."""
    folder: Path
    """Scratch files."""
    figures: dict[str, float] = field(default_factory=dict)
    """What earlier rows measured, such as the rate of matrix products."""

    @property
    def gpu(self) -> bool:
        """Whether the shapes are those of a GPU."""
        return self.device.type == "cuda"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One check or measurement."""

    name: str
    """As `--rows` names it."""
    run: Callable[[Setting], str]
    """Returns what it found; an error is a failure."""
    least: float
    """Seconds without which it is not begun."""
    gpu_only: bool = False
    """There is nothing to see on a processor."""


class OutOfTime(Exception):
    """A row took all that was left."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the block after so many seconds, between two instructions of Python."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise OutOfTime(f"stopped after {seconds:.0f} s: the call's time was used up")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Append what the block prints to a file; warnings of kernels that are used instead of others are expected."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def attempt(row: Row, setting: Setting, left: float) -> dict[str, Any]:
    """Run one row; what its line says."""
    begin = time.monotonic()
    try:
        with within(left), quiet(setting.folder / "log.txt"):
            said = row.run(setting)
            if setting.gpu:
                torch.cuda.synchronize(setting.device)  # an error of this row is told with it
        found = {"row": row.name, "result": "PASS", "said": said}
    except Exception as error:  # whatever a row meets is its result
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(f"{type(error).__name__} {error}".split())[:600]
        found = {"row": row.name, "result": "FAIL", "said": f"{reason} ({Path(where.filename).name}:{where.lineno})"}
    if setting.gpu:
        torch.cuda.empty_cache()
    return found | {"seconds": round(time.monotonic() - begin, 1)}


def run_rows(rows: Sequence[Row], setting: Setting, out: Path, seconds: float) -> list[dict[str, Any]]:
    """Run rows in order within a time; their lines are in `out`/rows.jsonl as each ends."""
    out.mkdir(parents=True, exist_ok=True)
    end, found = time.monotonic() + seconds - KEPT, []
    with (out / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            left = end - time.monotonic()
            if row.gpu_only and not setting.gpu:
                one = {"row": row.name, "result": "NOT RUN", "said": "only a GPU has this", "seconds": 0.0}
            elif left < row.least:
                said = f"{max(left, 0):.0f} s were left and it takes {row.least:.0f}"
                one = {"row": row.name, "result": "NOT RUN", "said": said, "seconds": 0.0}
            else:
                one = attempt(row, setting, left)
            found.append(one)
            file.write(json.dumps(one) + "\n")
            file.flush()
            print(f"{one['result']:7} {one['row']:22} {one['seconds']:6.1f} s  {one['said']}", flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and say how many passed; returns the exit code."""
    from benchmarks import gpu_rows, gpu_speed, machine

    rows = [*gpu_rows.ROWS, *gpu_speed.ROWS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for tiny shapes (default: cuda)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of the whole call (default: %(default)s)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help=f"some of: {', '.join(row.name for row in rows)}")
    parser.add_argument("-o", "--out", default="runs/gpu", help="folder of rows.jsonl (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        device = resolve_device(options.device)
        names = [row.name for row in rows]
        unknown = [name for name in options.rows or () if name not in names]
        if unknown:
            raise InputError(f"no row {unknown[0]!r}; choose from {', '.join(names)}")
    except InputError as error:
        print(f"benchmarks gpu: {error}", file=sys.stderr)
        return 2
    out = Path(options.out)
    described = machine.describe() | {"device": str(device), "seconds": options.seconds}
    out.mkdir(parents=True, exist_ok=True)
    (out / "machine.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    chosen = [row for row in rows if not options.rows or row.name in options.rows]
    found = run_rows(chosen, Setting(device=device, folder=out / "work"), out, options.seconds)
    counts = {kind: sum(one["result"] == kind for one in found) for kind in ("PASS", "FAIL", "NOT RUN")}
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()) + f" · {out / 'rows.jsonl'}")
    return 1 if counts["FAIL"] else 0
