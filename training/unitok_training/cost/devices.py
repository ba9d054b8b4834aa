"""What a device can hold and how fast it is: this machine as measured, named GPUs as their makers state them."""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from unitok_tokenizers.compute import native_bfloat16
from unitok_tokenizers.errors import InputError

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device."""

    name: str
    """As it is asked for."""
    memory_bytes: int
    """Bytes that it holds."""
    flops: float
    """Dense bfloat16 FLOP/s: stated for GPUs, measured for this machine; float32's where it has no units for it."""
    float32_share: float = 0.2
    """Float32 FLOP/s ÷ `flops`."""
    bandwidth: float
    """Bytes/s read from its memory."""
    link: float
    """Bytes/s that one device sends to its neighbors within a node; 0 where nothing is known."""
    network: float = 50e9
    """Bytes/s per device between nodes (400 Gbit/s)."""
    share: float = 0.4
    """Share of `flops` that a training step is taken to reach."""
    price: float = 0.0
    """Assumed dollars an hour; 0 where none is assumed."""

    @property
    def float32_flops(self) -> float:
        """Dense float32 FLOP/s."""
        return self.flops * self.float32_share


# Memory, dense bfloat16 rate and bandwidth from the makers' datasheets (SXM where there are several boards); prices
# are assumptions of the order that clouds ask for, to be replaced by one's own with --price.
GPUS: Mapping[str, Device] = {
    device.name: device
    for device in (
        Device(name="b200", memory_bytes=180 * GIB, flops=2250e12, bandwidth=7.7e12, link=900e9, price=5.0),
        Device(name="h200", memory_bytes=140 * GIB, flops=989e12, bandwidth=4.8e12, link=450e9, price=3.0),
        Device(name="h100", memory_bytes=79 * GIB, flops=989e12, bandwidth=3.35e12, link=450e9, price=2.5),
        Device(name="a100", memory_bytes=79 * GIB, flops=312e12, bandwidth=2.0e12, link=300e9, price=1.5),
        Device(name="a100-40gb", memory_bytes=39 * GIB, flops=312e12, bandwidth=1.56e12, link=300e9, price=1.2),
        Device(name="l40s", memory_bytes=44 * GIB, flops=362e12, bandwidth=0.86e12, link=32e9, price=1.0),
        Device(name="a10g", memory_bytes=22 * GIB, flops=70e12, bandwidth=0.6e12, link=16e9, price=0.8),
        Device(name="rtx4090", memory_bytes=23 * GIB, flops=165e12, bandwidth=1.0e12, link=16e9, price=0.4),
    )
}


def named_device(name: str) -> Device:
    """A GPU by its name, or this machine for "here". InputError with the nearest known name."""
    if name.lower() == "here":
        return this_machine()
    if name.lower() not in GPUS:
        close = difflib.get_close_matches(name.lower(), [*GPUS, "here"], n=1, cutoff=0.0)[0]
        raise InputError(f"no device {name!r}; did you mean {close!r}? Known: here, {', '.join(GPUS)}")
    return GPUS[name.lower()]


def this_machine() -> Device:
    """This machine: its GPU where there is one, its processor otherwise. Takes about a second."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        known = next((d for key, d in GPUS.items() if key in properties.name.lower()), None)
        return Device(
            name="here",
            memory_bytes=properties.total_memory,
            flops=matrix_rate("cuda", 8192, torch.bfloat16),
            bandwidth=known.bandwidth if known else 1e12,
            link=known.link if known else 16e9,
            share=0.5,
        )
    plain = matrix_rate("cpu", 1024, torch.float32)
    half = matrix_rate("cpu", 1024, torch.bfloat16) if native_bfloat16(torch.device("cpu")) else plain
    return Device(
        name="here",
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        flops=half,
        float32_share=plain / half,
        bandwidth=read_rate(),
        link=5e9,
        share=0.4,
    )


def matrix_rate(kind: str, size: int, dtype: torch.dtype) -> float:
    """FLOP/s of a matrix product in a type, the best of a few."""
    left = torch.randn(size, size, device=kind, dtype=dtype)
    return 2.0 * size**3 / _best(lambda: left @ left.t(), kind)


def read_rate(size: int = 1 << 28) -> float:
    """Bytes/s of reading the processor's memory."""
    buffer = torch.ones(size // 4)
    return size / _best(lambda: buffer.sum(), "cpu")


def _best(function, kind: str, repeats: int = 5) -> float:  # type: ignore[no-untyped-def]
    best = float("inf")
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        function()
        if kind == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best
