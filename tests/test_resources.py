"""Memory of a process tree and stage times."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from unitok_training.resources import PROC, StageTimes, TreeMemory, tree_pids

pytestmark = pytest.mark.skipif(not PROC.is_dir(), reason="reads /proc, which this system lacks")


def test_a_child_counts_and_a_dead_one_does_not() -> None:
    code = "import time; held = bytearray(60_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(30)"
    before = TreeMemory(os.getpid()).sample()
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        memory = TreeMemory(os.getpid())
        deadline = time.monotonic() + 20
        while memory.sample() < before + 50_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert child.pid in tree_pids(os.getpid())
        assert memory.peak_bytes >= before + 50_000_000
    finally:
        child.kill()
        child.wait()
    assert child.pid not in tree_pids(os.getpid())
    assert TreeMemory(child.pid).sample() == 0


def test_stages_add_up_and_watching_finds_a_peak() -> None:
    times = StageTimes()
    with times.watch(interval=0.01):
        for _ in range(2):
            with times.stage("a"):
                time.sleep(0.02)
    assert times.seconds["a"] >= 0.04 and times.peak_bytes > 10_000_000
