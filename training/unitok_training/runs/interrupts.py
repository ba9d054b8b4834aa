"""SIGTERM while stages run: they are asked to stop as by Ctrl-C, and what trains among them saves first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came; without a handler the process would end at once, and its stages with it."""

    number = int(signal.SIGTERM)


@contextmanager
def termination_raises() -> Iterator[None]:
    """Raise `Terminated` where SIGTERM comes; a second one ends the process at once (main thread only)."""
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, before)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
