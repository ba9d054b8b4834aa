"""What a run costs: memory of a process tree, read from /proc."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def tree_bytes(roots: Iterable[int]) -> dict[int, int]:
    """Resident bytes of each process with its descendants, from one look; 0 of those that /proc does not know.

    Pages that a fork shares with its parent count once for each of them: the sum is an upper bound, and the same
    whatever else runs. A look reads two files of every process of the machine, some milliseconds: a look each second is
    a hundredth of a core.
    """
    children = _children()
    return {root: sum(map(_resident, _tree(root, children))) for root in roots}


def shared_out_bytes(root: int) -> int:
    """Bytes of a process and its descendants together; pages that they share count once."""
    return sum(_shared_out(pid) or _resident(pid) for pid in _tree(root, _children()))


def _children() -> dict[int, list[int]]:
    """Process → those that it has started, of all processes of the machine."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):  # ended while we looked
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    return children


def _tree(root: int, children: Mapping[int, list[int]]) -> Iterator[int]:
    pending = [root]
    while pending:
        pid = pending.pop()
        yield pid
        pending += children.get(pid, [])


def _resident(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


def _shared_out(pid: int) -> int:
    """Its proportional share of memory; 0 where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def give_back() -> None:
    """Hand memory that is free in this process back to the system, where the C library can (glibc).

    After large arrays came and went; the C library would keep what they had for others that may never come.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
