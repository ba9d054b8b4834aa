"""Processes of stages: each is forked from one that has imported what stages need, which alone takes seconds.

`python -m unitok_training.runs.stage_process` is that process. It reads a JSON line per stage from its input, forks,
and answers with a line that names the child, and with another when the child has ended. It computes nothing itself, so
that it has no threads that a fork would lose: a library that counts its threads when it is loaded, as numpy's does, has
one. Where a system cannot fork safely, or where a driver is in the way (a GPU's does not survive a fork), `--alone`
runs one stage in a process that imports everything itself.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from unitok_tokenizers.errors import InputError, missing_extra
from unitok_tokenizers.files import cannot_use, read_json
from unitok_tokenizers.heap import huge_pages
from unitok_tokenizers.progress import listening
from unitok_training.runs.stage_progress import PlaceWriter, progress_file

INPUT_ERROR_EXIT = 2
ALONE = "--alone"
EVERYWHERE = ("torch", "torch._dynamo")
"""Modules that every stage that trains comes to import: torch's optimizers load its compiler, used or not."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHUNK = 1 << 16


class StageProcess(Protocol):
    """A stage that runs: what is asked of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None:
        """Exit code, negative where a signal ended it; None while it runs."""

    def wait(self) -> int:
        """The same, when it has ended."""

    def terminate(self) -> None:
        """Ask it to stop."""


class Stages:
    """Starts stages of one run, in forks where that works."""

    def __init__(self, run: Path, modules: Iterable[str], *, forks: bool) -> None:
        """`modules` are imported once for all stages; with `forks` False every stage imports them itself."""
        self.run_folder = run
        self._modules = sorted({*EVERYWHERE, *modules})
        self._forks = forks and sys.platform == "linux"
        self._parent: _Parent | None = None

    def start(self, words: Sequence[str], *, threads: int, precision: Mapping[str, str], log: Path) -> StageProcess:
        """Start `NAME module:function RUN_FOLDER [ARGUMENT …]` on so many threads, its output in `log`."""
        environment = {"OMP_NUM_THREADS": str(threads), **precision}
        log.write_bytes(b"")  # where it cannot be written, that is said here
        if not self._forks:
            command = [sys.executable, "-m", __name__, ALONE, str(os.getpid()), *words]
            with open(log, "ab") as out:
                return subprocess.Popen(command, env=_environment(environment), stdout=out, stderr=subprocess.STDOUT)
        if self._parent is not None and not self._parent.lives():
            self.close()
        if self._parent is None:
            self._parent = _Parent(self._modules, self.run_folder / "logs" / "stages.log")
        return self._parent.fork(
            {"words": list(words), "environment": environment, "threads": threads, "log": str(log)}
        )

    def close(self) -> None:
        """End the process that forks; stages must have ended."""
        if self._parent is not None:
            self._parent.close()
            self._parent = None


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return {**os.environ, **huge_pages(os.environ), **paths, **changes}


class _Parent:
    """The process that forks, seen from the one that runs a pipeline."""

    def __init__(self, modules: Sequence[str], log: Path) -> None:
        command = [sys.executable, "-m", __name__, str(os.getpid()), *modules]
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                command, env=_environment({"OMP_NUM_THREADS": "1"}),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self.log = log
        self.ended: dict[int, int] = {}
        """Exit codes of children."""
        self._begun: list[int] = []
        self._text = b""

    def lives(self) -> bool:
        return self.process.poll() is None

    def fork(self, request: Mapping[str, Any]) -> _Forked:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        while not self._begun and self.hear(None):
            pass
        if not self._begun:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip()
            raise RuntimeError(
                f"the process that starts stages ended with {self.process.wait()}; {self.log} ends:\n{said}"
            )
        return _Forked(self, self._begun.pop())

    def hear(self, seconds: float | None) -> bool:
        """Note what it says within so many seconds (None: until it says something); False where it has ended."""
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return False
        out, ready = self.process.stdout.fileno(), select.poll()  # `select` knows no numbers above 1,023
        ready.register(out, select.POLLIN)
        while ready.poll(None if seconds is None else 1000 * seconds):
            if not (text := os.read(out, CHUNK)):
                return False
            *lines, self._text = (self._text + text).split(b"\n")
            for line in lines:
                pid, *code = map(int, line.split())
                if code:
                    self.ended[pid] = code[0]
                else:
                    self.ended.pop(pid, None)  # of an earlier stage: systems give numbers again
                    self._begun.append(pid)
            seconds = 0
        return True

    def close(self) -> None:
        """End it, whatever it is at: stages have ended by now, and none that was asked for begins."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class _Forked:
    """A stage that was forked."""

    def __init__(self, parent: _Parent, pid: int) -> None:
        self.parent = parent
        self.pid = pid

    def poll(self) -> int | None:
        return self._code(0)

    def wait(self) -> int:
        while (code := self._code(None)) is None:
            pass
        return code

    def terminate(self) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def _code(self, seconds: float | None) -> int | None:
        if self.pid not in self.parent.ended and not self.parent.hear(seconds):
            self.parent.ended.setdefault(self.pid, -signal.SIGKILL)  # children die with the process that forked them
        return self.parent.ended.get(self.pid)


