"""Atomic writing, JSON and fingerprints: a reader never sees half a file under a final name."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unitok_tokenizers.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

HASH_BLOCK_BYTES = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says where a disk, a quota or a file is full."""
PATIENCE = 5.0
"""Seconds that a run waits for another process to leave its folder: one that was stopped may still be saving."""
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
"""What it says where somebody may not write."""


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def cannot_write(path: Path | str, error: Exception) -> InputError:
    """What the operating system said about writing `path`, as one message with its remedy."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    if number == errno.ENOMEM:
        return InputError(f"cannot write {path}: {reason}; make memory free and repeat the command")
    full = number in FULL or "No space left" in reason or "File too large" in reason
    remedy = "make space and repeat the command" if full else "choose another place that can be written"
    return InputError(f"cannot write {path}: {reason}; {remedy}")


def cannot_use(error: OSError) -> InputError:
    """An `OSError` that nothing closer to its cause has explained, as one message with its remedy."""
    if error.errno in FULL or error.errno in REFUSED:
        return cannot_write(error.filename or "a file", error)
    named = f"{error.filename}: " if error.filename else ""
    return InputError(f"{named}{error.strerror or error}; check that the path exists, can be read, and is of its kind")


def check_utf8(path: Path | str, where: str) -> None:
    """InputError where a path's name is in another encoding, as of an archive that was unpacked."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise InputError(f"{where}: the path {shown} is not UTF-8; rename its folder or file (convmv)") from None


def ensure_writable_parent(path: Path) -> None:
    """Create the folder above `path`; InputError where that is impossible, or a name is no text."""
    check_utf8(path, "cannot write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise cannot_write(path, error) from error


def ensure_folder(path: Path | str, *, holds: Collection[str] = ()) -> None:
    """InputError where a folder `path` cannot be made, written, or replaced; for before long work is begun.

    A folder that exists may only hold names in `holds`; with none given, anything.
    """
    final = Path(path)
    ensure_writable_parent(final)
    try:
        if final.exists() and not final.is_dir():
            raise InputError(f"cannot write {final}: it is a file; choose the name of a folder")
        if holds and final.exists():
            check_replaceable(final, holds)
        within = final if final.exists() and not holds else final.parent  # nothing can be made beside a mounted disk
        probe = draft_of(within / f"{final.name}.probe")
        probe.write_bytes(b"")
        probe.unlink(missing_ok=True)  # another process of the same run may have probed, and cleaned up, first
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise cannot_write(final, error) from error


def check_replaceable(folder: Path, holds: Collection[str]) -> None:
    """InputError where replacing `folder` would delete what was never written by the same command."""
    if not folder.is_dir():
        raise InputError(f"cannot write {folder}: it is a file; choose the name of a folder")
    lost = sorted(entry.name for entry in folder.iterdir() if entry.name not in holds)
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise InputError(f"cannot replace {folder}: {lost[0]}{more} in it would be lost; choose a new folder")


@contextmanager
def intact(where: Path | str, remedy: str) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise into one message; for the bodies of loaders only."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RuntimeError,
        OSError,
        EOFError,
        SafetensorError,
        zlib.error,
    ) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        reason = f"no {first}" if isinstance(error, KeyError) else first
        raise InputError(f"{where} is damaged or incomplete ({reason}); {remedy}") from error
    except Exception as error:
        # What numpy and torch.load(weights_only=True) raise of damaged archives, and where there is more than weights;
        # the modules of these errors are never imported here.
        if type(error).__name__ == "BadZipFile":
            raise InputError(f"{where} is damaged or incomplete ({error}); {remedy}") from error
        if type(error).__name__ != "UnpicklingError":
            raise
        raise InputError(f"{where} is damaged, or holds more than weights; {remedy}") from error


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a safetensors file by name; InputError where it is missing or cut short. Nothing is unpickled."""
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise InputError(f"no weights {path}; copy the folder again, or make it with the command that wrote it")
    with intact(path, "copy the file again, or make it with the command that wrote it"):
        return load_file(path)


def _lock(handle: int) -> None:
    """Hold a file or folder until it is closed or the process ends; without effect where there are no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        pass


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a run's folder while the body runs; without effect where there are no such
    locks. A killed process leaves nothing behind: the lock, on the folder itself, is gone with it.

    Raises:
        InputError: another process writes it, and goes on to for `PATIENCE` seconds.
    """
    until = time.monotonic() + PATIENCE
    while (handle := _locked(folder)) is None:
        if time.monotonic() > until:
            raise InputError(f"another process writes {folder}: wait for it, stop it, or name another folder")
        time.sleep(0.05)
    try:
        yield
    finally:
        os.close(handle)


def _locked(folder: Path) -> int | None:
    """The folder, made where it is missing, open and held; None where another process holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), os.stat(folder)):
            return handle
    except (BlockingIOError, FileNotFoundError):  # or it was removed, and made again, meanwhile
        pass
    except (ImportError, OSError):
        return handle
    os.close(handle)
    return None


