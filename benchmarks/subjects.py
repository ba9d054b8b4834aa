"""The subjects by name, in the order in which they run: cheap ones first."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks import (
    checkpoint,
    data,
    decode,
    demo,
    files,
    files_killed,
    layouts,
    lora,
    loss,
    sharded,
    streams,
    train,
    units,
)
from benchmarks.context import Context
from benchmarks.results import Outcome

SUBJECTS: Mapping[str, Callable[[Context], Outcome]] = {
    "demo": demo.run,
    "loss": loss.run,
    "data": data.run,
    "checkpoint": checkpoint.run,
    "sharded": sharded.run,
    "files": files.run,
    "files_killed": files_killed.run,
    "lora": lora.run,
    "units": units.run,
    "streams": streams.run,
    "layouts": layouts.run,
    "decode": decode.run,
    "train": train.run,
}
"""Name → function; the name is the prefix of its arms."""
TIMED = frozenset(SUBJECTS) - {"demo", "loss", "sharded"}
"""Subjects whose figures depend on a quiet machine."""
