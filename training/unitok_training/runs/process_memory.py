"""What a run costs: resident memory of a process tree, read from /proc."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_bytes(roots: Iterable[int]) -> dict[int, int]:
    """Resident bytes of each process with its descendants, from one look; 0 of those that /proc does not know.

    Pages that a fork shares with its parent count once for each of them: the sum is an upper bound. A look reads two
    files of every process of the machine, some milliseconds: a look each second is a hundredth of a core.
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
    return {root: _sum_of_tree(root, parents, resident) for root in roots}


def _sum_of_tree(root: int, parents: dict[int, list[int]], resident: dict[int, int]) -> int:
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        total += resident.get(pid, 0)
        pending += parents.get(pid, [])
    return total


def give_back() -> None:
    """Hand memory that is free in this process back to the system, where the C library can (glibc).

    After large arrays came and went; the C library would keep what they had for others that may never come.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