def _claim(draft: Path, *, folder: bool) -> int:
    """Open a draft for this process alone.

    A draft has one fixed name, so that what a killed process left is taken over and nothing piles up; a living
    process that writes the same draft holds its lock and is waited for.
    """
    while True:
        if folder:
            draft.mkdir(exist_ok=True)
        try:
            # a link would lead the writing, and the clearing away, out of this folder
            handle = os.open(draft, os.O_NOFOLLOW | (os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT), 0o666)
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


def open_draft(draft: Path) -> BinaryIO:
    """Open a draft for writing; OSError where a link stands in its place, which would lead the writing elsewhere."""
    return os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666), "wb")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _put_back(old: Path, final: Path) -> None:
    """Give a folder its name again where nothing came to replace it: the new one was about to take it."""
    if old.exists() and not final.exists():
        os.rename(old, final)


def remove_directory(path: Path) -> None:
    """Remove a folder that is whole until it is gone: it loses its name before it loses its files."""
    gone = path.with_name(f".{path.name}.removed")
    if gone.exists():
        _remove(gone)
    os.rename(path, gone)
    _remove(gone)


@contextmanager
def atomic_directory(path: Path | str, *, may_drop: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling folder that takes the name `path` when the block ends without an error.

    An existing folder of that name is replaced as a whole; a failure leaves it as it was. What a killed process left
    of its own draft is removed.

    Raises:
        InputError: the folder cannot be written, the disk is full, or the folder that would be replaced holds names
            that are neither in the new one nor in `may_drop` (what another version of it may have held).
    """
    from safetensors import SafetensorError

    ensure_writable_parent(final := Path(path))
    draft, old = draft_of(final), final.with_name(f".{final.name}.old")
    try:
        handle = _claim(draft, folder=True)
        _put_back(old, final)
        for leftover in (*draft.iterdir(), *([old] if old.exists() else [])):
            _remove(leftover)
    except (OSError, ValueError) as error:
        raise cannot_write(final, error) from error
    try:
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                with open(file, "rb") as written:
                    os.fsync(written.fileno())
        if final.exists():
            check_replaceable(final, {*may_drop, *(entry.name for entry in draft.iterdir())})
            os.rename(final, old)
        os.rename(draft, final)
        sync_folder(final.parent)
        if old.exists():
            _remove(old)
    except BaseException as error:
        _put_back(old, final)
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, OSError | SafetensorError):  # safetensors wraps what the system says about writing
            raise cannot_write(final, error) from error
        if isinstance(error, InputError) and str(draft) in str(error):
            raise InputError(str(error).replace(str(draft), str(final))) from error  # the name that the user gave
        raise
    finally:
        os.close(handle)


def check_no_device(path: Path) -> None:
    """InputError where a file would take the place of something else: a device, a pipe, a folder."""
    taken = False
    with suppress(OSError, ValueError):  # whoever writes says what is wrong with the name
        taken = path.exists() and not path.is_file()
    if taken:
        raise InputError(f"cannot write {path}: there is something that is no file; name another place")


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file that is either the old one or the new one, whole, at every moment."""
    final = Path(path)
    check_no_device(final)
    ensure_writable_parent(final)
    draft = draft_of(final)
    try:
        handle = _claim(draft, folder=False)
    except (OSError, ValueError) as error:
        raise cannot_write(final, error) from error
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
        raise cannot_write(final, error) from error


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
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not readable JSON ({error}); write it again with the command that made it"
        ) from error


def read_object(path: Path | str) -> dict[str, Any]:
    """Read a JSON object; InputError where the file is missing, malformed or holds something else."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a {type(value).__name__}, not an object; copy the file again")
    return value


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, those of folders behind links too, each folder once; links that lead nowhere among
    them, so that whoever reads them says so. In no order."""
    seen = set[tuple[int, int]]()
    for root, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(root)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(root, name)
            if path.is_file() or path.is_symlink() and not path.exists():
                yield path


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
