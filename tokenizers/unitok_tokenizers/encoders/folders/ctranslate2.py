"""Variables of a CTranslate2 `model.bin`: what faster-whisper and its kin keep weights in.

The file (binary version 6, little endian, CTranslate2 `specs/model_spec.py`): version, name of the specification,
revision, number of variables; each with name, rank, dimensions, type, bytes, data; then aliases, two names each.
Integers come with a scale per row (int8) or tensor (int16), value = integer ÷ scale.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import intact

VERSION = 6
TYPES: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.float16,
    torch.bfloat16,
)
"""By the number that the file writes."""
SCALE = "_scale"


@dataclass(frozen=True, kw_only=True)
class Ct2Variables:
    """What a `model.bin` holds."""

    spec: str
    """Name of the specification, such as `WhisperSpec`."""
    revision: int
    """Of the specification."""
    tensors: dict[str, Tensor]
    """Weights by name, float32 and dequantized."""
    scalars: dict[str, int | float]
    """Settings by name: values of rank 0."""
    aliases: dict[str, str]
    """Second names → names in `tensors`."""


class _Cursor:
    """Numbers, names and bytes of a file, in order."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError(f"ends after {len(self.data)} bytes, within what byte {self.at} begins")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self.bytes(struct.calcsize(kind)))[0])

    def name(self) -> str:
        return self.bytes(self.number("H")).rstrip(b"\0").decode("utf-8")


def read_ct2(path: Path | str) -> Ct2Variables:
    """Read a `model.bin`.

    Raises:
        InputError: the file is missing, cut short, of another version, or holds types that are not understood.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no weights {file}; a CTranslate2 folder has a model.bin: copy the folder again")
    with intact(file, "copy the file again, or convert the model again with CTranslate2 4"):
        cursor = _Cursor(file.read_bytes())
        version = cursor.number("I")
        if version != VERSION:
            raise InputError(f"{file} has binary version {version}; version {VERSION} is read: convert the model again")
        spec, revision = cursor.name(), cursor.number("I")
        raw = dict(_variable(cursor) for _ in range(cursor.number("I")))
        aliases = {cursor.name(): cursor.name() for _ in range(cursor.number("I"))}
        if cursor.at != len(cursor.data):
            raise ValueError(f"{len(cursor.data) - cursor.at} bytes behind the last alias")
        if lost := sorted(set(aliases.values()) - set(raw)):
            raise ValueError(f"an alias of {lost[0]}, which is not there")
        scalars = {name: value.item() for name, value in raw.items() if not value.ndim and not _is_scale(name, raw)}
        tensors = {
            name: _dequantized(name, value, raw)
            for name, value in raw.items()
            if value.ndim and not _is_scale(name, raw)
        }
        kept = {name: other for name, other in aliases.items() if not name.endswith(SCALE)}
        return Ct2Variables(spec=spec, revision=revision, tensors=tensors, scalars=scalars, aliases=kept)


def _variable(cursor: _Cursor) -> tuple[str, Tensor]:
    name = cursor.name()
    shape = [cursor.number("I") for _ in range(cursor.number("B"))]
    kind, size = cursor.number("B"), cursor.number("I")
    if kind >= len(TYPES):
        raise ValueError(f"type {kind} of {name}; known are 0 to {len(TYPES) - 1}")
    if size != math.prod(shape) * TYPES[kind].itemsize:
        raise ValueError(f"{size} bytes of {name} for shape {shape}")
    # bfloat16 is no numpy type: bytes are viewed by torch; the copy makes them writable and aligned
    data = torch.from_numpy(np.frombuffer(cursor.bytes(size), dtype=np.uint8).copy())
    return name, data.view(TYPES[kind]).reshape(shape)


def _is_scale(name: str, raw: dict[str, Tensor]) -> bool:
    """Whether a variable is the scale of integers; of anything else it would be dropped without a word."""
    owner = raw.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
    return owner is not None and not owner.is_floating_point()


def _dequantized(name: str, value: Tensor, raw: dict[str, Tensor]) -> Tensor:
    """float32 of a weight; of integers with their scale, per row (int8) or of the whole (int16)."""
    if value.is_floating_point():
        return value.float()
    scale: Any = raw.get(name + SCALE)
    if scale is None or value.dtype == torch.int32:
        raise ValueError(f"integers {name} without a scale")
    if scale.numel() != 1 and scale.shape != value.shape[:1]:
        raise ValueError(f"{scale.numel()} scales for {len(value)} rows of {name}")
    return value.float() / scale.float().reshape(-1, *[1] * (value.ndim - 1))
