"""Run a graph of stages, several at a time, each in a process of its own, and continue where a run stopped.

A stage is a function of (run folder, configuration). Processes keep thread counts and memory apart: two one-thread
stages side by side use two cores better than one two-thread stage, and what a stage allocated is gone when it ends.
A finished stage leaves `stages/<name>.json`; a repeat with the same configuration skips it, another configuration
runs it, and all that need it, again. A stage that runs says in a file of its own where it stands (`stage_progress`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import PRECISION_VARIABLE, Compute, changes, resolve
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import fingerprint, read_json, sha256_file, sole_writer, write_json
from unitok_training.runs.interrupts import termination_raises
from unitok_training.runs.process_memory import shared_out_bytes, tree_bytes
from unitok_training.runs.schedule import Stage, seconds_until_done, startable
from unitok_training.runs.stage_process import INPUT_ERROR_EXIT, StageProcess, Stages
from unitok_training.runs.stage_progress import Display, LineDisplay, Running, progress_file, read_place

POLL_SECONDS = 0.2
NOTE_SECONDS = 10.0
"""Between two notes of how long a running stage has taken."""
MEMORY_SECONDS = 1.0
"""Between two looks at how much memory the stages hold."""
WALL = "wall.json"
"""File of a run folder with what a run that was not interrupted took."""
COMPUTE = "compute.json"
"""File of a run folder with what its stages were last computed on."""


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What a finished stage cost."""

    key: str
    """Fingerprint of its settings and of the keys of the stages it needs."""
    seconds: float
    """Wall seconds, of all attempts where one was stopped and continued."""
    peak_bytes: int
    """Largest resident memory of its process tree, in bytes."""


def stage_key(
    stage: Stage, config: Mapping[str, Any], keys: Mapping[str, str], known_as: Mapping[str, str] | None = None
) -> str:
    """Fingerprint that decides whether a finished stage is still valid; `known_as` as in `Pipeline`."""
    module, _, function = stage.function.partition(":")
    named = f"{(known_as or {}).get(module, module)}:{function}"
    chosen = {name: config[name] for name in stage.settings}
    given: dict[str, Any] = {"arguments": list(stage.arguments)} if stage.arguments else {}
    if found := [contents_of(path) for name in stage.files for path in _paths(config[name])]:
        given["contents"] = found
    if recordings := [recordings_of(path) for name in stage.tables for path in _paths(config[name])]:
        given["recordings"] = recordings
    if stage.also:
        given["also"] = list(stage.also)
    needs = [keys[name] for name in stage.needs]
    return fingerprint({"function": named, "settings": chosen, "needs": needs, **given})


def _paths(value: Any) -> list[str]:
    paths = [] if value is None else [value] if isinstance(value, str) else value
    return [one for one in paths if one]  # "" is a setting that names nothing, and as a path the current folder


