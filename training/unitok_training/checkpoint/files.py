"""The files of a checkpoint directory, written without torch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, read_json, remove_directory, sha256_file, write_json

STATE_FILE = "state.json"
DAMAGED = "damaged_"
"""What the name of a checkpoint begins with that was set aside."""
FORMAT = 1


@dataclass(frozen=True)
class Plain:
    """A tensor without torch."""

    dtype: str
    """Such as "bfloat16"."""
    shape: tuple[int, ...]
    data: np.ndarray
    """(N,) uint8: its bytes, row by row."""


def write_checkpoint(
    folder: Path, parts: Mapping[str, Mapping[str, Plain]], state: Mapping[str, Any], *, step: int, keep: int
) -> Path:
    """Write `folder`/step_XXXXXXXX atomically and remove all but the newest `keep`. Returns its path.

    `parts` are the tensors of each file by name.
    """
    path = folder / f"step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_directory(path) as temporary:
        files = [write_tensors(temporary / f"{name}.safetensors", tensors) for name, tensors in parts.items()]
        checksums = {file.name: sha256_file(file) for file in files}
        write_json(temporary / STATE_FILE, {**state, "format": FORMAT, "step": step, "sha256": checksums})
    prune_checkpoints(folder, keep)
    return path


def write_tensors(file: Path, tensors: Mapping[str, Plain], note: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file with `note` in its header. Returns its path."""
    from safetensors import TensorSpec, serialize_file

    places = {
        name: TensorSpec(
            dtype=value.dtype, shape=value.shape, data_ptr=value.data.ctypes.data, data_len=value.data.nbytes
        )
        for name, value in tensors.items()
    }
    serialize_file(places, str(file), None if note is None else dict(note))
    return file


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` and the best, and what a process that was killed at it has left."""
    paths = list_checkpoints(folder)
    best = best_checkpoint(folder)
    for old in paths[: -max(keep, 1)]:
        if old != best:
            remove_directory(old)
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the best validation, as the newest one names it; None where there was no validation."""
    paths = list_checkpoints(folder)
    if not paths or not (paths[-1] / STATE_FILE).is_file():
        return None
    try:
        state = read_json(paths[-1] / STATE_FILE)
    except InputError:
        return None  # whoever continues says so, and sets it aside
    best = state.get("best") if isinstance(state, dict) else None
    path = None if best is None else folder / f"step_{best['step']:08d}"
    return path if path in paths else None


def set_aside(folder: Path, *, newest: int) -> list[str]:
    """Rename checkpoints behind the step of the newest whole one: they count no longer, neither as the newest nor among
    those that are kept. Returns what to tell."""
    told = []
    for path in list_checkpoints(folder):
        if int(path.name.removeprefix("step_")) > newest:
            aside = folder / f"{DAMAGED}{path.name}"
            if aside.exists():
                remove_directory(aside)
            told.append(f"what was damaged is set aside: {path.rename(aside)}; it may be removed")
    return told


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint directories, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"step_\d{8,}", path.name))


def is_checkpoint(path: Path) -> bool:
    """Whether a path is a checkpoint, or the folder of all or of their run, of which the newest counts."""
    found = (any(place.glob(f"step_*/{STATE_FILE}")) for place in (path, path / "checkpoints"))
    return (path / STATE_FILE).is_file() or any(found)
