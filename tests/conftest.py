"""What holds for the whole suite."""

from __future__ import annotations

import gc
import signal


def pytest_configure() -> None:
    """Hear interrupts, which a shell hides from what it starts in the background: tests send them to their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave modules out of every later collection: with all tests imported, one look through them takes half a second,
    and each training looks before it begins."""
    gc.collect()
    gc.freeze()
