"""Checkpoints written beside training: a step waits for a copy of the tensors, not for the disk."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unitok_training.checkpoint import Checkpoint, save_checkpoint


class BackgroundSaver:
    """Writes one checkpoint at a time in a thread; copies are kept and used again.

    An error of a write is raised by the next `save` or `wait`. A process that is killed meanwhile leaves the checkpoint
    before, as `save_checkpoint` does.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, folder: Path, checkpoint: Checkpoint, *, step: int, keep: int) -> None:
        """Copy what is to be saved and return; the write of the checkpoint before has ended by then."""
        self.wait()
        copied = replace(
            checkpoint,
            model=self._copy("model", checkpoint.model),
            optimizer=self._copy("optimizer", checkpoint.optimizer),
            rng={name: value.clone() for name, value in checkpoint.rng.items()},
        )
        self._thread = threading.Thread(
            target=self._write, args=(folder, copied, step, keep), name="checkpoint", daemon=False
        )
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written; raises what the write raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    @torch.no_grad()
    def _copy(self, part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        copies: dict[str, Tensor] = {}
        for name, value in tensors.items():
            key = f"{part}/{name}"
            held = self._copies.get(key)
            if held is None or held.shape != value.shape or held.dtype != value.dtype:
                pinned = value.device.type == "cuda"
                held = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=pinned)
                self._copies[key] = held
            copies[name] = held.copy_(value, non_blocking=True)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return copies

    def _write(self, folder: Path, checkpoint: Checkpoint, step: int, keep: int) -> None:
        try:
            save_checkpoint(folder, checkpoint, step=step, keep=keep)
        except BaseException as error:  # raised where the caller next looks
            self._error = error
