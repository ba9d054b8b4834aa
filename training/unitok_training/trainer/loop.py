"""Train a decoder on packs of rendered plans.

One step is the next `packs_per_step` packs of the global stream, shared out among the processes; its loss is the sum
over all supervised tokens of the step ÷ their number, so that neither accumulation nor the number of processes changes
what is learnt. Shapes: T positions of a pack, C width, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from unitok.decoder.model import Decoder
from unitok_tokenizers.compute import changes, resolve
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.checkpoint.background import BackgroundSaver
from unitok_training.checkpoint.files import prune_checkpoints
from unitok_training.checkpoint.shard_files import Share
from unitok_training.checkpoint.state import (
    Checkpoint,
    environment,
    latest_checkpoint,
    load_module,
    module_tensors,
    random_states,
    set_random_states,
)
from unitok_training.data.batch import Pack
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Curriculum, Mixture, Schedule
from unitok_training.data.packing import DataState, PackStream
from unitok_training.data.prefetch import Prefetcher
from unitok_training.objectives.pack_losses import (
    OutputSlices,
    Supervised,
    pack_losses,
    stream_table,
    supervised_positions,
)
from unitok_training.objectives.token_loss import LossTable
from unitok_training.trainer.config import FREE_TO_CHANGE, TrainConfig, completed, differences
from unitok_training.trainer.distributed import World
from unitok_training.trainer.fsdp import ShardedMasterWeights, SplitMuonParams, local_slices, shard_decoder, total_norm
from unitok_training.trainer.garbage_collection import controlled_collection
from unitok_training.trainer.metrics import Reporter
from unitok_training.trainer.optimizer import MasterWeights, MuonParams, Optimizer, clip_gradients, rate


class NonFiniteLoss(InputError):
    """A loss or gradient that is not a number; raised before it reaches the weights."""


def train(
    config: TrainConfig,
    decoder: Decoder,
    shards: Shards,
    vocabulary: Vocabulary,
    out: Path,
    *,
    mixture: Mixture,
    curriculum: Curriculum | None = None,
    plans: ExampleOptions | None = None,
    pieces: Sequence[str] | None = None,
    world: World | None = None,
    resume: bool = True,
    stop_after: int | None = None,
    on_row: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train `decoder` in place; returns the last checkpoint's directory under `out`/checkpoints.

    A run that stopped continues exactly where its newest whole checkpoint stands. `stop_after` ends this call at a
    step without changing the schedule. `pieces` are the text tokenizer's, for `ilm`. InputError for a mixture, pack
    size or checkpoint that does not fit; NonFiniteLoss before an update that would ruin the weights.
    """
    world = world or World()
    source = ExampleSource(shards, vocabulary, mixture, seed=config.seed, options=plans, pieces=pieces)
    source.check(config.pack_size)
    if curriculum is not None and curriculum.tasks and not source.options.repeat:  # the same few have no order
        source.follow(curriculum, config.steps * config.packs_per_step * config.pack_size)
    decoder.to(world.device)
    trainer = Trainer(config, decoder, source, Path(out), world=world)
    if resume:
        trainer.resume()
    return trainer.run(stop_after=stop_after, on_row=on_row)


