"""Frames of many recordings, of which memory holds no more than is bounded: the rest waits in a file.

F frames, M mel bins. A hundred hours of log-mels are 11 GB; a step of training reads a few megabytes of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.files import cannot_write

HELD_BYTES = 256 * 2**20
"""Most bytes that stay in memory."""


class FrameSpool(Sequence[Tensor]):
    """Log-mels (F, M) float32 in the order in which they were appended, bit for bit what they were.

    Args:
        held_bytes: beyond these, frames go to a temporary file (`TMPDIR`), which has no name and goes with the process.
    """

    def __init__(self, *, held_bytes: int = HELD_BYTES) -> None:
        self._left = held_bytes
        self._held: list[Tensor] = []
        self._file = -1
        self._end = 0
        self._places: list[tuple[int, tuple[int, int]]] = []
        """Of those in the file: where they begin, and their shape."""

    def append(self, frames: Tensor) -> None:
        """Take in one recording's frames; InputError where the disk has no room."""
        size = frames.numel() * frames.element_size()
        if not self._places and size <= self._left:
            self._left -= size
            self._held.append(frames)
            return
        try:
            if self._file < 0:
                self._file, name = tempfile.mkstemp(prefix="unitok-frames-")
                os.unlink(name)
            data = frames.detach().cpu().contiguous().numpy().astype(np.float32, copy=False).tobytes()
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            raise cannot_write(os.path.join(tempfile.gettempdir(), "unitok-frames"), error) from error
        self._places.append((self._end, (frames.shape[0], frames.shape[1])))
        self._end += size

    def lengths(self) -> list[int]:
        """F of each."""
        return [len(one) for one in self._held] + [shape[0] for _, shape in self._places]

    def __len__(self) -> int:
        return len(self._held) + len(self._places)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if index < len(self._held):
            return self._held[index]
        begin, shape = self._places[index - len(self._held)]
        data = os.pread(self._file, 4 * shape[0] * shape[1], begin)
        return torch.from_numpy(np.frombuffer(bytearray(data), dtype=np.float32)).view(shape)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)
