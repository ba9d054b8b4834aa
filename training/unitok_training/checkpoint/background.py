"""Checkpoints written beside training by another process: a step waits for a copy of the tensors, not for the disk."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import cannot_write
from unitok_training.checkpoint.shard_files import Share
from unitok_training.checkpoint.state import Checkpoint, plain_tensor
from unitok_training.checkpoint.writer import write

ALIGN = 64
"""Bytes that every tensor's place in the shared memory is a multiple of."""


class BackgroundSaver:
    """Writes one checkpoint at a time in a process of its own; the memory shared with it is kept and used again.

    An error of a write is raised by the next `save` or `wait`. A training process that is killed meanwhile takes the
    other one with it and leaves the checkpoint before whole.
    """

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        """The process that writes, from the first `save` to `close`."""
        self._finalizer: weakref.finalize | None = None  # type: ignore[type-arg]
        self._file: Any = None
        self._memory: mmap.mmap | None = None
        self._locked: weakref.finalize | None = None  # type: ignore[type-arg]
        """Unlocks the memory; also where nobody calls `close`."""
        self._layout: list[tuple[str, str, torch.dtype, tuple[int, ...], int, int]] = []
        self._places: list[Tensor] = []
        self._busy: Path | None = None

    def save(self, folder: Path, checkpoint: Checkpoint, *, step: int, keep: int, last: bool = False) -> None:
        """Copy what is to be saved and return; the write of the checkpoint before has ended by then.

        After the `last` there is nothing to do beside its write: where no process has been started yet, it is written
        here and now.
        """
        parts = {"model": checkpoint.model, "optimizer": checkpoint.optimizer, "rng": checkpoint.rng}
        request = {"state": dict(checkpoint.state), "step": step, "keep": keep, "share": None}
        self._begin(folder, parts, request, last=last)

    def save_share(
        self, folder: Path, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], share: Share, *,
        step: int, keep: int, last: bool = False,
    ) -> None:  # fmt: skip
        """The same for what one process of several holds: `parts` as `write_share` takes them."""
        request = {"state": dict(state), "step": step, "keep": keep, "share": asdict(share)}
        self._begin(folder, parts, request, last=last)

    def _begin(
        self, folder: Path, parts: Mapping[str, Mapping[str, Tensor]], request: Mapping[str, Any], *, last: bool
    ) -> None:
        self.wait()
        if last and self.process is None:
            plain = {part: {name: plain_tensor(one) for name, one in named.items()} for part, named in parts.items()}
            try:
                write(folder, plain, request)
            except OSError as error:
                raise InputError(str(error)) from error
            return
        tensors = [(part, name, value) for part, named in parts.items() for name, value in named.items()]
        try:
            self._place(tensors)
        except OSError as error:
            self.close()
            raise cannot_write(folder, error) from error
        with torch.no_grad():
            for place, (_, _, value) in zip(self._places, tensors, strict=True):
                place.copy_(value, non_blocking=True)
        for device in {value.device for _, _, value in tensors if value.device.type == "cuda"}:
            torch.cuda.synchronize(device)
        table: dict[str, list[Any]] = {part: [] for part in parts}
        for part, name, dtype, shape, start, end in self._layout:
            table[part].append((name, str(dtype).removeprefix("torch."), shape, start, end))
        assert self._memory is not None
        where = {"folder": str(folder.absolute()), "parts": table, "size": len(self._memory)}
        self._ask({**request, **where}, folder)

    def wait(self) -> None:
        """Return when nothing is being written; raises what the write met."""
        if self._busy is None:
            return
        assert self.process is not None and self.process.stdout is not None
        folder, self._busy = self._busy, None
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.close()
            raise InputError(
                f"the process that writes checkpoints to {folder} ended with code {code}; the one before is whole: "
                "make memory free and repeat the command"
            )
        answer = json.loads(line)
        if answer.get("defect"):
            raise RuntimeError(answer["defect"])
        if answer["error"]:
            raise InputError(answer["error"])

    def close(self) -> None:
        """End the process when it has written; `save` may be called again."""
        self._unlock()
        if self._finalizer is not None:
            self._finalizer()
        elif self._file is not None:
            self._file.close()
        self.process = self._finalizer = None
        self._file, self._memory, self._layout, self._places = None, None, [], []

    def _unlock(self) -> None:
        """Give page-locked memory back before it goes: an address that the driver still holds cannot be locked again,
        and its error would come out of whatever asks the GPU next."""
        if self._locked is not None:
            self._locked()
            self._locked = None

    def _place(self, tensors: list[tuple[str, str, Tensor]]) -> None:
        """Shared memory with a place for every tensor, made anew only where their shapes change."""
        layout, at = [], 0
        for part, name, value in tensors:
            end = at + value.numel() * value.element_size()
            layout.append((part, name, value.dtype, tuple(value.shape), at, end))
            at = (end + ALIGN - 1) // ALIGN * ALIGN
        if layout == self._layout:
            return
        self._unlock()
        self._layout, self._places = [], []
        if self._file is None:
            # Memory without a name: nothing is left of it when both processes have ended, however they do.
            anonymous = hasattr(os, "memfd_create")
            self._file = os.fdopen(os.memfd_create("checkpoint"), "w+b") if anonymous else tempfile.TemporaryFile()
        self._file.truncate(max(at, mmap.PAGESIZE))
        self._memory = mmap.mmap(self._file.fileno(), max(at, mmap.PAGESIZE))
        whole = torch.frombuffer(self._memory, dtype=torch.uint8)
        if any(value.device.type == "cuda" for _, _, value in tensors):
            self._locked = lock_pages(self, whole)
        for _, _, dtype, shape, start, end in layout:
            self._places.append(whole[start:end].view(dtype).view(shape))
        self._layout = layout

    def _ask(self, request: dict[str, Any], folder: Path) -> None:
        if self.process is None:
            handle = self._file.fileno()
            command = [sys.executable, "-m", "unitok_training.checkpoint.writer", str(handle), str(os.getpid())]
            paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(handle,), env=paths
            )
            self._finalizer = weakref.finalize(self, _end, self.process, self._file)
        assert self.process.stdin is not None
        self._busy = folder
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # it has ended: the next `wait` says so
            pass


def lock_pages(owner: object, memory: Tensor) -> weakref.finalize | None:  # type: ignore[type-arg]
    """Lock the pages of host memory, which a GPU then fills several times quicker; returns what unlocks them.

    They are unlocked when `owner` goes, at the latest when the process ends. None where the driver refuses: the copies
    are slower then, and nothing else is different.
    """
    runtime = torch.cuda.cudart()
    address = memory.data_ptr()
    if int(runtime.cudaHostRegister(address, memory.numel(), 0)) != 0:
        forget_error()
        return None
    # The tensor goes along: its memory must not be given back before it is unlocked.
    return weakref.finalize(owner, _unlock_pages, runtime, address, memory)


def forget_error() -> None:
    """Take back the error that a refused call has left: torch reports it with the next kernel, whichever that is."""
    try:
        torch.zeros(1, device="cuda")
    except RuntimeError:
        pass


def _unlock_pages(runtime: Any, address: int, memory: Tensor) -> None:
    assert memory.data_ptr() == address
    torch.cuda.synchronize()  # a copy may be on its way into it
    runtime.cudaHostUnregister(address)


def _end(process: subprocess.Popen[str], file: Any) -> None:
    """Let the process end with its input, and the shared memory with it."""
    file.close()
    if process.stdin is not None and not process.stdin.closed:
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
