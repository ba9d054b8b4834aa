"""The files of a sharded run's checkpoint, each written by its own process, without torch.

What stands in them is torch's distributed checkpoint in safetensors: a file per process, whose header says where each
slice begins in the whole tensor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, draft_of, read_json, sha256_file, write_json
from unitok_training.checkpoint.files import FORMAT, STATE_FILE, Plain, prune_checkpoints, write_tensors

SHARDS = "shards"
"""Folder of a checkpoint that was written by several processes, in place of the model's and the optimizer's files."""
PATIENCE = 600.0
"""Seconds that a process waits for another one's files."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one process writes of a checkpoint."""

    rank: int
    """Number of the process."""
    size: int
    """Number of processes."""
    mark: str
    """Text that only the processes of this save know: files of a save that was cut short are not taken for its own."""
    offsets: Mapping[str, list[int]]
    """Where each slice begins in the whole tensor."""


def write_share(
    folder: Path, parts: Mapping[str, Mapping[str, Plain]], state: Mapping[str, Any], *, step: int, keep: int,
    share: Share,
) -> None:  # fmt: skip
    """Write one process's part of `folder`/step_XXXXXXXX on a file system that all processes see.

    The slices are `parts["slices"]`. The first process makes the hidden draft, writes what else is in `parts`, waits
    for the others' files, and gives the folder its name when all are there. InputError where they do not come.
    """
    path = folder / f"step_{step:08d}"
    slices = parts["slices"]
    if share.rank:
        draft = draft_of(path)
        _await(draft / f"{share.mark}.open", path)
        _write_slices(draft, slices, share)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_directory(path) as draft:
        (draft / SHARDS).mkdir()
        (draft / f"{share.mark}.open").touch()
        _write_slices(draft, slices, share)
        rest = {name: tensors for name, tensors in parts.items() if name != "slices"}
        files = [write_tensors(draft / f"{name}.safetensors", tensors) for name, tensors in rest.items()]
        checksums = {file.name: sha256_file(file) for file in files}
        for rank in range(share.size):
            report = _await(draft / f"{share.mark}.{rank}", path)
            checksums |= read_json(report)
            report.unlink()
        (draft / f"{share.mark}.open").unlink()
        write_json(draft / STATE_FILE, {**state, "format": FORMAT, "step": step, "sha256": checksums})
    prune_checkpoints(folder, keep)


def _write_slices(draft: Path, slices: Mapping[str, Plain], share: Share) -> None:
    """Write this process's file, and beside it what the first process waits for: its name and checksum."""
    places = {name: {"saved_offsets": share.offsets[name]} for name in slices}
    note = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(places)}
    file = draft / SHARDS / f"shard-{share.rank + 1:05d}-model-00001-of-00001.safetensors"
    write_tensors(file, slices, note)
    write_json(draft / f"{share.mark}.{share.rank}", {f"{SHARDS}/{file.name}": sha256_file(file)})


def _await(file: Path, path: Path) -> Path:
    """`file`, when another process has made it."""
    end = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > end:
            raise InputError(
                f"{path} is not written: the other processes' files did not come within {PATIENCE:.0f} s; the "
                "checkpoint before is whole: the processes need a file system that all of them see"
            )
        time.sleep(0.02)
    return file
