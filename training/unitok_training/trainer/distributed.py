"""Several processes, one model: started by torchrun, tensors summed in flat buckets."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from unitok_tokenizers.compute import resolve_device
from unitok_tokenizers.errors import InputError

BUCKET = 64 * 1024 * 1024
"""Elements summed at once: bounds the copy that a flat bucket costs."""
WORKER = "pt_gloo_runloop"
"""Name of the threads that carry out gloo's collectives."""


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all."""

    rank: int = 0
    """Number of this process."""
    size: int = 1
    """Number of processes."""
    device: torch.device = torch.device("cpu")
    """Where this process computes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors over all processes, in place, a bucket of one dtype at a time."""
        if self.size == 1:
            return
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            dist.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])
            torch._foreach_copy_(bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket)])

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors with those of rank 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def agree(self, value: int) -> int:
        """The value that rank 0 has given."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.int64, device=self.device)
        self.broadcast_([shared])
        return int(shared)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def buckets(tensors: Sequence[Tensor], limit: int = BUCKET) -> Iterator[list[Tensor]]:
    """Tensors grouped by dtype, in order, with at most `limit` elements a group (one larger tensor is a group)."""
    for dtype in sorted({tensor.dtype for tensor in tensors}, key=str):
        group: list[Tensor] = []
        elements = 0
        for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
            if group and elements + tensor.numel() > limit:
                yield group
                group, elements = [], 0
            group.append(tensor)
            elements += tensor.numel()
        yield group


def local_processes() -> int:
    """Processes that torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def world_from_environment(device: str | None = None) -> Iterator[World]:
    """The world that torchrun describes in the environment, or a single process.

    `device` is "cpu", "cuda" (with one warning where there is none, and the processor instead) or None (cuda where
    there is one). gloo connects CPUs, nccl GPUs. The group is closed at the end.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        warnings.warn("there is no GPU that torch can use: the processor is used instead", stacklevel=3)
        kind = "cpu"
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield World(device=place)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(minutes=10))
    try:
        yield World(rank=dist.get_rank(), size=dist.get_world_size(), device=place)
        dist.barrier()  # no process takes its connections down while another one still uses them
    finally:
        dist.destroy_process_group()
        if kind == "cpu":
            wait_for_gloo_threads()


@contextmanager
def world_of_command(device: str) -> Iterator[World]:
    """The world of a command that trains small networks, on what its `--device` says: "auto", "cpu", "cuda", "cuda:N".

    Raises:
        InputError: one GPU for several processes, or no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World()  # what it computes on is for the command to find out
        return
    kind, _, index = device.partition(":")
    if index:
        raise InputError(f"--device is {device}, and each of several processes has a GPU of its own: give cuda")
    resolve_device(device)
    with world_from_environment(None if kind == "auto" else kind) as world:
        yield world


def check_alone(what: str) -> None:
    """InputError where torchrun has started several processes of what only one can do."""
    if (size := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise InputError(f"{what} in one process, and torchrun has started {size}: start it without torchrun")


def wait_for_gloo_threads(seconds: float = 30.0) -> bool:
    """Wait until gloo's threads sleep; False where they do not within `seconds`, or where threads cannot be looked at.

    A collective is over for its caller before its thread lets go of the tensors, for which it needs the interpreter.
    The threads outlive the group (FSDP's caches hold it), and one that asks for the interpreter while that is ending
    aborts the whole process: "terminate called without an active exception".
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        time.sleep(0.1)
        return False
    end, asleep = time.monotonic() + seconds, 0
    while asleep < 3 and time.monotonic() < end:  # a thread that waits for this one to sleep seems to sleep itself
        asleep = 0 if any(_works(task) for task in tasks.iterdir()) else asleep + 1
        time.sleep(0.005)
    return asleep == 3


def _works(task: Path) -> bool:
    """Whether a thread of this process is one of gloo's and has something to do."""
    try:
        name, _, state = task.joinpath("stat").read_text().rpartition(")")
    except OSError:  # it has just ended
        return False
    return WORKER in name and not state.startswith(" S")
