"""Where the stages of a pipeline stand: a small file that each of them writes, and what its parent shows of them.

    logs/units.log            what the stage says, a line about its progress every few seconds among it
    logs/units.progress.json  its newest place: {"what": "encoder step", "step": 120, "steps": 300, "loss": 1.2, …}

The file is written at most once a second and replaced as a whole; without it everything works, and only says less.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from unitok_tokenizers.progress import LINE_SECONDS, Clock, Place, bars, duration, line_of


def progress_file(run: Path, stage: str) -> Path:
    """Where a stage of a run writes its place."""
    return run / "logs" / f"{stage}.progress.json"


class PlaceWriter:
    """What a stage's process listens with: writes the newest place to a file, and now and then a line to its log."""

    def __init__(
        self, path: Path, say: Callable[[str], None], *, every: float = 1.0, line_every: float = LINE_SECONDS
    ) -> None:
        self.path, self.say, self.every, self.line_every = path, say, every, line_every
        self._clock = Clock()
        self._lock = threading.Lock()  # the corpus is spoken by several threads
        self._written = self._said = -float("inf")

    def __call__(self, place: Place) -> None:
        """Listen. A disk that is full takes no progress; the work finds that out by itself."""
        with self._lock:
            now = time.monotonic()
            left = self._clock.left(place, now)
            if now - self._said >= (self.every if place.step == place.steps else self.line_every):
                self._said = now
                self.say(str(place))
            if now - self._written < self.every and place.step < place.steps:
                return
            self._written = now
            draft = self.path.with_name(f".{self.path.name}")
            try:
                draft.write_text(json.dumps({**asdict(place), "left": left, "time": time.time()}), encoding="utf-8")
                os.replace(draft, self.path)
            except OSError:
                pass


@dataclass(frozen=True)
class Reading:
    """What stands in a stage's file."""

    place: Place
    left: float | None
    """Seconds that were left when it was written."""
    age: float
    """Seconds since it was written."""


def read_place(path: Path) -> Reading | None:
    """The newest place of a stage; None where it has written none yet."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        left, written = data.pop("left"), data.pop("time")
        return Reading(Place(**data), left, max(0.0, time.time() - written))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True, kw_only=True)
class Running:
    """A stage that runs."""

    name: str
    seconds: float
    """Since it was started."""
    reading: Reading | None
    """Where it stands."""

    @property
    def left(self) -> float | None:
        """Seconds until what it counts now is done, by its own speed."""
        if self.reading is None or self.reading.left is None:
            return None
        return max(0.0, self.reading.left - self.reading.age)

    @property
    def main_work(self) -> bool:
        """Whether what it counts now is what takes its time: a training, or work in counted parts."""
        return self.reading is not None and (self.reading.place.loss is not None or self.reading.place.parts > 0)

    def __str__(self) -> str:
        if self.reading is None:
            return line_of(self.name, None, left=None, still=self.seconds)
        return line_of(self.name, self.reading.place, left=self.left, still=self.reading.age)


class Display(Protocol):
    """What shows the stages that run; asked for several times a second."""

    def show(self, running: Sequence[Running], left: float | None) -> None:
        """Show them, and the seconds that are left of the whole run where that is known."""

    def close(self) -> None:
        """Nothing runs any more."""


class LineDisplay:
    """Without a terminal: a line for each stage that runs, every few seconds."""

    def __init__(self, say: Callable[[str], None], *, interval: float = LINE_SECONDS) -> None:
        self.say, self.interval = say, interval
        self._said: float | None = None

    def show(self, running: Sequence[Running], left: float | None) -> None:
        """A line each, where the last ones are long enough ago."""
        now = time.monotonic()
        if self._said is None:
            self._said = now
        if now - self._said < self.interval or not running:
            return
        self._said = now
        for one in running:
            self.say(str(one))
        if left is not None:
            self.say(f"in all: about {duration(left)} left")

    def close(self) -> None:
        """Nothing stays open."""


class BarDisplay:
    """On a terminal: a bar for each stage that runs."""

    def __init__(self) -> None:
        self.progress = bars()
        self.tasks: dict[str, Any] = {}
        self._shown = 0.0

    def show(self, running: Sequence[Running], left: float | None) -> None:
        """Move the bars, twice a second."""
        now = time.monotonic()
        if now - self._shown < 0.5:
            return
        self._shown = now
        self.progress.start()
        total = {} if left is None else {"in all": (0.0, f"about {duration(left)} left")}
        wanted: Mapping[str, tuple[float, str]] = {
            **{one.name: (one.reading.place.share if one.reading else 0.0, str(one)) for one in running}, **total
        }  # fmt: skip
        for name in self.tasks.keys() - wanted.keys():
            self.progress.remove_task(self.tasks.pop(name))
        for name, (share, text) in wanted.items():
            if name not in self.tasks:
                self.tasks[name] = self.progress.add_task(name, total=1.0, text="")
            self.progress.update(self.tasks[name], completed=share, text=text.partition(": ")[2] or text)

    def close(self) -> None:
        """Take the bars away."""
        self.progress.stop()
