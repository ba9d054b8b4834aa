"""Checkpoints of a sharded run: every process writes its slices, with torch's distributed checkpoint in safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from unitok_tokenizers.files import atomic_directory, draft_of, sha256_file, write_json
from unitok_training.checkpoint import FORMAT, SHARDS, STATE_FILE
from unitok_training.distributed import World


def save_shards(
    path: Path, tensors: Mapping[str, Tensor], rng: Mapping[str, Tensor], state: Mapping[str, Any], *, step: int,
    world: World,
) -> None:  # fmt: skip
    """Write the checkpoint directory `path` together: on a file system that all processes see, whole or not at all."""
    import torch.distributed.checkpoint as dcp

    with ExitStack() as stack:
        draft = draft_of(path)
        if world.is_main:
            draft = stack.enter_context(atomic_directory(path))
            (draft / SHARDS).mkdir()
        world.barrier()
        writer = dcp.HuggingFaceStorageWriter(str(draft / SHARDS), save_distributed=True)
        dcp.save(dict(tensors), storage_writer=writer)
        world.barrier()
        if world.is_main:
            save_file({name: value.contiguous() for name, value in rng.items()}, draft / "rng.safetensors")
            files = sorted(file for file in draft.rglob("*") if file.is_file())
            checksums = {file.relative_to(draft).as_posix(): sha256_file(file) for file in files}
            write_json(draft / STATE_FILE, {**state, "format": FORMAT, "step": step, "sha256": checksums})
    world.barrier()
