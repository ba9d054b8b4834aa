"""Make the next batches in a thread while the current one is computed."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Prefetcher(Iterator[Item]):
    """The same items in the same order, made up to `depth` ahead; an exception is raised where it belongs."""

    def __init__(self, items: Iterator[Item], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(maxsize=max(depth, 1))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue

    def _work(self) -> None:
        try:
            for item in self._items:
                self._put((item, None))
                if self._stop.is_set():
                    return
            self._put((None, StopIteration()))
        except BaseException as error:  # handed to the reader, who raises it
            self._put((None, error))

    def __next__(self) -> Item:
        item, error = self._queue.get()
        if error is not None:
            raise error
        assert item is not None
        return item

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
