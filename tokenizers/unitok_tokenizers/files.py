"""Atomic writing, JSON and fingerprints: a reader never sees half a file under a final name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError

HASH_BLOCK_BYTES = 1 << 20


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def ensure_writable_parent(path: Path) -> None:
    """Create the folder above `path`; InputError where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def _lock(handle: int) -> None:
    """Hold a file or folder until it is closed or the process ends; without effect where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass


def _claim(draft: Path, *, folder: bool) -> int:
    """Open a draft for this process alone.

    A draft has one fixed name, so that what a killed process left is taken over and nothing piles up; a living
    process that writes the same draft holds its lock and is waited for.
    """
    while True:
        if folder:
            draft.mkdir(exist_ok=True)
        try:
            handle = os.open(draft, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # another process has just given it its final name
        _lock(handle)
        try:
            if os.path.samestat(os.fstat(handle), os.stat(draft)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)


def draft_of(final: Path) -> Path:
    """The hidden sibling in which `final` is made."""
    return final.with_name(f".{final.name}.part")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    """Remove a folder that is whole until it is gone: it loses its name before it loses its files."""
    old = path.with_name(f".{path.name}.old")
    if old.exists():
        _remove(old)
    os.rename(path, old)
    _remove(old)


@contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the name `path` when the block ends without an error.

    An existing folder of that name is replaced as a whole; a failure leaves it as it was. What a killed process left
    of its own draft is removed.
    """
    final = Path(path)
    ensure_writable_parent(final)
    draft, old = draft_of(final), final.with_name(f".{final.name}.old")
    try:
        handle = _claim(draft, folder=True)
        for leftover in (*draft.iterdir(), *([old] if old.exists() else [])):
            _remove(leftover)
    except OSError as error:
        raise InputError(f"cannot write {final}: {error.strerror}; choose a folder that can be written") from error
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
        if final.exists():
            os.rename(final, old)
        os.rename(draft, final)
        sync_folder(final.parent)
        if old.exists():
            _remove(old)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file that is either the old one or the new one, whole, at every moment."""
    final = Path(path)
    ensure_writable_parent(final)
    draft = draft_of(final)
    try:
        handle = _claim(draft, folder=False)
    except OSError as error:
        raise InputError(f"cannot write {final}: {error.strerror}; choose a folder that can be written") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.truncate()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(draft, final)  # before the lock goes with the handle
        sync_folder(final.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"cannot write {final}: {error.strerror}; make space or choose another folder") from error


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically: sorted keys, two spaces, a trailing newline, so that equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    atomic_write_bytes(path, text.encode("utf-8"))


def read_json(path: Path | str) -> Any:
    """Read JSON; InputError where the file is missing or malformed."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path} is not readable JSON ({error}); write it again with the command that made it"
        ) from error


def sha256_file(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def array_fingerprint(*arrays: np.ndarray) -> str:
    """16 hexadecimal digits that identify arrays: their types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
