"""A process that reads recordings for another one: rows come in, samples go out, until nobody asks any more.

Its parent (`reading`) starts it by `python -m`, not by `multiprocessing`: that would import the parent's main module
in every process, and with it torch, which takes seconds and hundreds of megabytes and reads no recording.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from dataclasses import replace
from typing import Any, BinaryIO

from unitok_tokenizers.data.joined_rows import JoinedRow, Murmur
from unitok_tokenizers.data.manifest import Row


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer each (row, rate, most seconds) with its samples, or with what reading them raised."""
    murmurs: dict[str, Murmur] = {}
    while True:
        try:
            row, rate, most_seconds = pickle.load(source)
        except EOFError:
            return  # the parent has ended, in whatever way
        answer: Any
        try:
            answer = _sharing(row, murmurs).load(rate, most_seconds=most_seconds)
        except Exception as error:
            answer = error
        try:
            sink.write(_packed(answer))
            sink.flush()
        except BrokenPipeError:
            return


def _sharing(row: Row, murmurs: dict[str, Murmur]) -> Row:
    """The row with the murmur that another one has made already: all joined rows share it, and making it takes long."""
    if not isinstance(row, JoinedRow):
        return row
    return replace(row, murmur=murmurs.setdefault(repr(row.murmur.voices), row.murmur))


def _packed(answer: Any) -> bytes:
    """An answer as bytes; an error that cannot be sent goes as its text."""
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception(answer))), protocol=5)


def main() -> None:
    """Serve on the standard streams; what a library prints goes to the error output."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, sink)
    os._exit(0)  # a pipe that nobody reads would be complained about when it is flushed once more


if __name__ == "__main__":
    main()
