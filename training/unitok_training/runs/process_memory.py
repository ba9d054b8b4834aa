"""What a run costs: memory of a process tree, read from /proc."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_bytes(roots: Iterable[int]) -> dict[int, int]:
    """Bytes that each process holds with its descendants, from one look; 0 of those that /proc does not know.

    Pages that several processes share, such as those of a fork, are shared out among them. A look reads a file of every
    process of the machine, some milliseconds: a look each second is a hundredth of a core.
    """
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, IndexError, ValueError):
            continue  # ended while we looked
        children.setdefault(int(fields[1]), []).append(int(entry.name))
    held: dict[int, int] = {}
    return {root: _sum_of_tree(root, children, held) for root in roots}


def _sum_of_tree(root: int, children: dict[int, list[int]], held: dict[int, int]) -> int:
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        if pid not in held:
            held[pid] = _own_bytes(Path(f"/proc/{pid}"))
        total += held[pid]
        pending += children.get(pid, [])
    return total


def _own_bytes(process: Path) -> int:
    """Its proportional share of memory, or all that is resident where the system does not tell shares."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    except OSError:
        pass
    try:
        return int((process / "statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def give_back() -> None:
    """Hand memory that is free in this process back to the system, where the C library can (glibc).

    After large arrays came and went; the C library would keep what they had for others that may never come.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
