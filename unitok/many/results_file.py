"""A file of results, one JSON object a line, which a kill at any moment leaves as something to continue.

A line is written once its answer is known; a torn last line is dropped when the file is opened again, and the end of
the command puts all lines into the order of its inputs. What the results were made with stands beside them, in
`NAME.request.json`: a repeat with other options, or by another model, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import (
    HASH_BLOCK_BYTES,
    atomic_write_bytes,
    cannot_write,
    ensure_writable_parent,
    read_json,
    write_json,
)

FORMAT = 1
SYNC_SECONDS = 1.0
"""How long a line may be with the system alone before it is on the disk."""
CONTENTS = "_contents"
"""End of a name in a request that identifies what is in a file or folder rather than where it is."""
SAMPLED_BLOCKS, SAMPLED_BYTES = 64, 16 * 1024
"""Of a large file of weights, so many blocks of so many bytes say which file it is."""


def model_fingerprint(folder: Path | str) -> str:
    """16 hexadecimal digits that identify the files of a model directory: small ones by all of their bytes, large ones
    by their size and blocks all over them, which no training leaves as they were."""
    root, digest = Path(folder), hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(root).as_posix()} {size}\n".encode("utf-8", "surrogateescape"))
        with open(path, "rb") as file:
            if size <= HASH_BLOCK_BYTES:
                digest.update(file.read())
                continue
            for block in range(SAMPLED_BLOCKS):
                file.seek((size - SAMPLED_BYTES) * block // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]


def encoded(line: Mapping[str, Any]) -> bytes:
    """A line of the file; names that are no UTF-8 are escaped, so that the line is."""
    try:
        return f"{json.dumps(line, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(line)}\n".encode()


def _is_request(path: Path) -> bool:
    """Whether a file says how results were made."""
    try:
        found = read_json(path)
    except InputError:
        return False
    return isinstance(found, dict) and {"format", "request"} <= found.keys()


def results_beside(path: Path) -> Path:
    """Where it stands what the results of a file were made with."""
    return path.with_suffix(".request.json")


class ResultsFile:
    """The results of one command, opened to be begun or continued.

    Args:
        path: the file; its folder is made.
        request: what the answers depend on beside their inputs, by the names that a person knows.

    Raises:
        InputError: it cannot be written, another process writes it, it holds something else, or results of another
            request.
    """

    def __init__(self, path: Path | str, request: Mapping[str, Any]) -> None:
        self.path, self.beside = Path(path), results_beside(Path(path))
        ensure_writable_parent(self.path)
        self._file = self._open()
        try:
            whole, torn = self._read()
            if torn and not self.beside.is_file():
                raise InputError(f"{self.path} is no result of this command; name another file with -o")
            self._check_request(request, empty=not whole)
            self.finished = self._finished(whole)
            """Answered inputs: id → its line. Those that failed are not among them: they are tried again."""
            self._begin(whole, torn)
        except BaseException:
            self._file.close()
            raise
        self._synced = time.monotonic()

    def _open(self) -> BinaryIO:
        try:
            if self.path.exists() and not self.path.is_file():
                raise InputError(f"cannot write {self.path}: it is no file; name a .jsonl file")
            file = open(self.path, "a+b", buffering=0)
        except (OSError, ValueError) as error:
            raise cannot_write(self.path, error) from error
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(f"another process writes {self.path}; wait for it, or name another file") from None
        except (ImportError, OSError):
            pass  # no locks here
        return file

    def _read(self) -> tuple[list[tuple[bytes, dict[str, Any]]], bool]:
        """Whole lines with what they say, and whether something stands behind them."""
        self._file.seek(0)
        *lines, rest = self._file.read().split(b"\n")
        found = []
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict) or not isinstance(value.get("id"), str) or "input" not in value:
                raise InputError(f"{self.path}:{number} is no result of this command; name another file with -o")
            found.append((line + b"\n", value))
        return found, bool(rest)

    def _check_request(self, request: Mapping[str, Any], *, empty: bool) -> None:
        """InputError where results are there that came of another request; it is written where none are."""
        wanted = {"format": FORMAT, "request": json.loads(json.dumps(dict(request)))}
        if empty:
            if self.beside.exists() and not _is_request(self.beside):
                raise InputError(f"cannot write {self.beside}: it is there and not of this command; name another -o")
            write_json(self.beside, wanted)
            return
        if not self.beside.is_file():
            raise InputError(
                f"{self.path} holds results, and {self.beside.name}, which says how they were made, is missing; "
                "name another file with -o"
            )
        found = read_json(self.beside)
        if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("request"), dict):
            raise InputError(f"{self.beside} has another format; name another file with -o")
        before, now = found["request"], wanted["request"]
        for name in sorted({*before, *now}):
            if name.endswith(CONTENTS) and name not in before:
                continue  # of an earlier version, which did not look
            if before.get(name) != now.get(name):
                raise InputError(
                    f"{self.path} was made with {name} {before.get(name)!r}, not {now.get(name)!r}; "
                    "name another file with -o, or repeat the command as it was"
                )

    @staticmethod
    def _finished(lines: Sequence[tuple[bytes, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
        return {line["id"]: line for _, line in lines if "error" not in line}

    def _begin(self, lines: Sequence[tuple[bytes, dict[str, Any]]], torn: bool) -> None:
        """Drop what is torn, and the lines of inputs that failed."""
        kept = [content for content, line in lines if "error" not in line]
        if len(kept) < len(lines):
            atomic_write_bytes(self.path, b"".join(kept))
            self._file.close()
            self._file = self._open()
        elif torn:
            self._file.truncate(sum(map(len, kept)))

    def append(self, line: Mapping[str, Any]) -> None:
        """Write a line, in one piece; InputError where there is no space for it."""
        content = memoryview(encoded(line))
        try:
            while content:  # a disk that fills up takes a part
                content = content[self._file.write(content) or 0 :]
            if time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def finish(self, order: Sequence[str]) -> None:
        """Everything is written: lines stand in this order of their ids, behind those of other inputs."""
        os.fsync(self._file.fileno())
        lines, _ = self._read()
        places = {name: place for place, name in enumerate(order)}
        wanted = sorted(lines, key=lambda one: places.get(one[1]["id"], -1))
        if wanted != lines:
            atomic_write_bytes(self.path, b"".join(content for content, _ in wanted))

    def remove(self) -> None:
        """Remove it, where what it holds has another place now."""
        self.path.unlink(missing_ok=True)  # first: results without what they were asked with are refused
        self.beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others write it."""
        self._file.close()
