"""The machine that measures: what it is, whether a figure of it may be published, and the two rates that bound it.

A figure is published where the source is a commit and other work leaves the processor alone, before and while it is
measured. `--force` measures all the same, and every row then says so.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unitok_tokenizers.compute import PRECISION_VARIABLE, processor_name, resolve_precision
from unitok_tokenizers.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ("benchmarks/results.json", "benchmarks/RESULTS.md")
"""Files that measuring itself changes."""
BUSY_SHARE = 0.15
"""Share of all cores that other work may take before a measurement is refused."""
LOOK_SECONDS = 2.0
HOLDING = (PRECISION_VARIABLE, "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "CXXFLAGS")
"""Variables that make a processor play a lesser one."""


def describe() -> dict[str, Any]:
    """What a reader must know to compare a figure."""
    import numpy

    found: dict[str, Any] = {
        "processor": processor_name(),
        "bfloat16": bfloat16(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "held_to": {name: os.environ[name] for name in HOLDING if os.environ.get(name)},
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "commit": commit(),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found["gpu"] = {"name": properties.name, "memory_bytes": properties.total_memory}
    return found


def kind() -> str:
    """The kind of processor that rows are kept apart by: its name and units, what it is held to, its GPU."""
    parts = [processor_name()]
    held = [os.environ[name] for name in HOLDING[:2] if os.environ.get(name)]
    if held:
        parts.append(f"held to {' '.join(held)}")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_properties(0).name)
    return ", ".join(parts)


def bfloat16() -> bool:
    """Whether bfloat16 is a precision to measure here: by units of the device, or because somebody asks for it."""
    return resolve_precision(device=torch.device("cuda" if torch.cuda.is_available() else "cpu")) != "fp32"


def _git(*arguments: str, root: Path) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def changed_files(root: Path = ROOT) -> list[str]:
    """Files that differ from the commit or are not in it, apart from the results."""
    lines = _git("status", "--porcelain", "--untracked-files=all", root=root).splitlines()
    return [name for line in lines if (name := line[3:].strip('"')) not in WRITTEN]


def commit(root: Path = ROOT) -> str:
    """Commit of the source, with `+` where files differ from it; empty outside a repository."""
    head = _git("rev-parse", "--short", "HEAD", root=root).strip()
    return head + ("+" if head and changed_files(root) else "")


def check_commit(force: bool, root: Path = ROOT) -> str:
    """The commit; InputError where the source is not one and `force` is not set."""
    found = commit(root)
    if force or (found and not found.endswith("+")):
        return found
    reason = f"{', '.join(changed_files(root)[:3])} not committed" if found else "the source is no git checkout"
    raise InputError(f"{reason}: a row must name what was measured; commit it, or give --force (the rows then say so)")


def _ticks() -> tuple[int, int]:
    """(busy, all) clock ticks of all cores so far."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)  # idle and waiting for a disk are not busy


def _own_ticks() -> int:
    """Clock ticks of this process, of what it has started, and of what these have started."""
    parents, spent = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile, and its parent counts it
            continue
        process = int(path.parent.name)
        parents[process], spent[process] = int(fields[1]), sum(map(int, fields[11:15]))
    mine = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return sum(spent.get(process, 0) for process in mine)


class Watch:
    """Share of all cores that other work takes while a block runs; 0 where the system does not say."""

    share: float = 0.0

    def __enter__(self) -> Watch:
        self._start = self._look()
        return self

    def __exit__(self, *_: object) -> None:
        before, after = self._start, self._look()
        if before is not None and after is not None:
            busy, own, total = (late - early for early, late in zip(before, after))
            self.share = min(max(busy - own, 0) / max(total, 1), 1.0)

    def _look(self) -> tuple[int, int, int] | None:
        try:
            busy, total = _ticks()
            return busy, _own_ticks(), total
        except (OSError, ValueError, IndexError):
            return None


def busy_share(seconds: float = LOOK_SECONDS) -> float:
    """Share of all cores in use while this process sleeps: other people's work. 0 where the system does not say."""
    with Watch() as watch:
        time.sleep(seconds)
    return watch.share


def check_quiet(force: bool, share: float | None = None) -> float:
    """The busy share, now or as it was watched; InputError where it is too high and `force` is not set."""
    found = busy_share() if share is None else share
    if found > BUSY_SHARE and not force:
        raise InputError(
            f"other work {'uses' if share is None else 'used'} {found:.0%} of the processor, at most {BUSY_SHARE:.0%} "
            "leaves a timing meaningful: wait until it has ended, or give --force (the rows then say so)"
        )
    return found


def best_seconds(function: Any, repeats: int) -> float:
    """Shortest of several calls after one to warm up: a rate that the machine can reach."""
    function()
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def gemm_rate(shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, *, repeats: int = 8) -> float:
    """FLOP/s of matrix products (M, K) × (K, N) at the given (M, K, N), their times added up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    flops = seconds = 0.0
    for rows, inner, columns in shapes:
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        flops += 2.0 * rows * inner * columns
        seconds += best_seconds(lambda left=left, right=right: torch.nn.functional.linear(left, right), repeats)
    return flops / seconds


def read_bandwidth(size: int = 1 << 30, *, repeats: int = 8) -> float:
    """Bytes/s at which memory is read: the sum of `size` bytes, the best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    buffer = torch.ones(size // 4, dtype=torch.float32, device=device)
    return size / best_seconds(lambda: buffer.sum(), repeats)
