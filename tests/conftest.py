"""What holds for the whole suite."""

from __future__ import annotations

import gc
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    derandomize=True,  # the same examples each time: a failure is of the change that shows it
    deadline=None,  # machines are busy
    database=None,  # two workers would share it
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


def pytest_configure() -> None:
    """Hear interrupts, which a shell hides from what it starts in the background: tests send them to their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Leave modules out of every later collection: with all tests imported, one look through them takes half a second,
    and each training looks before it begins."""
    gc.collect()
    gc.freeze()
