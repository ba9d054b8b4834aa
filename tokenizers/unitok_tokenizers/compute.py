"""What a computation runs on and in which precision: chosen here, and nowhere else.

`resolve` turns "auto" into what this machine does well; what it chose travels as one frozen `Compute`, which hands out
the autocast context and the types that follow from it. A processor without bfloat16 units multiplies bfloat16 eighty
times slower than float32 (two-core AVX2: 1 against 84 GFLOP/s a core), and one with them eight times faster: neither
may be a default of the other.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from unitok_tokenizers.errors import InputError

AUTO = "auto"
PRECISIONS = (AUTO, "fp32", "bf16", "bf16-pure")
"""Float32; float32 weights with bfloat16 products; bfloat16 weights with float32 masters, for training alone."""
PRECISION_VARIABLE = "UNITOK_PRECISION"
"""Environment variable that decides wherever nothing but "auto" was asked for."""
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")
"""What Linux calls a processor's bfloat16 units: Intel's tiles, AVX-512, Arm."""
AMPERE = 8
"""Major compute capability of the first GPUs that multiply bfloat16."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """A device with the precision, the threads and the compiler that go with it."""

    device: torch.device
    """Where tensors live."""
    precision: str
    """"fp32", "bf16" or "bf16-pure"; never "auto"."""
    threads: int
    """Threads of the processor."""
    compiles: bool
    """Whether torch.compile can work: for a processor it needs a C++ compiler."""

    @property
    def products(self) -> torch.dtype:
        """Type in which matrix products are computed."""
        return torch.float32 if self.precision == "fp32" else torch.bfloat16

    @property
    def weights(self) -> torch.dtype:
        """Type in which a trained decoder's weights are held."""
        return torch.bfloat16 if self.precision == "bf16-pure" else torch.float32

    def mixed(self) -> AbstractContextManager[Any]:
        """Matrix products in bfloat16 over float32 weights where the precision says so; nothing otherwise."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def to_json(self) -> dict[str, Any]:
        """What runs and checkpoints record."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "threads": self.threads,
            "processor": processor_name(),
        }

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.device.type == "cpu" else ""
        units = "with" if native_bfloat16(self.device) else "without"
        return f"{self.device.type} {units} bfloat16 units: {self.precision}{threads}"


def resolve(device: str | torch.device | None = None, precision: str = AUTO, *, threads: int | None = None) -> Compute:
    """What to compute with. Asking for nothing leaves the choice to the machine.

    Args:
        device: "cpu", "cuda", "cuda:1" …; the first GPU where there is one, else the processor, for None or "auto".
        precision: one of `PRECISIONS`; "auto" is $UNITOK_PRECISION where it is set, and otherwise bfloat16 where the
            device multiplies it natively, float32 elsewhere.
        threads: of the processor; those that torch is set to where None.

    Raises:
        InputError: an unknown device or precision, or a device that is not there.
    """
    place = resolve_device(device)
    return Compute(
        device=place,
        precision=resolve_precision(precision, place),
        threads=threads or torch.get_num_threads(),
        compiles=place.type != "cpu" or find_compiler() is not None,
    )


def resolve_device(asked: str | torch.device | None = None) -> torch.device:
    """A device that can be used; InputError for another."""
    if asked is None or asked == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(asked)
    except RuntimeError as error:
        raise InputError(f"device is {str(asked)!r}: give auto, cpu, cuda or cuda:N") from error
    if isinstance(asked, torch.device) and asked.type not in ("cpu", "cuda"):
        return asked  # where weights are already
    if found.type not in ("cpu", "cuda"):
        raise InputError(f"device is {str(asked)!r}: unitok computes on cpu, cuda or cuda:N")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device is {str(asked)!r}, and torch sees no GPU; give cpu, or look at `unitok doctor`")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device is {str(asked)!r}, and there are {torch.cuda.device_count()} GPUs, counted from 0")
    return found


def check_precision(value: str, name: str = "precision") -> str:
    """The value, if it is one of `PRECISIONS`; InputError that calls it `name` otherwise."""
    if value not in PRECISIONS:
        raise InputError(f"{name} is {value!r}: choose from {', '.join(PRECISIONS)}")
    return value


def resolve_precision(asked: str = AUTO, device: torch.device | None = None) -> str:
    """ "fp32", "bf16" or "bf16-pure" on a device; see `resolve`."""
    if check_precision(asked) != AUTO:
        return asked
    value = os.environ.get(PRECISION_VARIABLE) or AUTO
    if check_precision(value, PRECISION_VARIABLE) != AUTO:
        return value
    return "bf16" if native_bfloat16(device or torch.device("cpu")) else "fp32"


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 in units of its own."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).major >= AMPERE
    return device.type == "cpu" and bf16_units() not in (None, "none")


@lru_cache(maxsize=4)
def bf16_units(path: str = "/proc/cpuinfo") -> str | None:
    """The processor's units for bfloat16 products, "none", or None where it cannot be read."""
    flags = {flag for key, value in _cpuinfo(path) if key in ("flags", "features") for flag in value.split()}
    return next((flag for flag in BF16_FLAGS if flag in flags), "none") if flags else None


@lru_cache(maxsize=4)
def processor_name(path: str = "/proc/cpuinfo") -> str:
    """The processor as it calls itself, with its bfloat16 units."""
    name = next((value for key, value in _cpuinfo(path) if key == "model name"), platform.machine())
    return f"{name}, bfloat16 units {bf16_units(path) or 'unknown'}"


def _cpuinfo(path: str) -> Sequence[tuple[str, str]]:
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    pairs = (line.partition(":") for line in lines)
    return tuple((key.strip().lower(), value.strip()) for key, _, value in pairs)


def available_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_compiler() -> str | None:
    """The C++ compiler: $CXX, g++, clang++ or c++, whichever is there first."""
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What two records of `Compute.to_json` differ in, for people; keys that one of them lacks do not count."""
    shared = sorted(before.keys() & after.keys())
    return [f"{key} was {before[key]} and is {after[key]}" for key in shared if before[key] != after[key]]