class Trainer:
    """The state of a run: weights, optimizer, place in the data, step."""

    def __init__(
        self, config: TrainConfig, decoder: Decoder, source: ExampleSource, out: Path, *, world: World
    ) -> None:
        self.config, self.decoder, self.source, self.out, self.world = config, decoder, source, out, world
        self.checkpoints = out / "checkpoints"
        self.stream = PackStream(
            source.documents,
            capacity=config.pack_size,
            window=config.window,
            seed=config.seed,
            pad=source.vocabulary.pad,
        )
        torch.manual_seed(config.seed)
        world.broadcast_([parameter.data for parameter in decoder.parameters()])
        decoder.recompute_blocks(config.recompute_blocks, keep_products=config.keep_products)
        self.masters: MasterWeights
        self.compute = resolve(world.device, config.precision)
        self.sharded = config.shard and world.size > 1
        if self.sharded:
            self.decoder = shard_decoder(decoder, self.compute, world)
            self.masters = split = ShardedMasterWeights(self.decoder, decoder, world)
            self.optimizer = Optimizer(split.named, config.optim, SplitMuonParams(split, world, self.compute.products))
        else:
            self.masters = MasterWeights(decoder, self.compute.weights)
            self.optimizer = Optimizer(self.masters.named, config.optim, MuonParams(self.compute.products))
        names, table = stream_table(source.vocabulary)
        self.losses = LossTable(source.keys, names, table, world.device)
        self.step = 0
        self.saver = BackgroundSaver()
        self.data = DataState()
        self.messages: list[str] = [f"computes on {self.compute}", *source.report()]
        self._bad = torch.zeros((), dtype=torch.float32, device=world.device)
        self._objective = torch.zeros((), dtype=torch.float32, device=world.device)
        self._norm = torch.zeros((), dtype=torch.float32, device=world.device)
        self.compiled = config.compile and self.compute.compiles
        if self.compiled:
            self.decoder.compile_blocks()
        elif config.compile:
            self.messages.append("train.compile has no effect: no C++ compiler found (g++, clang++ or $CXX)")

    # ---- continuing

    def settings(self) -> dict[str, Any]:
        """What a continued run must have in common with the one that stopped."""
        found = {
            "train": asdict(self.config),
            "plans": asdict(self.source.options),
            "mixture": {key: float(self.source.schedule.counts[i]) for i, key in enumerate(self.source.keys)},
            "vocabulary": self.source.vocabulary.fingerprint,
        }
        if self.source.curriculum.tasks:
            found["curriculum"] = dict(self.source.curriculum.tasks)
            found["joins"] = {key: int(block) for key, block in zip(self.source.keys, self.source.schedule.joins)}
        return {**found, "prefix_lm": True} if self.decoder.config.prefix_lm else found

    def resume(self) -> bool:
        """Take over the newest whole checkpoint of the run's folder; False where there is none."""
        found = latest_checkpoint(self.checkpoints, report=self.messages.append)
        if found is None:
            return False
        assert found.path is not None
        if (joins := found.state["settings"].get("joins")) and self.source.curriculum.tasks:
            # Where tasks joined in stays where it was, also if the run is to be longer now.
            self.source.schedule = Schedule(self.source.mixture, seed=self.config.seed, joins=joins)
        defaults = {"train": asdict(TrainConfig()), "plans": asdict(ExampleOptions())}
        for name, old, new in differences(completed(found.state["settings"], defaults), self.settings()):
            if name not in FREE_TO_CHANGE:
                raise InputError(
                    f"{found.path} was trained with {name} = {old!r} and this run has {new!r}: "
                    "choose another output folder, or the same settings to continue"
                )
        for change in changes(found.state["environment"], self._environment()):
            self.messages.append(f"{change}: the run continues, but not bit for bit")
        self.load(found)
        if self.world.is_main:
            prune_checkpoints(self.checkpoints, self.config.keep_checkpoints)
        self.messages.append(f"continues at step {self.step} from {found.path}")
        return True

    def load(self, checkpoint: Checkpoint) -> None:
        """Take over weights, optimizer, random states and the place in the data."""
        masters = self.masters
        load_module(masters.original if isinstance(masters, ShardedMasterWeights) else self.decoder, checkpoint.model)
        with torch.no_grad():
            for name, value in masters.named.items():
                value.copy_(masters.part(name, checkpoint.model[name]))
        parts = {full: masters.part(full.rpartition("|")[0], value) for full, value in checkpoint.optimizer.items()}
        self.optimizer.load(parts)
        set_random_states(checkpoint.rng)
        self.step = int(checkpoint.state["step"])
        self.data = DataState(**checkpoint.state["data"])

    def save(self) -> Path:
        """Write a checkpoint beside training; all processes call it. `finish_saving` waits for it."""
        path = self.checkpoints / f"step_{self.step:08d}"
        state = {"data": asdict(self.data), "settings": self.settings(), "environment": self._environment()}
        if isinstance(self.masters, ShardedMasterWeights):
            slices, offsets = local_slices(self.masters, self.optimizer.tensors(), self.world)
            share = Share(
                rank=self.world.rank,
                size=self.world.size,
                mark=f"save-{self.world.agree(time.time_ns())}",
                offsets=offsets,
            )
            parts = {"slices": slices, **({"rng": random_states()} if self.world.is_main else {})}
            keep = self.config.keep_checkpoints
            self.saver.save_share(self.checkpoints, parts, state, share, step=self.step, keep=keep)
        elif self.world.is_main:
            masters = {name: value.detach() for name, value in self.masters.named.items()}
            checkpoint = Checkpoint(
                model={**module_tensors(self.decoder), **masters},
                optimizer=self.optimizer.tensors(),
                rng=random_states(),
                state=state,
            )
            self.saver.save(self.checkpoints, checkpoint, step=self.step, keep=self.config.keep_checkpoints)
        return path

    def finish_saving(self) -> None:
        """Return when the last checkpoint is on disk, for all processes."""
        self.saver.wait()
        self.saver.close()
        self.world.barrier()

    def _environment(self) -> dict[str, Any]:
        return environment(self.compute, compile=self.compiled, world_size=self.world.size)

    # ---- running

    def run(self, *, stop_after: int | None = None, on_row: Callable[[dict[str, Any]], None] | None = None) -> Path:
        """Run to the last step, or to `stop_after`. Returns the last checkpoint's directory."""
        config = self.config
        last = config.steps if stop_after is None else min(stop_after, config.steps)
        reporter = Reporter(self.out, steps=config.steps, start=self.step, active=self.world.is_main)
        for message in self.messages:
            reporter.message(message)
        saved = self.step if self.step else -1
        feed = Prefetcher(self._feed(), config.prefetch)
        interval = Interval()
        self.decoder.train()
        try:
            with controlled_collection() as collect:
                while self.step < last:
                    packs, after = next(feed)
                    self._update(packs)
                    interval.add([pack for pack, _ in packs])
                    self.step, self.data = self.step + 1, after
                    reporter.step(self.step, float(self._objective) if self._objective.device.type == "cpu" else None)
                    collect(self.step)
                    if self.step % config.log_every == 0 or self.step == last:
                        row = self._row(interval)
                        reporter.row(row)
                        interval = Interval()
                        if on_row is not None:
                            on_row(row)
                    if self.step % config.checkpoint_every == 0 or self.step == last:
                        self._stop_on_bad()
                        self.save()
                        saved = self.step
        finally:
            feed.close()
            reporter.close()
            self.saver.wait()  # also where a step failed: whoever continues finds the last checkpoint
        if saved != self.step:
            self.save()
        self.finish_saving()
        self.masters.restore()
        return self.checkpoints / f"step_{self.step:08d}"

    def _feed(self) -> Iterator[tuple[list[tuple[Pack, Supervised]], DataState]]:
        """Packs of this process with their supervised positions, ready to be copied to the device."""
        world = self.world
        steps = self.stream.steps(
            self.data, packs_per_step=self.config.packs_per_step, rank=world.rank, world_size=world.size
        )
        pinned = world.device.type == "cuda"
        slices = OutputSlices.of(self.source.vocabulary) if self.config.output_slices else None
        for packs, after in steps:
            indexed = [(pack, supervised_positions(pack, slices)) for pack in packs]
            if pinned:
                indexed = [(pack.pin(), supervised.pin()) for pack, supervised in indexed]
            yield indexed, after

    def _update(self, packs: list[tuple[Pack, Supervised]]) -> None:
        """One step: gradients of all packs, summed over the processes, clipped, and applied if all is finite."""
        device, config = self.world.device, self.config
        # Filled on the device: a copy from the host would wait for all that the device has yet to do.
        count = torch.full((), float(sum(pack.supervised for pack, _ in packs)), device=device)
        self.world.sum_([count])
        objective = torch.zeros((), dtype=torch.float32, device=device)
        for pack, supervised in packs:
            with self.compute.mixed():
                losses = pack_losses(
                    self.decoder, pack.to(device), supervised.to(device),
                    smoothing=config.label_smoothing, chunk=config.loss_chunk,
                )  # fmt: skip
            total = losses.total / count
            total.backward()
            self.masters.collect()
            objective += total.detach()
            self.losses.add(losses)
        grads = self.masters.gradients()
        self.world.sum_([objective] if self.sharded else [*grads, objective])
        norm = clip_gradients(grads, config.optim.clip, total_norm(grads, self.world) if self.sharded else None)
        self._bad = torch.maximum(self._bad, 1.0 - torch.isfinite(norm + objective).float())
        self._objective, self._norm = objective, norm
        if device.type == "cpu":
            self._stop_on_bad(self.step + 1)
        factor = rate(self.step, steps=config.steps, config=config.optim)
        self.optimizer.step(factor, skip=None if device.type == "cpu" else self._bad)
        self.masters.publish()
        self.masters.zero_grad()

    def _stop_on_bad(self, step: int | None = None) -> None:
        """Raise where a step was not finite. On a GPU only logged steps ask; until then nothing is updated."""
        if not float(self._bad):
            return
        place = f"at step {step}" if step else f"within the {self.config.log_every} steps before step {self.step + 1}"
        raise NonFiniteLoss(
            f"loss {float(self._objective)} with gradient norm {float(self._norm)} {place}; the weights were not "
            f"updated with it and the last checkpoint under {self.checkpoints} is good: lower "
            f"optim.learning_rate ({self.config.optim.learning_rate}), or use train.precision=fp32"
        )

    def _row(self, interval: Interval) -> dict[str, Any]:
        """The figures of the interval, over all processes."""
        sizes = [interval.used, interval.positions, interval.supervised]
        counters = torch.tensor(sizes, dtype=torch.float64, device=self.world.device)
        self.world.sum_([self.losses.sums, counters])
        self._stop_on_bad()
        used, positions, supervised = counters.tolist()
        table = self.losses.read()
        self.losses.reset()
        seconds = time.monotonic() - interval.started
        tokens = sum(table["task_tokens"].values())
        mean = sum(table["task"][name] * count for name, count in table["task_tokens"].items()) / tokens
        assert math.isfinite(mean)
        return {
            "step": self.step,
            "loss": mean,
            "objective": float(self._objective),
            "loss_by_task": table["task"],
            "loss_by_stream": table["stream"],
            "task_share": {name: count / tokens for name, count in table["task_tokens"].items()},
            "learning_rate": self.config.optim.learning_rate
            * rate(self.step - 1, steps=self.config.steps, config=self.config.optim),
            "gradient_norm": float(self._norm),
            "tokens": int(used),
            "supervised_tokens": int(supervised),
            "padding_share": 1.0 - used / positions,
            "dropped_share": self.stream.dropped_share,
            "seconds": seconds,
            "tokens_per_second": used / max(seconds, 1e-9),
        }


class Interval:
    """What happened since the last row of metrics, in this process."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.used = self.positions = self.supervised = 0

    def add(self, packs: Sequence[Pack]) -> None:
        """Count the packs of one step."""
        self.used += sum(pack.used for pack in packs)
        self.positions += sum(pack.size for pack in packs)
        self.supervised += sum(pack.supervised for pack in packs)
