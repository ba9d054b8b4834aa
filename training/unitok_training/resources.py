"""What a run costs: resident memory of a process tree, read from /proc."""

from __future__ import annotations

import os
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_bytes(root: int) -> int:
    """Resident bytes of a process and its descendants; 0 where /proc does not exist.

    Pages that a fork shares with its parent count once for each of them: the sum is an upper bound.
    """
    parents: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pages = int((entry / "statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # ended while we looked
        pid = int(entry.name)
        parents.setdefault(int(fields[1]), []).append(pid)
        resident[pid] = pages * PAGE_BYTES
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        total += resident.get(pid, 0)
        pending += parents.get(pid, [])
    return total


class TreeMemory:
    """The largest resident memory that a process tree was seen with."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0

    def sample(self) -> int:
        """Look once; returns the present bytes."""
        now = tree_bytes(self.pid)
        self.peak_bytes = max(self.peak_bytes, now)
        return now
