"""Recordings read ahead of whoever tokenizes them, by processes of their own, in the order of the rows.

What is given is the same with any number of processes; only who reads, decodes and resamples differs. At most
`AHEAD_SECONDS` of samples wait to be taken, and one row a process beyond that.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np

from unitok_tokenizers.compute import available_threads
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError

AHEAD_SECONDS = 1024.0
"""Seconds of samples that are read and not yet taken: as many as are tokenized together, 65 MB at 16 kHz."""
MOST_WORKERS = 8
FEW_ROWS = 256
"""Rows of a corpus that are read before processes would have started."""

Read = np.ndarray | InputError | None
"""(S,) float32 samples, why they cannot be read, or None for a row whose recording is not wanted."""


def sensible_workers(rows: int | None = None) -> int:
    """How many processes read by default: one for two processors, none for few rows; None stands for many rows."""
    if rows is not None and rows < FEW_ROWS:
        return 0
    return min(max(available_threads() // 2, 1), MOST_WORKERS)


class Readers:
    """Processes that read recordings; with none, they are read when they are taken.

    with Readers(4) as readers:
        for samples in readers.begin(rows, 16000, most_seconds=60.0):
            ...
    """

    def __init__(self, workers: int) -> None:
        if workers < 0:
            raise InputError(f"workers is {workers}; give 0 or more processes that read recordings")
        self.workers = workers
        self._threads = ThreadPoolExecutor(max_workers=workers or 1, thread_name_prefix="reader")
        self._processes: list[_Process] = []
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._state = threading.Condition()
        self._stopped = False
        self._held = 0.0  # seconds that were read and not taken
        self._begun = 0  # recordings that were asked for
        self._wanted = 0  # number of the one that is taken next

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._state:
            self._stopped = True
            self._state.notify_all()
        for process in self._processes:
            process.end()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def begin(self, rows: Sequence[Row], rate: int, *, most_seconds: float) -> Iterator[Read]:
        """Begin to read rows; gives what each of them has, in order, as it is taken.

        What was begun first is taken first, to its end.

        Args:
            rows: those without a recording give None.
            rate: of the samples, in Hz; 0 where no recording is wanted.
            most_seconds: a longer recording gives that many seconds of its beginning.
        """
        if not self.workers:
            return (_read_here(row, rate, most_seconds) for row in rows)
        waiting: deque[tuple[int, Future[np.ndarray]] | None] = deque()
        for row in rows:
            if not rate or not row.recorded:
                waiting.append(None)
                continue
            self._start()
            waiting.append((self._begun, self._threads.submit(self._read, self._begun, row, rate, most_seconds)))
            self._begun += 1
        return self._taken(waiting, rate)

    def _start(self) -> None:
        while len(self._processes) < self.workers:
            process = _Process()
            self._processes.append(process)
            self._idle.put(process)

    def _taken(self, waiting: deque[tuple[int, Future[np.ndarray]] | None], rate: int) -> Iterator[Read]:
        while waiting:
            place = waiting.popleft()  # nothing else holds the samples once they are given
            yield None if place is None else self._result(*place, rate)

    def _result(self, number: int, future: Future[np.ndarray], rate: int) -> np.ndarray | InputError:
        with self._state:
            self._wanted = number
            self._state.notify_all()
        try:
            samples = future.result()
        except InputError as error:
            return error
        with self._state:
            self._held -= len(samples) / rate
            self._state.notify_all()
        return samples

    def _read(self, number: int, row: Row, rate: int, most_seconds: float) -> np.ndarray:
        """Body of a thread, which waits while enough is read; never for the recording that somebody waits for."""
        with self._state:
            self._state.wait_for(lambda: self._stopped or self._held < AHEAD_SECONDS or number <= self._wanted)
            if self._stopped:
                raise InputError(f"row {row.id}: nobody waits for it any more")
        process = self._idle.get()
        try:
            for last in (False, True):  # a process may be ended from without, for want of memory: the row has another
                try:
                    samples = process.read(row, rate, most_seconds)
                    break
                except _Ended as error:
                    process = self._instead_of(process, row)
                    if last:
                        raise InputError(
                            f"row {row.id}: two processes that read {row.reference or 'it'} ended, the last with "
                            f"{error}; leave the row out, or see what happens with --workers 0"
                        ) from None
        finally:
            self._idle.put(process)
        with self._state:
            self._held += len(samples) / rate
        return samples

    def _instead_of(self, ended: _Process, row: Row) -> _Process:
        """A new process in place of one that has ended: those that come after it would all fail."""
        with self._state:
            if self._stopped:
                raise InputError(f"row {row.id}: nobody waits for it any more")
            ended.end()
            self._processes[self._processes.index(ended)] = fresh = _Process()
        return fresh


def _read_here(row: Row, rate: int, most_seconds: float) -> Read:
    if not rate or not row.recorded:
        return None
    try:
        return row.load(rate, most_seconds=most_seconds)
    except InputError as error:
        return error


class _Ended(Exception):
    """A reading process has ended; its argument is the exit status."""


class _Process:
    """One reading process and the pipes to it. It ends when they are closed: by `end`, or with this process."""

    def __init__(self) -> None:
        here = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OMP_NUM_THREADS": "1"}
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            # -P: what lies in the folder that somebody works in must not be imported
            [sys.executable, "-P", "-m", "unitok_tokenizers.data.reader_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **here},
            start_new_session=True,  # an interrupt at the terminal is for the parent alone, which closes the pipes
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._asks = Connection(os.dup(self._process.stdin.fileno()), readable=False)
        self._answers = Connection(os.dup(self._process.stdout.fileno()), writable=False)
        self._process.stdin.close()
        self._process.stdout.close()

    def read(self, row: Row, rate: int, most_seconds: float) -> np.ndarray:
        """(S,) samples; raises what reading raised there, and _Ended where the process is no more."""
        try:
            self._asks.send((row, rate, most_seconds))
            found: Any = self._answers.recv()
        except (EOFError, OSError, ValueError):
            self._process.kill()  # where it lives it has answered what nobody asked
            raise _Ended(self._process.wait()) from None
        if isinstance(found, Exception):
            raise found
        samples: np.ndarray = found
        return samples

    def end(self) -> None:
        """End it at once; it holds nothing that could be lost."""
        self._process.kill()
        self._process.wait()
        self._asks.close()
        self._answers.close()
