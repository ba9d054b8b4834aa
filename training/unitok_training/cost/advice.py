"""Whether a recipe fits a device, how long its steps take there, and what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from unitok.decoder.lora import LoraConfig
from unitok_tokenizers.errors import InputError
from unitok_training.cost.devices import Device
from unitok_training.cost.memory import Memory, loss_rows, memory
from unitok_training.cost.step import Setup, parameters, step_flops, trained_parameters

RESERVE = 0.08
"""Share of a device's memory that is left to the allocator, the driver and the libraries."""
PREDICTION_ERROR = 0.15
"""Share by which a prediction may miss what a process really takes; `tests/test_cost_measured.py` holds it to that."""
NODE = 8
"""Devices of a node, which its own links join."""
SMALLEST_PACK = 1024
"""Packs are not made smaller than this to fit: short packs waste positions and starve the device."""


def communication_bytes(setup: Setup) -> float:
    """Bytes that one process sends per update: a gradient sum, or gather, gather and scatter of split weights."""
    trained = trained_parameters(setup)
    if setup.shards == 1:  # every gradient once in float32: scattered, and the sums gathered
        return (setup.processes - 1) / setup.processes * 2 * 4 * trained
    ring = (setup.shards - 1) / setup.shards
    gathers = 2 * setup.packs * 2 * parameters(setup.config)  # bfloat16, forward and backward
    return ring * (gathers + setup.packs * 4 * trained)


def step_seconds(setup: Setup, device: Device) -> float:
    """Seconds of one update: computing, or sending where that takes longer (both run side by side)."""
    rate = device.share * (device.float32_flops if setup.precision == "fp32" else device.flops)
    link = device.link if max(setup.shards, setup.processes) <= NODE else device.network
    return max(step_flops(setup) / rate, communication_bytes(setup) / link if link else 0.0)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to run a recipe on a device."""

    change: str
    """What differs from the recipe; empty for the recipe itself."""
    setup: Setup
    memory: Memory
    seconds: float
    """Seconds of an update."""
    fits: bool
    """Whether the peak stays below the device's memory less the reserve."""

    @property
    def tokens_per_second(self) -> float:
        """Positions a second of one process."""
        return self.setup.packs * self.setup.pack_size / self.seconds


def evaluate(setup: Setup, device: Device, change: str = "") -> Option:
    """Memory and time of a setup on a device."""
    need = memory(setup)
    fits = need.peak <= device.memory_bytes * (1 - RESERVE)
    return Option(change=change, setup=setup, memory=need, seconds=step_seconds(setup, device), fits=fits)


def shared_out(packs: int, size: int, count: int) -> tuple[int, int, str]:
    """(packs of an update, their size, what changes in a recipe) where so many processes share them evenly: shorter
    ones as far as packs may be shorter, else more of them than before, so that an update learns from more."""
    whole, length = packs, size
    while whole % count and length // 2 >= SMALLEST_PACK:
        whole, length = whole * 2, length // 2
    if whole % count:
        whole, length = -(-packs // count) * count, size
    same = (whole, length) == (packs, size)
    return whole, length, "" if same else f" train.pack_size={length} train.packs_per_step={whole}"


def alternatives(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Changes that need less memory, the least intrusive first; the last ones change what is learnt or need more
    devices."""
    chunk, shared = min(loss_rows(setup), 512), max(setup.processes, setup.shards)
    small = replace(setup, loss_chunk=chunk)
    if chunk < loss_rows(setup):
        yield f"train.loss_chunk={chunk}", small
    size, packs = setup.pack_size, setup.packs
    while size // 2 >= SMALLEST_PACK:
        size, packs = size // 2, packs * 2
        change = f"train.pack_size={size} train.packs_per_step={packs * shared} train.loss_chunk={chunk}"
        yield change, replace(small, pack_size=size, packs=packs)
    layers = setup.config.layers
    if not setup.compiled and setup.recompute_blocks < layers:
        yield (
            f"train.recompute_blocks={layers} train.keep_products=true train.loss_chunk={chunk}",
            replace(small, recompute_blocks=layers, keep_products=True),
        )
    small = replace(small, keep_products=False)
    for count in dict.fromkeys((layers // 2, layers)):
        if count > setup.recompute_blocks or setup.keep_products:
            yield (
                f"train.recompute_blocks={count} train.keep_products=false train.loss_chunk={chunk}",
                replace(small, recompute_blocks=count),
            )
    yield (
        f"train.recompute_blocks={layers} train.pack_size={size} train.packs_per_step={packs * shared} "
        f"train.loss_chunk={chunk}",
        replace(small, recompute_blocks=layers, pack_size=size, packs=packs),
    )
    for count in (2, 4, 8, 16, 32, 64):
        if count <= setup.shards or count < setup.processes:
            continue
        whole, length, change = shared_out(setup.packs * shared, setup.pack_size, count)
        split = replace(setup, shards=count, processes=count, packs=whole // count, pack_size=length)
        yield f"train.shard=true{change} over {count} devices", split
        yield (
            f"train.shard=true{change} over {count} devices and train.recompute_blocks={layers}",
            replace(split, loss_chunk=chunk, keep_products=False, recompute_blocks=layers),
        )
    yield (
        f"LoRA of rank 64 and train.recompute_blocks={layers} train.pack_size={size} "
        f"train.packs_per_step={packs * shared} (other weights stay as they are)",
        replace(
            small,
            lora_rank=64,
            lora_targets=LoraConfig().targets,
            frozen_embeddings=True,
            recompute_blocks=layers,
            pack_size=size,
            packs=packs,
        ),
    )


def options(setup: Setup, device: Device) -> list[Option]:
    """The recipe itself, and every alternative that fits if the recipe does not."""
    first = evaluate(setup, device)
    if first.fits:
        return [first]
    return [first, *(found for change, other in alternatives(setup) if (found := evaluate(other, device, change)).fits)]


def check_fits(setup: Setup, device: Device, *, force: bool = False) -> str:
    """What a user should know of a recipe's memory before it runs on a device: a warning, or nothing where it fits.

    A prediction is off by `PREDICTION_ERROR` at most, where it was measured: what it says to be close to the device's
    memory is tried. InputError, with the nearest that fits, where it is far beyond; with `force` that is a warning too.
    """
    first, *rest = options(setup, device)
    if first.fits:
        return ""
    remedy = (
        f"it fits with {rest[0].change}"
        if rest
        else "nothing tried fits: lower decoder.width, decoder.ffn or decoder.layers"
    )
    room = device.memory_bytes * (1 - RESERVE) / 1e9
    needed = f"the recipe needs {first.memory.peak / 1e9:.1f} GB at its peak and {device.name} has {room:.1f} GB to use"
    if first.memory.peak > device.memory_bytes * (1 + PREDICTION_ERROR) and not force:
        raise InputError(f"{needed}: {remedy}; `unitok train --force` tries it all the same")
    return f"{needed}: it may run out of memory; {remedy}"