def contents_of(path: str) -> str:
    """Identifies what a file holds, or the files of a folder by size and time; empty where there is none."""
    place = Path(path)
    if place.is_file():
        return sha256_file(place)
    files = sorted(one for one in (*place.glob("*"), *place.glob("data/*")) if one.is_file())
    return fingerprint([[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files]) if files else ""


def recordings_of(path: str) -> str:
    """Identifies the recordings of a manifest by size and time; empty where it cannot be read, which the stage says.
    InputError where one is not there: all that was made of it would be made again."""
    try:
        rows = read_manifest(path)
    except InputError:
        return ""
    if lost := next((row for row in rows if row.audio is not None and not row.stamp()), None):
        raise InputError(
            f"{path}: the recording {lost.audio} of row {lost.id} is not there; put it back, what is finished is kept"
        )
    return fingerprint([row.stamp() for row in rows])


def load_record(run: Path, name: str) -> StageRecord | None:
    """What a finished stage left; nothing where it is damaged: the stage then runs again."""
    path = run / "stages" / f"{name}.json"
    try:
        return StageRecord(**read_json(path)) if path.exists() else None
    except (InputError, TypeError):
        return None


def _seconds_so_far(path: Path, key: str) -> float:
    """What attempts took that were stopped; 0 of a stage with other settings, and where it is not known."""
    try:
        found = read_json(path) if path.exists() else {}
        return float(found["seconds"]) if found.get("key") == key else 0.0
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return 0.0


@dataclass(kw_only=True)
class _Process:
    """A stage's process."""

    process: StageProcess
    begin: float
    """Monotonic time at which it was started."""
    before: float = 0.0
    """Seconds of attempts that were stopped."""
    peak_bytes: int = 0
    """The most that its tree was seen with."""
    noted: float = 0.0
    """Monotonic time at which its seconds were last written."""

    @property
    def seconds(self) -> float:
        """Of all attempts so far."""
        return self.before + time.monotonic() - self.begin


class Pipeline:
    """Schedules stages on `threads` CPU threads and keeps their records under `run`."""

    def __init__(
        self,
        run: Path,
        stages: Sequence[Stage],
        config: Mapping[str, Any],
        *,
        threads: int,
        report: Callable[[str], None] = print,
        display: Display | None = None,
        compute: Compute | None = None,
        expected: Mapping[str, float] | None = None,
        known_as: Mapping[str, str] | None = None,
    ) -> None:
        """`report` takes lines, `display` shows what runs (as such lines where None), `compute` says in which precision
        stages that leave it open compute, and `expected` seconds of the stages give the time that is left in all.
        `known_as` are modules of stages and the names that keys on disk have for them: where a module moves, stages
        that were finished before stay so."""
        self.run_folder = run
        self.stages = list(stages)
        self.config = dict(config)
        self.threads = threads
        self.report = report
        self.display = display or LineDisplay(report)
        self.compute = compute or resolve("cpu", threads=threads)
        self.expected = dict(expected or {})
        self.keys: dict[str, str] = {}
        for stage in self.stages:  # listed in an order in which every need comes first
            assert all(name in self.keys for name in stage.needs), f"{stage.name} stands before what it needs"
            self.keys[stage.name] = stage_key(stage, self.config, self.keys, known_as)
        self.peak_bytes = 0
        """Most that all stages and this process held at once."""
        self._running: dict[str, _Process] = {}
        # A driver that has been asked anything does not survive a fork.
        modules = [stage.function.partition(":")[0] for stage in self.stages]
        self._processes = Stages(run, modules, forks=self.compute.device.type == "cpu")
        self._looked = -float("inf")

    def run(self) -> dict[str, StageRecord]:
        """Run what is not done; returns a record per stage. Raises InputError where a stage refused its input, or where
        another process runs stages in the same folder.

        SIGTERM and Ctrl-C reach the stages, which save what they train before this raises KeyboardInterrupt. A run
        that did it all leaves `wall.json`: seconds, and the most memory that was held at once.
        """
        with sole_writer(self.run_folder):
            return self._run()

    def _run(self) -> dict[str, StageRecord]:
        begin, fresh = time.monotonic(), not (self.run_folder / "pipeline.json").exists()
        (self.run_folder / "stages").mkdir(parents=True, exist_ok=True)
        (self.run_folder / "logs").mkdir(exist_ok=True)
        write_json(self.run_folder / "pipeline.json", self.config)
        done = {stage.name: record for stage in self.stages if (record := self._valid_record(stage))}
        for name in done:
            self.report(f"{name}: done before ({done[name].seconds:.0f} s)")
        if len(done) < len(self.stages):
            self._note_compute()
            (self.run_folder / WALL).unlink(missing_ok=True)  # of an earlier run, which was not this one
        with termination_raises():
            try:
                while len(done) < len(self.stages):
                    self._start_ready(done)
                    time.sleep(POLL_SECONDS)
                    self._look_at_memory()
                    self._note_seconds(every=NOTE_SECONDS)
                    self._collect(done)
                    self._show(done)
            finally:
                self.display.close()
                self._stop_all()
        if fresh:  # a run that continued an earlier one has no wall time of its own
            wall = {"seconds": round(time.monotonic() - begin, 1), "peak_bytes": self.peak_bytes}
            write_json(self.run_folder / WALL, wall)
        return done

    def _note_compute(self) -> None:
        """Say once what is computed on, and what of it has changed since the run was begun."""
        self.report(f"computes on {self.compute}")
        path, now = self.run_folder / COMPUTE, self.compute.to_json()
        if path.exists():
            for change in changes(read_json(path), now):
                self.report(f"{change}: finished stages are kept, and the others go on with what is here")
        write_json(path, now)

    def _show(self, done: Mapping[str, StageRecord]) -> None:
        now = time.monotonic()
        running = [
            Running(name=name, seconds=now - one.begin, reading=read_place(progress_file(self.run_folder, name)))
            for name, one in self._running.items()
        ]
        self.display.show(running, self._left(done, running))

    def _left(self, done: Mapping[str, StageRecord], running: Sequence[Running]) -> float | None:
        """Seconds of the whole run: what is expected, times what finished stages took of what was expected of them.

        One short stage that took twice as long says little of the others: half of the run is believed beforehand.
        """
        if not self.expected:
            return None
        known = [(record.seconds, self.expected[name]) for name, record in done.items() if self.expected.get(name)]
        believed = 0.5 * sum(self.expected.values())
        took, thought = sum(one for one, _ in known), sum(one for _, one in known)
        slower = (took + believed) / max(1e-9, thought + believed)
        left = {s.name: slower * self.expected.get(s.name, 0.0) for s in self.stages if s.name not in done}
        for one in running:
            own = one.left if one.main_work else None
            left[one.name] = own if own is not None else max(0.0, left[one.name] - one.seconds)
        return seconds_until_done(self.stages, self.threads, left, self._running)

    def _valid_record(self, stage: Stage) -> StageRecord | None:
        record = load_record(self.run_folder, stage.name)
        return record if record and record.key == self.keys[stage.name] else None

    def _start_ready(self, done: Mapping[str, StageRecord]) -> None:
        for stage, threads in startable(self.stages, self.threads, done, self._running):
            self._start(stage, threads)

    def _start(self, stage: Stage, threads: int) -> None:
        self.report(f"{stage.name}: started")
        (self.run_folder / "stages" / f"{stage.name}.json").unlink(missing_ok=True)
        progress_file(self.run_folder, stage.name).unlink(missing_ok=True)
        words = [stage.name, stage.function, str(self.run_folder), *stage.arguments]
        log = self.run_folder / "logs" / f"{stage.name}.log"
        precision = {PRECISION_VARIABLE: self.compute.precision}
        process = self._processes.start(words, threads=threads, precision=precision, log=log)
        before = _seconds_so_far(self._part(stage.name), self.keys[stage.name])
        self._running[stage.name] = _Process(process=process, begin=time.monotonic(), before=before)

    def _part(self, name: str) -> Path:
        """Where the seconds of a stage stand that has not finished."""
        return self.run_folder / "stages" / f"{name}.part"

    def _note_seconds(self, *, every: float = 0.0) -> None:
        """Write what running stages have taken so far: a kill may come at any time."""
        now = time.monotonic()
        for name, one in self._running.items():
            if now - one.noted >= every:
                one.noted = now
                with suppress(InputError, OSError):  # a full disk stops nothing for that
                    write_json(self._part(name), {"key": self.keys[name], "seconds": one.seconds})

    def _look_at_memory(self) -> None:
        """Look once in a while, and at what was just started: it may end before the next look."""
        now = time.monotonic()
        if now - self._looked < MEMORY_SECONDS and all(one.peak_bytes for one in self._running.values()):
            return
        self._looked = now
        self.peak_bytes = max(self.peak_bytes, shared_out_bytes(os.getpid()))
        found = tree_bytes(one.process.pid for one in self._running.values())
        for one in self._running.values():
            one.peak_bytes = max(one.peak_bytes, found[one.process.pid])

    def _collect(self, done: dict[str, StageRecord]) -> None:
        for name, one in list(self._running.items()):
            code = one.process.poll()
            if code is None:
                continue
            del self._running[name]
            if code:
                self._raise_failure(name, code)
            record = StageRecord(key=self.keys[name], seconds=one.seconds, peak_bytes=one.peak_bytes)
            write_json(self.run_folder / "stages" / f"{name}.json", record.__dict__)
            self._part(name).unlink(missing_ok=True)
            done[name] = record
            self.report(f"{name}: {record.seconds:.0f} s, {one.peak_bytes / 1e9:.1f} GB")

    def _raise_failure(self, name: str, code: int) -> None:
        log = self.run_folder / "logs" / f"{name}.log"
        text = log.read_text(encoding="utf-8", errors="replace").strip()
        if code == INPUT_ERROR_EXIT and text:
            raise InputError(text.splitlines()[-1])
        if code == -signal.SIGKILL:
            raise InputError(
                f"stage {name} was killed from without, for want of memory most likely; {log} says how far it came. "
                "Repeat the command where more is free: finished stages are kept"
            )
        raise RuntimeError(
            f"stage {name} ended with exit code {code}; {log} ends:\n" + "\n".join(text.splitlines()[-15:])
        )

    def _stop_all(self) -> None:
        """Ask what runs to stop, and wait: a stage that trains finishes its step and saves."""
        for one in self._running.values():
            one.process.terminate()
        for one in self._running.values():
            one.process.wait()
        self._note_seconds()
        self._running.clear()
        self._processes.close()
