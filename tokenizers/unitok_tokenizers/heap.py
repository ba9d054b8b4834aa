"""How the C library keeps the memory that work on a processor asks for."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
"""Environment variable by which glibc is tuned."""
MAPPED_BYTES = 1 << 20
"""Smallest block of memory that a training process asks the system for by itself."""


def map_large_blocks() -> bool:
    """Let glibc ask the system for every large block by itself, and give it back when it is free.

    For training on a processor: torch's blocks are aligned, and glibc does not put an aligned block into a hole of its
    own size. The holes of each step's passing tensors add up to a tenth to two thirds of what the tensors themselves
    take. Blocks that are mapped leave none; but the system clears their pages anew, which takes some hundredths of a
    step's time on one machine and a third of it on a virtual one: for where memory is short.
    False where another C library allocates.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None) if platform.libc_ver()[0] == "glibc" else None
    if allocator is None:
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    return bool(allocator(mmap_threshold, MAPPED_BYTES)) and bool(allocator(trim_threshold, 8 * MAPPED_BYTES))


def give_back() -> bool:
    """Give free pages back to the system, wherever in the heap they lie; milliseconds.

    Batches of recordings leave holes of all sizes, and a heap only shrinks by itself at its end: what hours of them
    leave behind grows slowly, though nothing of it is in use. False where another C library allocates.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.libc_ver()[0] == "glibc" else None
    return trim is not None and bool(trim(0))


def huge_pages(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for processes that train on a processor, beside those of an environment: huge pages from glibc.

    Torch asks for aligned blocks, whose remainders glibc leaves in lists that it searches for every other block, and
    that are scattered over memory: after some twenty steps behind SmolLM2-135M, or a hundred of a decoder of a million
    weights, that takes a third to a half of the time. In huge pages it is short. Read when a process starts, so nothing
    for one that runs. None where another C library allocates, or where the environment says how it does.
    """
    if platform.libc_ver()[0] != "glibc" or TUNABLES in environment:
        return {}
    return {TUNABLES: "glibc.malloc.hugetlb=1"}
