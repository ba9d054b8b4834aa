"""A process that reads recordings for another one: rows come in, samples go out, until nobody asks any more.

Its parent (`reading`) starts it by `python -m`, not by `multiprocessing`: that would import the parent's main module
in every process, and with it torch, which takes seconds and hundreds of megabytes and reads no recording.
"""

from __future__ import annotations

import os
import traceback
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from unitok_tokenizers.data.joined_rows import JoinedRow, Murmur
from unitok_tokenizers.data.manifest import Row


def serve(source: Connection, sink: Connection) -> None:
    """Answer each (row, rate, most seconds) with its samples, or with what reading them raised."""
    murmurs: dict[str, Murmur] = {}
    while True:
        try:
            row, rate, most_seconds = source.recv()
        except EOFError:
            return  # the parent has ended, in whatever way
        answer: Any
        try:
            answer = _sharing(row, murmurs).load(rate, most_seconds=most_seconds)
        except Exception as error:
            answer = error
        try:
            _send(sink, answer)
        except BrokenPipeError:
            return


def _sharing(row: Row, murmurs: dict[str, Murmur]) -> Row:
    """The row with the murmur that another one has made already: all joined rows share it, and making it takes long."""
    if not isinstance(row, JoinedRow):
        return row
    return replace(row, murmur=murmurs.setdefault(repr(row.murmur.voices), row.murmur))


def _send(sink: Connection, answer: Any) -> None:
    """Send an answer; an error that cannot be sent goes as its text."""
    try:
        sink.send(answer)
    except BrokenPipeError:
        raise
    except Exception:  # before anything was written
        sink.send(RuntimeError("".join(traceback.format_exception(answer))))


def main() -> None:
    """Serve on the standard streams; what a library prints goes to the error output."""
    source, sink = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)
    serve(source, sink)
    os._exit(0)  # a pipe that nobody reads would be complained about when it is flushed once more


if __name__ == "__main__":
    main()
