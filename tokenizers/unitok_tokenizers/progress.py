"""Where long work stands, said every few seconds whatever the work's own pace.

What works calls `advance` as often as it likes, after every step or recording; whoever runs it listens, or does not:
a command with a `Watch`, a stage of a pipeline with a file that its parent reads. As with `logging`, nothing has to be
handed down, and without a listener a call costs a microsecond.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

LINE_SECONDS = 10.0
"""Between two lines of running work: nobody should wait for a sign of life for more than 15."""
MANY = 32
"""Turns from which on a loop inside a library function is counted."""

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a piece of work stands."""

    what: str
    """What is counted: "step", "encoder step", "sentence", "row" …"""
    step: int
    """How many of them are done."""
    steps: int
    """How many there are."""
    loss: float | None = None
    """Of the last step, in training."""
    part: str = ""
    """The part of larger work that this belongs to."""
    number: int = 0
    """Parts that are done before it, of `parts`."""
    parts: int = 0
    """Parts of the larger work; 0 where it is not counted."""

    @property
    def share(self) -> float:
        """How much is done, 0 to 1: of the larger work where its parts are counted."""
        inner = min(self.step / max(self.steps, 1), 1.0)
        return min((self.number + inner) / self.parts, 1.0) if self.parts else inner

    def same_work(self, other: Place) -> bool:
        """Whether both count the same things."""
        if self.parts or other.parts:
            return self.parts == other.parts
        return (self.part, self.what, self.steps) == (other.part, other.what, other.steps)

    def __str__(self) -> str:
        loss = "" if self.loss is None else f", loss {self.loss:.3f}"
        return f"{f'{self.part}: ' if self.part else ''}{self.what} {self.step:,} of {self.steps:,}{loss}"


Listener = Callable[[Place], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)
_PART: ContextVar[tuple[str, int, int]] = ContextVar("part", default=("", 0, 0))


def advance(what: str, step: int, steps: int, loss: float | None = None) -> None:
    """Tell whoever listens that `step` of `steps` are done. May be called after every step, from the same context."""
    listener = _LISTENER.get()
    if listener is not None:
        part, number, parts = _PART.get()
        listener(Place(what=what, step=step, steps=steps, loss=loss, part=part, number=number, parts=parts))


def advance_aside(what: str, step: int, steps: int) -> None:
    """`advance` of a library's own loop, which may run within counted work: a few turns of it are not worth a word."""
    if steps >= MANY:
        advance(what, step, steps)


def heard() -> bool:
    """Whether anybody listens."""
    return _LISTENER.get() is not None


def counted(items: Collection[Item], what: str) -> Iterator[Item]:
    """The items one by one; each counts as done when the next is asked for."""
    for done, item in enumerate(items):
        advance(what, done, len(items))
        yield item
    advance(what, len(items), len(items))


@contextmanager
def part_of_work(name: str, number: int = 0, parts: int = 0) -> Iterator[None]:
    """What is counted inside belongs to this part; `number` parts of `parts` are done before it."""
    token = _PART.set((name, number, parts))
    try:
        yield
    finally:
        _PART.reset(token)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Everything that is counted inside is told to `listener`; to nobody for None."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class Clock:
    """The time left, from the speed since the work was first heard of: what came before is another run's."""

    def __init__(self) -> None:
        self._first: tuple[float, Place] | None = None

    def left(self, place: Place, now: float) -> float | None:
        """Seconds until the work is done; None until a second step tells its speed."""
        if self._first is None or not place.same_work(self._first[1]) or place.share < self._first[1].share:
            self._first = (now, place)
        begin, first = self._first
        gained = place.share - first.share
        return (now - begin) * (1.0 - place.share) / gained if gained > 0 else None


def duration(seconds: float) -> str:
    """ "45 s", "12 min", "2.5 h": as exactly as an estimate deserves."""
    if seconds < 99.5:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def line_of(name: str, place: Place | None, *, left: float | None, still: float) -> str:
    """One line about running work.

    Args:
        name: of the work.
        place: where it stands; None where nothing was counted yet.
        left: seconds until it is done, where that is known.
        still: seconds since it stood elsewhere.
    """
    waiting = f", {duration(still)} ago" if still >= 1.5 * LINE_SECONDS else ""
    if place is None:
        return f"{name}: at work for {duration(still)}"
    known = left is not None and place.share < 1.0  # what comes after the last step is not counted
    return f"{name}: {place}{waiting}{f', {duration(left or 0.0)} left' if known else ''}"


class Watch:
    """Says on the error output where work stands, at least every `interval` seconds; on a terminal, a bar instead.

    with Watch("prepare"):
        prepare_shards(rows, tokenizers, out)

    Work that is done before the first interval has passed says nothing.
    """

    def __init__(self, name: str, say: Callable[[str], None] | None = None, *, interval: float = LINE_SECONDS) -> None:
        """`say` takes a line; without it the error output does, of the first of several processes."""
        self.name, self.interval = name, interval
        self.say = say or _say_as_first
        self.bar = _Bar(name) if say is None and sys.stderr.isatty() and _is_first() else None
        self._place: Place | None = None
        self._since = time.monotonic()
        self._left: float | None = None
        self._clock = Clock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)
        self._listening = listening(self)

    def __call__(self, place: Place) -> None:
        """Listen."""
        now = time.monotonic()
        self._left = self._clock.left(place, now)
        if self._place is None or replace(place, loss=None) != replace(self._place, loss=None):
            self._since = now
        self._place = place
        if self.bar is not None:
            self.bar.show(place, self._left)

    def _run(self) -> None:
        while not self._end.wait(self.interval):
            if self.bar is None:
                still = time.monotonic() - self._since
                left = None if self._left is None else max(0.0, self._left - still)
                self.say(line_of(self.name, self._place, left=left, still=still))

    def __enter__(self) -> Watch:
        self._listening.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._listening.__exit__(kind, error, trace)
        if self.bar is not None:
            self.bar.close()


def _is_first() -> bool:
    """Whether this is the first of the processes that torchrun has started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _say_as_first(line: str) -> None:
    if _is_first():
        try:
            print(line, file=sys.stderr, flush=True)
        except (OSError, ValueError):
            pass  # nobody reads any more: that is for the work itself to find out


class _Bar:
    """A bar on the terminal that appears with the first count and goes when the work is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._progress: Any = None
        self._task: Any = None
        self._shown = 0.0

    def show(self, place: Place, left: float | None) -> None:
        """Move the bar, a few times a second at most."""
        now = time.monotonic()
        if now - self._shown < 0.2 and place.step < place.steps:
            return
        self._shown = now
        if self._progress is None:
            self._progress = bars()
            self._task = self._progress.add_task(self.name, total=1.0, text="")
            self._progress.start()
        text = line_of("", place, left=left, still=0.0).removeprefix(": ")
        self._progress.update(self._task, completed=place.share, text=text)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()


def bars() -> Any:
    """A `rich.progress.Progress` on the error output whose tasks have a `text`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=Console(stderr=True), transient=True)
