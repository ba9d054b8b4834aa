"""SIGTERM and SIGINT while a run trains: the step under way is finished, saved, and the command ends.

A second signal of the same kind does what it does without this: the process ends at once, and the last checkpoint is
the one before.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from unitok_training.trainer.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and has saved; the same command continues it."""

    def __init__(self, number: int, step: int, folder: Path) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name} came: step {step} is saved in {folder}")
        self.number = number


@contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Yield a function that gives the number of the signal that came, 0 before. Only the main thread can catch any."""
    came = [0]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {one: signal.getsignal(one) for one in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        came[0] = number
        signal.signal(number, before[signal.Signals(number)])

    for one in SIGNALS:
        signal.signal(one, note)
    try:
        yield lambda: came[0]
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def agreed_signal(number: int, world: World) -> int:
    """The signal that any process was sent, in all processes, which call this together; 0 where none was."""
    if world.size == 1:
        return number
    found = torch.tensor([float(number == one) for one in SIGNALS], device=world.device)
    world.sum_([found])
    return next((int(one) for one, count in zip(SIGNALS, found.tolist()) if count), 0)