# -- in the process that forks, and in its children -------------------------------------------------------------


def serve(parent: int, modules: Sequence[str]) -> int:
    """Fork a stage for every line of the input, until it ends; a child returns what its stage does."""
    _die_with(parent)
    handlers = {one: signal.getsignal(one) for one in SIGNALS}
    for one in SIGNALS:  # they are sent to all processes of a terminal or a job: stages save, then end
        signal.signal(one, signal.SIG_IGN)
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a module prints is no answer
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException:  # the stage that needs it fails by itself; here stands what came first
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # what all stages share is not looked through, and its pages stay shared
    ended, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pending = b""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, CHUNK)
            _tell_ended(answers)
        if 0 in ready:
            if not (text := os.read(0, CHUNK)):
                return 0
            *lines, pending = (pending + text).split(b"\n")
            for line in lines:
                if _forked(request := json.loads(line), answers, handlers):
                    return stage(request["words"])


def _forked(request: Mapping[str, Any], answers: int, handlers: Mapping[signal.Signals, Any]) -> bool:
    """Fork, and say who was begun; True in the child, which is then as if it had been started by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # one that comes before the child can hear it waits
    forking, pid = os.getpid(), os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.write(answers, f"{pid}\n".encode())
        return False
    _die_with(forking)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one, handler in handlers.items():
        signal.signal(one, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(answers)
    os.environ.update(request["environment"])
    import torch

    torch.set_num_threads(request["threads"])
    return True


def _tell_ended(answers: int) -> None:
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            os.write(answers, f"{pid} {os.waitstatus_to_exitcode(status)}\n".encode())


def _die_with(parent: int) -> None:
    """A killed run must not leave stages behind that write into its folder (Linux only; a no-op elsewhere)."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def run_stage(function: str, run: Path, *arguments: str) -> None:
    """Import and call one stage in this process."""
    module, name = function.split(":")
    getattr(importlib.import_module(module), name)(run, read_json(run / "pipeline.json"), *arguments)


def stage(words: Sequence[str]) -> int:
    """What a stage's process does, given `NAME module:function RUN_FOLDER [ARGUMENT …]`; returns its exit code."""
    name, function, folder, *others = words
    run = Path(folder)
    writer = PlaceWriter(progress_file(run, name), lambda line: print(line, flush=True))
    try:
        with listening(writer):
            run_stage(function, run, *others)
    except (InputError, OSError) as error:
        found = cannot_use(error) if isinstance(error, OSError) else error
        sys.stdout.flush()  # the last line of the log is the error
        print(" ".join(str(found).split()), file=sys.stderr)
        return INPUT_ERROR_EXIT
    except ModuleNotFoundError as error:
        if (needed := missing_extra(error)) is None:
            raise
        sys.stdout.flush()
        print(f"stage {name} {needed}; what is finished is kept", file=sys.stderr)
        return INPUT_ERROR_EXIT
    return 0


def main(arguments: Sequence[str]) -> int:
    """Entry point: `--alone`, whose process it is and a stage's words; or that process and the modules of forks."""
    if arguments[:1] == [ALONE]:
        _die_with(int(arguments[1]))
        return stage(arguments[2:])
    return serve(int(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
