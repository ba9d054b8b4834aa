"""The training loop: parts, a source of batches, an objective.

One step is the next `packs_per_step` batches of the global stream, shared out among the processes; its loss is the sum
over all labels of the step ÷ their number, so that neither accumulation nor the number of processes changes what is
learned. Whatever the objective, a run continues exactly where its newest whole checkpoint stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.compute import changes
from unitok_tokenizers.errors import InputError
from unitok_training.checkpoint.background import BackgroundSaver
from unitok_training.checkpoint.files import prune_checkpoints, set_aside
from unitok_training.checkpoint.state import (
    Checkpoint,
    environment,
    random_states,
    read_checkpoint,
    seed_draws,
    set_random_states,
)
from unitok_training.data.packing import check_shared
from unitok_training.runs.garbage_collection import controlled_collection
from unitok_training.runs.prefetch import Prefetcher
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.distributed import World
from unitok_training.trainer.figures import BITS, Figures
from unitok_training.trainer.fsdp import total_norm
from unitok_training.trainer.metrics import Reporter, finite, named
from unitok_training.trainer.optimizer import clip_gradients
from unitok_training.trainer.overlap import GradientSums
from unitok_training.trainer.run_state import Progress, check_settings, measure_of, newest_checkpoint, save_parts
from unitok_training.trainer.setup import LOSS, Setup
from unitok_training.trainer.stopping import Stopped, agreed_signal, stop_signals


class NonFiniteLoss(InputError):
    """A loss or gradient that is not a number; raised before it reaches the weights."""


class Trainer:
    """The state of a run: parts with their optimizers, and how far it has come."""

    def __init__(self, config: TrainConfig, setup: Setup, out: Path, *, world: World | None = None) -> None:
        self.config, self.setup, self.out, self.world = config, setup, out, world or World()
        self.parts, self.source = setup.parts, setup.source
        self.objective, self.compute = setup.objective, setup.compute
        check_shared(config.packs_per_step, self.world.size)
        if not any(part.groups for part in self.parts):
            frozen = ", ".join(part.name or "decoder" for part in self.parts)
            raise InputError(f"tuning: {frozen} are all frozen; let one of them move")
        self.scores = () if setup.scorer is None else setup.scorer.scores
        self.best_by = measure_of(config, self.scores)
        self.checkpoints = out / "checkpoints"
        self.sums = GradientSums(self.parts, self.world)
        self.progress = Progress()
        self.saver = BackgroundSaver()
        self.messages: list[str] = [f"computes on {self.compute}", *self.source.report(), *setup.messages]
        self.figures = Figures(self.source.keys, self.source.vocabulary, list(self.objective.weights), self.world)
        zeros = [torch.zeros((), dtype=torch.float32, device=self.world.device) for _ in range(3)]
        self._bad, self._objective, self._norm = zeros

    @property
    def step(self) -> int:
        """Updates done."""
        return self.progress.step

    # ---- continuing

    def settings(self) -> dict[str, Any]:
        """What a continued run must have in common with the one that stopped."""
        return {"train": asdict(self.config), **self.source.settings(), **self.setup.settings}

    def resume(self, *, allow_change: Sequence[str] = ()) -> bool:
        """Take over the newest whole checkpoint of the run's folder; False where there is none.

        `allow_change` names settings that may be others than in the run that is continued.
        """
        found = newest_checkpoint(self.checkpoints, self.world, self.messages)
        if found is None:
            return False
        if joins := found.state["settings"].get("joins"):
            # Where tasks joined in stays where it was, also if the run is to be longer now.
            self.source.follow_joins(joins)
        defaults = {"train": asdict(type(self.config)()), **self.source.defaults(), **self.setup.defaults}
        self.messages += check_settings(found, self.settings(), defaults, allow_change)
        for change in changes(found.state["environment"], self._environment()):
            self.messages.append(f"{change}: the run continues, but not bit for bit")
        self.load(found)
        self.progress = self.progress.sought(self.best_by, found, self.config, self.messages)
        if self.world.is_main:
            self.messages += set_aside(self.checkpoints, newest=found.state["step"])
            prune_checkpoints(self.checkpoints, self.config.keep_checkpoints)
        self.messages.append(f"continues at step {self.step} from {found.path}")
        return True

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over weights, optimizers, random states and the place in the data."""
        for part in self.parts:
            part.load(checkpoint.model, checkpoint.optimizer)
        set_random_states(checkpoint.rng)
        self.progress = Progress.from_state(checkpoint.state)
        self.figures.load(checkpoint.state.get("interval"))

    def save(self, *, last: bool = False) -> Path:
        """Write a checkpoint beside training, the last or not; all processes call it. `finish_saving` waits for it."""
        state = {
            **self.progress.to_json(),
            "interval": self.figures.state() if self.step % self.config.log_every else None,
            "settings": self.settings(),
            "environment": self._environment(),
        }
        keep, parts = self.config.keep_checkpoints, self.parts
        save_parts(self.saver, self.checkpoints, parts, state, self.world, step=self.step, keep=keep, last=last)
        return self.checkpoints / f"step_{self.step:08d}"

    def finish_saving(self) -> None:
        """Return when the last checkpoint is on disk, for all processes."""
        self.saver.wait()
        self.saver.close()
        self.world.barrier()

    def _environment(self) -> dict[str, Any]:
        return environment(self.compute, compile=self.setup.compiled, world_size=self.world.size)

    # ---- running

    def run(self, *, stop_after: int | None = None, on_row: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Run to the last step, or to `stop_after`. Returns the directory of the checkpoint that the parts then are:
        the last one, or that of the best validation where the configuration takes it and the run has ended.

        Raises:
            NonFiniteLoss: before an update that would ruin the weights.
            Stopped: SIGTERM or SIGINT came; a checkpoint of the step that was under way is written.
        """
        config = self.config
        last = config.steps if stop_after is None else min(stop_after, config.steps)
        reporter = Reporter(self.out, steps=config.steps, start=self.step, active=self.world.is_main)
        reporter.messages(self.messages)
        self.messages.clear()  # a run that goes on in pieces says it once
        saved = self.step if self.step else -1
        feed = Prefetcher(self._feed(), config.prefetch)
        signal = 0
        self.figures.started = time.monotonic()
        try:
            with controlled_collection() as collect, stop_signals() as asked:
                while self.step < last and not self._ends_early() and not signal:
                    batches, after = next(feed)
                    self._update(batches)
                    self.progress = replace(self.progress, step=self.step + 1, data=after)
                    reporter.step(self.step, float(self._objective) if self._objective.device.type == "cpu" else None)
                    collect(self.step)
                    if self.step % config.log_every == 0 or self.step == last:
                        row = self._row()
                        reporter.row(row)
                        reporter.messages(self.source.news())
                        if on_row is not None:
                            on_row(row)
                    best = self._validate(reporter)
                    signal = self._agreed(asked())
                    if best or signal or self.step % config.checkpoint_every == 0 or self.step == last:
                        self._stop_on_bad()
                        self.save(last=self.step == last or bool(signal))
                        saved = self.step
                signal = signal or self._agreed(asked())  # one that came while the last checkpoint was written
        finally:
            feed.close()
            reporter.close()
            self.saver.wait()  # also where a step failed: whoever continues finds the last checkpoint
            self.source.finish()
            reporter.messages(self.source.news())  # what could not be kept is known when the rest is written
        if saved != self.step:
            self.save(last=True)
        self.finish_saving()
        if signal:
            raise Stopped(signal, self.step, self.checkpoints)
        taken = self._taken()
        for part in self.parts:
            part.restore()
        return taken

    def _feed(self) -> Any:
        return self.source.steps(
            self.progress.data, rank=self.world.rank, world_size=self.world.size,
            pin=self.world.device.type == "cuda",
        )  # fmt: skip

    def _agreed(self, signal: int) -> int:
        """The signal that any process was sent, in all processes; on GPUs, which would wait, only at some steps."""
        waits = self.world.size > 1 and self.world.device.type != "cpu"
        return 0 if waits and self.step % self.config.log_every else agreed_signal(signal, self.world)

    def _update(self, batches: Sequence[Any]) -> None:
        """One step: gradients of all batches, summed over the processes, clipped, and applied if all is finite."""
        device, config = self.world.device, self.config
        for part in self.parts:
            part.set_mode(self.step)
        labels = [self.objective.counts(batch) for batch in batches]
        counts = self._counts(labels)
        objective = torch.zeros((), dtype=torch.float32, device=device)
        for number, (batch, own) in enumerate(zip(batches, labels), 1):
            self._seed_draws(number - 1)
            with self.compute.mixed():
                found = self.objective.losses(batch)
            self.figures.add(found, own)
            total = self._weighted(found.terms, counts)
            with self.sums.beside(self.step) if number == len(batches) else nullcontext():
                if total.requires_grad:  # a batch of text alone moves nothing where the decoder is frozen
                    total.backward()
            for part in self.parts:
                part.masters.collect()
            objective += total.detach()
        self._descend(objective, config)

    def _seed_draws(self, number: int) -> None:
        """What is dropped out of a batch follows from seed, step and the batch's place among those of all processes: it
        is the same after a stop, and for any number of processes."""
        place = self.world.rank + self.world.size * number
        seed_draws(int(np.random.SeedSequence([self.config.seed, self.step, place]).generate_state(1)[0]))

    def _counts(self, labels: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
        """Term → labels () of a step over all processes, at least 1, given those of this one's batches."""
        found = {name: sum(one[name] for one in labels) for name in self.objective.weights}
        # Filled on the device: a copy from the host would wait for all that the device has yet to do.
        device = self.world.device
        counts = torch.stack([torch.full((), float(count), device=device) for count in found.values()])
        self.world.sum_([counts])
        return dict(zip(found, counts.clamp(min=1).unbind()))

    def _weighted(self, terms: Mapping[str, Tensor], counts: Mapping[str, Tensor]) -> Tensor:
        """() Σ weight · sum ÷ count."""
        parts = [
            (terms[name] if weight == 1 else weight * terms[name]) / counts[name]
            for name, weight in self.objective.weights.items()
            if weight
        ]
        total = parts[0]
        for one in parts[1:]:
            total = total + one
        return total

    def _descend(self, objective: Tensor, config: TrainConfig) -> None:
        """Sum the rest of the gradients over the processes, clip them, and move what moves, if all is finite."""
        device = self.world.device
        self.sums.finish(self.step, [objective])
        plain, sharded = list[Tensor](), list[Tensor]()
        for part in self.parts:
            if part.moves(self.step):
                (sharded if part.sharded else plain).extend(part.gradients(self.step))
        norm = None
        if sharded:
            norm = total_norm(sharded, self.world)
            if plain:
                norm = (norm.square() + torch.nn.utils.get_total_norm(plain).square()).sqrt()
        if moving := [*plain, *sharded]:
            norm = clip_gradients(moving, config.optim.clip, norm)
        else:  # every part begins later
            norm = torch.zeros((), device=device)
        self._bad = torch.maximum(self._bad, 1.0 - torch.isfinite(norm + objective).float())
        self._objective, self._norm = objective, norm
        if device.type == "cpu":
            self._stop_on_bad(self.step + 1)
        for part in self.parts:
            part.descend(
                self.step, steps=config.steps, optim=config.optim, skip=None if device.type == "cpu" else self._bad
            )

    def _stop_on_bad(self, step: int | None = None) -> None:
        """Raise where a step was not finite. On a GPU only logged steps ask; until then nothing is updated."""
        if not float(self._bad):
            return
        place = f"at step {step}" if step else f"within the {self.config.log_every} steps before step {self.step + 1}"
        rates = ", ".join(f"{group.peak:g}" for part in self.parts for group in part.groups)
        raise NonFiniteLoss(
            f"loss {float(self._objective)} with gradient norm {float(self._norm)} {place}; the weights were not "
            f"updated with it and the last checkpoint under {self.checkpoints} is good: lower "
            f"optim.learning_rate ({rates}), or use train.precision=fp32"
        )

    # ---- validation

    def _ends_early(self) -> bool:
        return bool(self.config.patience) and self.progress.worse >= self.config.patience

    def _validate(self, reporter: Reporter) -> bool:
        """Validate where the configuration says so; True where this is the best so far."""
        every = self.config.eval_every
        if not every or self.setup.held_out is None or (self.step % every and self.step != self.config.steps):
            return False
        figures = self.validate()
        found = self._scores()
        if found:
            figures["scores"] = finite(found)
        score = self._agreed_score(found)
        self.progress = self.progress.validated(figures["loss"], self.best_by, score)
        best = self.progress.best_step == self.step
        told = {one.name: named(found, one.name) for one in self.scores if one.shown}
        reporter.validation({"step": self.step, **figures, "best_step": self.progress.best_step}, told)
        if self._ends_early():
            reporter.message(
                f"ends at step {self.step}: no validation was better than that of step {self.progress.best_step} "
                f"{self.progress.worse} times in a row (train.patience)"
            )
        return best

    def _taken(self) -> Path:
        """The checkpoint that becomes the model. Where that is not the last one, the parts take its weights."""
        last, best = (self.checkpoints / f"step_{step:08d}" for step in (self.step, self.progress.best_step))
        over = self.step >= self.config.steps or self._ends_early()
        if not (self.config.take_best and over and self.progress.best_step) or best == last:
            return last
        if not self.world.agree(int(best.is_dir())):
            if self.world.is_main:
                print(f"{best.name}, the best, is there no longer: the model is that of the last step", flush=True)
            return last
        found = read_checkpoint(best)
        for part in self.parts:
            part.load(found.model, {})
        return best

    def _scores(self) -> dict[str, Any]:
        """Scores of held-out examples with the weights as they are; {} without examples. Every process has its own, so
        that none waits for another's answers; random numbers and modes are afterwards what they were."""
        scorer = self.setup.scorer
        if scorer is None:
            return {}
        random = random_states()
        try:
            return scorer.measure({part.name or "decoder": part.answering() for part in self.parts})
        finally:
            set_random_states(random)
            for part in self.parts:
                part.forget_mode()

    def _agreed_score(self, found: Mapping[str, Any]) -> float | None:
        """What the best is told by besides the loss, as the first process has it."""
        if self.best_by == LOSS:
            return None
        score = torch.tensor([named(found, self.best_by.name)], dtype=torch.float64, device=self.world.device)
        self.world.broadcast_([score])
        return float(score)

    @torch.no_grad()
    def validate(self) -> dict[str, Any]:
        """Losses of the held-out batches over all processes: {"loss", "loss_by_task", "loss_by_stream", …}."""
        assert self.setup.held_out is not None
        figures = Figures(
            self.setup.held_out.keys, self.source.vocabulary, list(self.objective.weights), self.world
        )  # fmt: skip
        for part in self.parts:
            part.module.eval()
        random = torch.get_rng_state()
        for batch in self.setup.held_out.batches:
            with self.compute.mixed():
                figures.add(self.objective.losses(batch), self.objective.counts(batch))
        torch.set_rng_state(random)
        for part in self.parts:
            part.forget_mode()
        found = figures.read()
        names = ("loss", "loss_by_task", "loss_by_stream", BITS, *(f"{name}_loss" for name in figures.terms))
        return {name: found[name] for name in names if name in found}

    # ---- figures

    def _row(self) -> dict[str, Any]:
        """The figures of the steps since the last row, over all processes."""
        self._stop_on_bad()
        found = self.figures.read()
        assert math.isfinite(found["loss"])
        return {
            "step": self.step,
            **found,
            "objective": float(self._objective),
            "learning_rate": self._learning_rate(),
            "gradient_norm": float(self._norm),
            "dropped_share": self.source.dropped_share,
        }

    def _learning_rate(self) -> float | dict[str, float]:
        """Of the step just done: one number for a decoder alone, else one for each group."""
        steps, optim = self.config.steps, self.config.optim
        found = {
            group.name: group.peak * group.factor(self.step - 1, steps=steps, optim=optim)
            for part in self.parts
            for group in part.groups
        }
        return found[""] if list(found) == [""] else {name or "decoder": value for name, value in found.items()}
