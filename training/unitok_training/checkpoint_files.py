"""The files of a checkpoint directory, written without torch: also by a process of their own, which starts at once.

`python -m unitok_training.checkpoint_files FD PARENT` is that process. It reads a JSON line per checkpoint from its
input, the tensors from the shared memory behind the file descriptor FD, and answers with a JSON line. It ends with its
input, or at once when the process PARENT is killed: what it was writing then never gets its final name.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, remove_directory, sha256_file, write_json

STATE_FILE = "state.json"
FORMAT = 1
PARENT_DIES = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


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
    from safetensors import TensorSpec, serialize_file

    path = folder / f"step_{step:08d}"
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_directory(path) as temporary:
        checksums = {}
        for name, tensors in parts.items():
            file = temporary / f"{name}.safetensors"
            places = {
                key: TensorSpec(
                    dtype=value.dtype, shape=value.shape, data_ptr=value.data.ctypes.data, data_len=value.data.nbytes
                )
                for key, value in tensors.items()
            }
            serialize_file(places, str(file), None)
            checksums[file.name] = sha256_file(file)
        write_json(temporary / STATE_FILE, {**state, "format": FORMAT, "step": step, "sha256": checksums})
    prune_checkpoints(folder, keep)
    return path


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`, and what a process that was killed while it wrote or removed one has left."""
    for old in list_checkpoints(folder)[: -max(keep, 1)]:
        remove_directory(old)
    for leftover in folder.glob(".step_*"):
        shutil.rmtree(leftover)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint directories, oldest first, whole or not."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and re.fullmatch(r"step_\d{8,}", path.name))


def serve(handle: int) -> None:
    """Write what is asked for on standard input until it ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            memory = np.frombuffer(mmap.mmap(handle, request["size"], access=mmap.ACCESS_READ), np.uint8)
            parts = {
                part: {name: Plain(dtype, shape, memory[start:end]) for name, dtype, shape, start, end in tensors}
                for part, tensors in request["parts"].items()
            }
            folder = Path(request["folder"])
            write_checkpoint(folder, parts, request["state"], step=request["step"], keep=request["keep"])
            answer = {"error": ""}
        except (InputError, OSError) as error:
            answer = {"error": str(error)}
        except Exception:  # told to the process that asked, which raises it
            answer = {"error": "", "defect": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


def die_with(parent: int) -> None:
    """Be killed when the process that started this one is (Linux; elsewhere the end of the input has to do)."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's interrupt is for training, which ends this process
    die_with(int(sys.argv[2]))
    serve(int(sys.argv[1]))
