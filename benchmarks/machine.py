"""The machine that measures: what it is, whether it is quiet, and the two rates that bound everything on it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from unitok_tokenizers.errors import InputError

BUSY_SHARE = 0.15
"""Share of all cores that other work may take before a measurement is refused."""
LOOK_SECONDS = 2.0


def describe() -> dict[str, Any]:
    """What a reader must know to compare a figure."""
    import numpy

    found: dict[str, Any] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
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


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    """Commit of the source, with `+` where files differ from it; empty outside a repository."""
    root = Path(__file__).resolve().parents[1]
    try:
        head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
        state = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True)
    except OSError:
        return ""
    return head.stdout.strip() + ("+" if state.stdout.strip() else "")


def _ticks() -> tuple[int, int]:
    """(busy, all) clock ticks of all cores so far."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)  # idle and waiting for a disk are not busy


def busy_share(seconds: float = LOOK_SECONDS) -> float:
    """Share of all cores in use while this process sleeps: other people's work. 0 where the system does not say."""
    try:
        busy, total = _ticks()
        time.sleep(seconds)
        busy_after, total_after = _ticks()
    except (OSError, ValueError, IndexError):
        return 0.0
    return (busy_after - busy) / max(total_after - total, 1)


def check_quiet(force: bool) -> float:
    """The busy share; InputError where it is too high and `force` is not set."""
    share = busy_share()
    if share > BUSY_SHARE and not force:
        raise InputError(
            f"other work uses {share:.0%} of the processor, at most {BUSY_SHARE:.0%} leaves a timing meaningful: "
            "wait until it has ended, or give --force (the results then say so)"
        )
    return share


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
