"""Memory of a process tree."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unitok_training.runs.process_memory import tree_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc, which this system lacks")


def test_a_child_counts_and_a_dead_one_does_not() -> None:
    code = "import time; held = bytearray(60_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(30)"
    own = os.getpid()
    before = tree_bytes([own])[own]
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 20
        while tree_bytes([own])[own] < before + 50_000_000 and time.monotonic() < deadline:
            time.sleep(0.05)
        found = tree_bytes([own, child.pid])
        assert found[own] >= before + 50_000_000
        assert 50_000_000 <= found[child.pid] < found[own]
    finally:
        child.kill()
        child.wait()
    assert tree_bytes([child.pid]) == {child.pid: 0}
    assert tree_bytes([own])[own] < found[own]
