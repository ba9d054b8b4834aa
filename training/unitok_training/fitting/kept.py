"""A run of one small network in its folder: figures, checkpoints, and the way back to the last one.

RUN/metrics.jsonl, RUN/checkpoints/step_XXXXXXXX: weights, buffers, optimizers and random states, so that a run that was
killed and repeated ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from unitok_tokenizers.compute import Compute, changes
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.state import (
    Checkpoint,
    environment,
    load_module,
    module_tensors,
    random_states,
    save_checkpoint,
    set_random_states,
)
from unitok_training.trainer.config import completed, differences
from unitok_training.trainer.distributed import World
from unitok_training.trainer.metrics import Reporter
from unitok_training.trainer.optimizer import Optimizer
from unitok_training.trainer.run_state import newest_checkpoint
from unitok_training.trainer.stopping import Stopped, agreed_signal, stop_signals

CHECKPOINTS = "checkpoints"
"""Folder of a run."""
BUFFER = "buffer"
"""What the names of buffers that no module saves begin with, among the optimizers' states."""


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How often a run is written down."""

    log_every: int = 20
    """Steps between rows of metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many stay."""

    def __post_init__(self) -> None:
        for name in ("log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise InputError(f"keeping.{name} is {getattr(self, name)}: it must be 1 or more")


class Kept:
    """Used as a context around the training.

    Args:
        run: its folder.
        steps: of the whole run.
        settings: what a checkpoint is continued with, and refused with another: nested, as JSON.
        free: dotted names of settings that may differ.
        compute: device and precision, which checkpoints record.
        keeping: how often.
        world: this process among those that train together. The first one writes, and names what all continue from.
    """

    def __init__(
        self,
        run: Path,
        *,
        steps: int,
        settings: Mapping[str, Any],
        compute: Compute,
        keeping: Keeping,
        free: Sequence[str] = (),
        world: World | None = None,
    ) -> None:
        self.run, self.steps, self.settings, self.free = run, steps, dict(settings), tuple(free)
        self.compute, self.keeping, self.world = compute, keeping, world or World()
        self.draws: Mapping[str, np.random.Generator | torch.Generator] = {}
        """Generators that the training draws from, besides torch's own; set before `begin`."""
        self.done = 0
        """Steps done."""
        self._stack = ExitStack()
        self._stopped: Callable[[], int] = lambda: 0
        self._reporter: Reporter | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        self._stopped = self._stack.enter_context(stop_signals())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._reporter is not None:
            self._reporter.close()
        self._stack.close()

    def begin(self, network: nn.Module, optimizers: Mapping[str, Optimizer]) -> int:
        """Go back to the newest checkpoint, where there is one; returns the steps done.

        Raises:
            InputError: no checkpoint is whole, or they are of a run with other settings.
        """
        self.network, self.optimizers = network, dict(optimizers)
        messages: list[str] = []
        found = newest_checkpoint(self.run / CHECKPOINTS, self.world, messages)
        if found is not None:
            self._check(found)
            self.done = int(found.state["step"])
            messages.append(f"continues at step {self.done} of {found.path}")
            messages += changes(found.state["environment"], self.compute.to_json())
            self._restore(found)
        self._reporter = Reporter(self.run, steps=self.steps, start=self.done, active=self.world.is_main)
        for message in messages:
            self._reporter.message(message)
        self._began = time.monotonic()
        return self.done

    def after(self, done: int, figures: Callable[[], Mapping[str, Any]]) -> None:
        """A step is done, in all processes; `figures` are those of it, asked for where they are written.

        Raises:
            Stopped: a signal came; this step is saved.
        """
        assert self._reporter is not None
        self.done = done
        last = done == self.steps
        if done % self.keeping.log_every == 0 or last:
            row = {"step": done, **figures(), "seconds": time.monotonic() - self._began}
            said = " ".join(f"{name} {value:.4g}" for name, value in row.get("losses", {}).items())
            self._reporter.row(row, f"loss {row['loss']:.3f}{f' ({said})' if said else ''}")
            self._reporter.step(done, row["loss"])
        number = self._agreed()
        if self.world.is_main and (done % self.keeping.checkpoint_every == 0 or last or number):
            self._save()
        if number and not last:
            raise Stopped(number, done, self.run / CHECKPOINTS)

    def _agreed(self) -> int:
        """The signal that any process was sent, in all; on GPUs, which would wait, only where figures are written."""
        waits = self.world.size > 1 and self.world.device.type != "cpu"
        if waits and self.done % self.keeping.log_every and self.done != self.steps:
            return 0
        return agreed_signal(self._stopped(), self.world)

    def _save(self) -> None:
        tensors = {f"{BUFFER}|{name}": value for name, value in self._buffers().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}/{key}": value for key, value in optimizer.tensors().items()}
        rng, drawn = random_states(), {}
        for name, draw in self.draws.items():
            if isinstance(draw, torch.Generator):
                rng[f"draw_{name}"] = draw.get_state()
            else:
                drawn[name] = draw.bit_generator.state
        state = {"settings": self.settings, "environment": environment(self.compute), "draws": drawn}
        checkpoint = Checkpoint(model=module_tensors(self.network), optimizer=tensors, rng=rng, state=state)
        save_checkpoint(
            self.run / CHECKPOINTS, checkpoint, step=self.done, keep=self.keeping.keep_checkpoints
        )  # fmt: skip

    def _buffers(self) -> dict[str, Tensor]:
        """Buffers that no module saves, such as running sums."""
        own = module_tensors(self.network)
        return {name: value for name, value in self.network.named_buffers() if name not in own}

    def _restore(self, found: Checkpoint) -> None:
        load_module(self.network, found.model)
        buffers = self._buffers()
        for name, value in buffers.items():
            value.copy_(found.optimizer[f"{BUFFER}|{name}"])
        for name, optimizer in self.optimizers.items():
            own = [key for key in found.optimizer if key.startswith(f"{name}/")]
            optimizer.load({key.removeprefix(f"{name}/"): found.optimizer[key] for key in own})
        for name, draw in self.draws.items():
            if isinstance(draw, torch.Generator):
                draw.set_state(found.rng[f"draw_{name}"])
            else:
                draw.bit_generator.state = found.state["draws"][name]
        set_random_states(found.rng)

    def _check(self, found: Checkpoint) -> None:
        before = completed(found.state["settings"], self.settings)
        for name, old, new in differences(before, self.settings):
            if not any(name == key or name.startswith(f"{key}.") for key in self.free):
                raise InputError(
                    f"{found.path} was trained with {name} = {old!r} and this run has {new!r}: choose another output "
                    "folder, or the same settings to continue"
                )
