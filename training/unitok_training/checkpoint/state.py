"""Checkpoints: directories of safetensors and JSON, written atomically; the newest one that is whole is used.

checkpoints/step_00001000/
    model.safetensors        parameters by name in float32, tied ones once
    optimizer.safetensors    optimizer state by `parameter|key`
    rng.safetensors          torch's random states
    shards/                  in place of the two above: a file per process of a sharded run
    state.json               step, data state, configuration, environment, and a checksum per file
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unitok_tokenizers.compute import Compute
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import read_json, sha256_file
from unitok_tokenizers.stored_tensors import StoredTensors, open_tensors, shape_of
from unitok_training.checkpoint.files import FORMAT, STATE_FILE, Plain, list_checkpoints, write_checkpoint
from unitok_training.checkpoint.shard_files import SHARDS, open_shares

REMEDY = "copy the checkpoint again, or remove it and use an older one"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory, or opened where it lies."""

    model: Mapping[str, Tensor]
    """Parameters and buffers by name."""
    optimizer: Mapping[str, Tensor]
    """Optimizer state by name."""
    rng: Mapping[str, Tensor]
    """Random states by device."""
    state: Mapping[str, Any]
    """JSON: step, data, configuration, environment."""
    path: Path | None = None
    """Where it was read from."""


def module_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name; a tied parameter appears once, under its first name."""
    parameters = {name: value.detach() for name, value in module.named_parameters()}
    names = set(module.state_dict())
    buffers = {name: value for name, value in module.named_buffers() if name in names}
    return {**parameters, **buffers}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module in place, one after another where they are stored.

    InputError on a missing, unknown or misshapen name.
    """
    check_names(module, tensors)
    with torch.no_grad():
        for name, value in module_tensors(module).items():
            value.copy_(tensors[name])


def check_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """InputError where tensors are not a module's, by name and shape."""
    own = module_tensors(module)
    missing, unknown = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    if missing or unknown:
        raise InputError(
            f"checkpoint does not fit the model: lacks {missing[:5]}, has unknown {unknown[:5]}; "
            "take the recipe that trained it"
        )
    for name, value in own.items():
        if value.shape != (shape := shape_of(tensors, name)):
            raise InputError(
                f"checkpoint does not fit the model: {name} is {shape} in the file and "
                f"{tuple(value.shape)} in the model; take the recipe and the tokenizers that trained it"
            )


def random_states() -> dict[str, Tensor]:
    """State of torch's global generators (the project's own draws are pure functions of seeds and have none)."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Inverse of `random_states`."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def seed_draws(seed: int) -> None:
    """Seed torch's generators: what `torch.manual_seed` does, which spends milliseconds on where it was called from."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def environment(compute: Compute, **extra: Any) -> dict[str, Any]:
    """What a bit-equal repetition depends on, besides the configuration and the data."""
    return {
        **compute.to_json(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **extra,
    }


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, step: int, keep: int = 2) -> Path:
    """Write `folder`/step_XXXXXXXX and remove all but the newest `keep` others. Returns its path."""
    parts = {"model": checkpoint.model, "optimizer": checkpoint.optimizer, "rng": checkpoint.rng}
    plain = {part: {name: plain_tensor(value) for name, value in tensors.items()} for part, tensors in parts.items()}
    return write_checkpoint(folder, plain, checkpoint.state, step=step, keep=keep)


def plain_tensor(value: Tensor) -> Plain:
    """A tensor's bytes, type and shape, as what writes files takes it."""
    data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return Plain(str(value.dtype).removeprefix("torch."), tuple(value.shape), data)


def read_checkpoint(path: Path, *, check: bool = True) -> Checkpoint:
    """Open one checkpoint directory and check it, checksums too where `check` is set.

    Weights and optimizer state stay in the files until they are asked for, each whole or by rows. InputError where it
    is no checkpoint, or is damaged.
    """
    if not (path / STATE_FILE).is_file():
        raise InputError(f"{path} holds no checkpoint: {STATE_FILE} is missing; name a step_XXXXXXXX directory")
    state = read_json(path / STATE_FILE)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise InputError(f"{path / STATE_FILE} is not a checkpoint of format {FORMAT}; {REMEDY}")
    split = (path / SHARDS).is_dir()
    names = state["sha256"] if split else [f"{name}.safetensors" for name in ("model", "optimizer", "rng")]
    for name in names:
        if not (path / name).is_file():
            raise InputError(f"{path} is incomplete: {name} is missing; {REMEDY}")
        if check and sha256_file(path / name) != state["sha256"].get(name):
            raise InputError(f"{path / name} is damaged: its checksum differs from the one in {STATE_FILE}; {REMEDY}")
    if split:
        parts = open_shares(sorted(path / name for name in names if name.startswith(f"{SHARDS}/")))
    else:
        parts = {name: open_tensors(path / f"{name}.safetensors")[0] for name in ("model", "optimizer")}
    tensors = {name: StoredTensors(stored) for name, stored in parts.items()}
    return Checkpoint(**tensors, rng=load_file(path / "rng.safetensors"), state=state, path=path)


def latest_checkpoint(folder: Path, *, report: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest whole checkpoint under a folder; damaged ones are named and skipped. None where there is none.

    InputError where there are checkpoints and none can be read: starting over silently would throw work away.
    """
    paths = list_checkpoints(folder)
    for path in reversed(paths):
        try:
            return read_checkpoint(path)
        except InputError as error:
            report(f"skipped a checkpoint: {error}")
    if paths:
        raise InputError(f"{folder} holds {len(paths)} checkpoints and none is whole: remove them to start over")
    return None


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint by the path a user gave: one of its directories, the folder of all, or the run's. Never None."""
    if (path / STATE_FILE).is_file():
        return read_checkpoint(path)
    for folder in (path, path / "checkpoints"):
        if (found := latest_checkpoint(folder)) is not None:
            return found
    raise InputError(f"{path} holds no checkpoint (no step_XXXXXXXX directory in it or in its checkpoints/)")
