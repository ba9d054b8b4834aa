"""Garbage collection at known steps: a collection of its own choosing stops a step for as long as half a second."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COLLECT_EVERY = 500
"""Steps between two collections: all that a step makes is freed by reference counts, cycles are rare."""


@contextmanager
def controlled_collection(every: int = COLLECT_EVERY) -> Iterator[Callable[[int], None]]:
    """Yield a function of the step that collects young objects every `every` steps; nothing else collects meanwhile.

    What exists before (modules, weights, shards) is old by then and never looked through. The collector is as before at
    the end.
    """
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()

    def collect(step: int) -> None:
        if step % every == 0:
            gc.collect(1)

    try:
        yield collect
    finally:
        if enabled:
            gc.enable()
