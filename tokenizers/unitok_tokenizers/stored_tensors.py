"""Tensors that stay in their files until they are read: whole, or the rows that somebody needs.

R rows, the first axis. A tensor may lie in several files or under several names, rows after rows: what each process of
a run has saved, or what one matrix joins.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_BYTES = 1 << 24
"""Bytes of rows that are copied at once from file to file."""
REMEDY = "copy the file again, or make it with the command that wrote it"


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor that lie together."""

    source: Any
    """What gives rows [a:b] as a tensor: one in memory, or one in a file."""
    start: int
    """Its first row that is meant."""
    rows: int
    """How many follow."""


class StoredTensor:
    """A tensor by its pieces; nothing is read before it is asked for."""

    def __init__(self, pieces: Sequence[Piece], shape: Sequence[int], dtype: Any) -> None:
        self.pieces, self.shape, self.dtype = tuple(pieces), tuple(shape), dtype

    @staticmethod
    def of(value: Tensor) -> StoredTensor:
        """A tensor in memory as one that is stored."""
        rows = value.shape[0] if value.ndim else 1
        return StoredTensor([Piece(value, 0, rows)], value.shape, value.dtype)

    def __getitem__(self, rows: slice) -> Tensor:
        """Rows (r, …); only they are read."""
        import torch

        start, stop, _ = rows.indices(self.shape[0])
        found, at = [], 0
        with torch.device("cpu"):  # whatever the default device is, safetensors makes its tensors there
            for piece in self.pieces:
                low, high = max(start - at, 0), min(stop - at, piece.rows)
                if low < high:
                    found.append(piece.source[piece.start + low : piece.start + high])
                at += piece.rows
        if len(found) == 1:
            only: Tensor = found[0]
            return only
        return torch.cat(found) if found else torch.empty((0, *self.shape[1:]), dtype=self.dtype)

    def whole(self) -> Tensor:
        """All of it, in its shape."""
        only: Tensor = self.pieces[0].source
        return self[:] if self.shape else only

    def part(self, start: int, stop: int) -> StoredTensor:
        """Rows from `start` to `stop` as a tensor of their own."""
        found, at = [], 0
        for piece in self.pieces:
            low, high = max(start - at, 0), min(stop - at, piece.rows)
            if low < high:
                found.append(Piece(piece.source, piece.start + low, high - low))
            at += piece.rows
        return StoredTensor(found, (stop - start, *self.shape[1:]), self.dtype)


def joined(parts: Sequence[StoredTensor]) -> StoredTensor:
    """Tensors of one width, rows after rows."""
    if len(parts) == 1:
        return parts[0]
    rows = sum(part.shape[0] for part in parts)
    pieces = [piece for part in parts for piece in part.pieces]
    return StoredTensor(pieces, (rows, *parts[0].shape[1:]), parts[0].dtype)


class StoredTensors(Mapping[str, "Tensor"]):
    """Stored tensors by name, as a mapping of whole ones: each is read when it is asked for, and not kept."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self.stored = dict(stored)

    def __getitem__(self, name: str) -> Tensor:
        return self.stored[name].whole()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)


def shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Shape of one of them, which is not read for it."""
    return tensors.stored[name].shape if isinstance(tensors, StoredTensors) else tuple(tensors[name].shape)


def rows_of(tensors: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    """Rows of one of them; where it is stored nothing else is read."""
    return tensors.stored[name][start:stop] if isinstance(tensors, StoredTensors) else tensors[name][start:stop]


def open_tensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """(tensors of a safetensors file by name, the notes in its header).

    The file is mapped: what is deleted meanwhile can still be read.

    Raises:
        InputError: it is missing, or is none.
    """
    import torch
    from safetensors import safe_open

    if not path.is_file():
        raise InputError(f"no weights {path}; {REMEDY}")
    found = {}
    with intact(path, REMEDY):
        with safe_open(path, framework="pt") as handle, torch.device("cpu"):
            for name in handle.keys():
                source = handle.get_slice(name)
                shape = tuple(source.get_shape())
                if shape:
                    found[name] = StoredTensor([Piece(source, 0, shape[0])], shape, source[0:0].dtype)
                else:
                    found[name] = StoredTensor.of(handle.get_tensor(name))
            note = dict(handle.metadata() or {})
    return found, note


def write_stored(path: Path, tensors: Mapping[str, StoredTensor], note: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file from stored tensors, a few rows at a time."""
    import torch

    header: dict[str, Any] = {} if note is None else {"__metadata__": dict(note)}
    at, names = 0, sorted(tensors)
    for name in names:
        value = tensors[name]
        assert value.shape, f"{name} has no rows"
        size = math.prod(value.shape) * value.dtype.itemsize
        header[name] = {"dtype": _name(value.dtype), "shape": list(value.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            value = tensors[name]
            row = math.prod(value.shape[1:]) * value.dtype.itemsize
            step = max(CHUNK_BYTES // max(row, 1), 1)
            for start in range(0, value.shape[0], step):
                chunk = value[start : start + step].contiguous().reshape(-1).view(torch.uint8)
                file.write(chunk.numpy().data)


def _name(dtype: Any) -> str:
    """A type as safetensors calls it."""
    import torch

    return {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
