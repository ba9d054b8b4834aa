"""The files of a sharded run's checkpoint, each written by its own process, without torch; and how they are opened.

What stands in them is torch's distributed checkpoint in safetensors: a file per process, whose header says where each
slice begins in the whole tensor.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, draft_of, intact, read_json, sha256_file, write_json
from unitok_tokenizers.stored_tensors import StoredTensor, joined, open_tensors
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
    # Not `write_json`, which opens the folder once more: the first process may have given it its name by then.
    report = draft / f".{share.mark}.{share.rank}"
    report.write_text(json.dumps({f"{SHARDS}/{file.name}": sha256_file(file)}), encoding="utf-8")
    report.rename(draft / f"{share.mark}.{share.rank}")


def open_shares(files: Sequence[Path]) -> dict[str, dict[str, StoredTensor]]:
    """{"model": …, "optimizer": …}: the whole tensors by name, each in pieces of as many files as have a share of it.

    InputError where a share is missing.
    """
    pieces: dict[str, list[tuple[int, StoredTensor]]] = {}
    for file in files:
        tensors, note = open_tensors(file)
        with intact(file, "copy the checkpoint again, or remove it and use an older one"):
            places = json.loads(note["DCP_SHARDING_INFO"])
            for full, value in tensors.items():
                pieces.setdefault(full, []).append(((places[full]["saved_offsets"] or [0])[0], value))
    found: dict[str, dict[str, StoredTensor]] = {"model": {}, "optimizer": {}}
    for full, shares in pieces.items():
        at, part, name = 0, *full.split("|", 1)
        shares.sort(key=lambda one: one[0])
        for start, value in shares:
            if start != at:
                raise InputError(f"{files[0].parent} lacks rows {at} to {start} of {name}; copy the checkpoint again")
            at += value.shape[0] if value.shape else 0
        found[part][name] = joined([value for _, value in shares])
    return found


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
