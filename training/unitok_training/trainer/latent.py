"""Train a latent model: encoder, adapter and decoder, each wholly, by low-rank updates, or not at all.

B recordings, T packed positions, N vectors, C width. Each process takes its share of a step's packs, and gradients are
summed: torchrun --nproc-per-node 2 -m unitok train-latent latent manifest.jsonl --set train.packs_per_step=2
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.lora import LoraConfig, add_lora, updates
from unitok.decoder.model import Decoder
from unitok.frontends.base import LatentFrontEnd, Latents
from unitok_tokenizers.compute import changes, resolve
from unitok_tokenizers.encoders.base import Inputs
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.checkpoint.state import (
    Checkpoint,
    environment,
    latest_checkpoint,
    random_states,
    save_checkpoint,
    set_random_states,
)
from unitok_training.data.batch import collate
from unitok_training.data.documents import Document, ListedDocuments, listed
from unitok_training.data.latent_examples import LatentDocument, LatentSource, with_vectors
from unitok_training.data.packing import DataState, PackStream
from unitok_training.data.prefetch import Prefetcher
from unitok_training.objectives.pack_losses import stream_table
from unitok_training.objectives.token_loss import LossTable, TokenLosses, supervised_losses
from unitok_training.trainer.config import completed, differences
from unitok_training.trainer.distributed import World
from unitok_training.trainer.latent_config import LatentTrainConfig, PartTuning, Tuning
from unitok_training.trainer.loop import NonFiniteLoss
from unitok_training.trainer.metrics import Reporter
from unitok_training.trainer.optimizer import MuonParams, OptimConfig, Optimizer, clip_gradients, embedding_names, rate

PARTS = ("encoder", "adapter", "decoder")
FREE_TO_CHANGE = (
    "train.steps",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.prefetch",
    "train.precision",
)
ROUND = 64
"""Packs are filled up to a multiple of this, so that shapes repeat."""


@dataclass(frozen=True)
class LatentBatch:
    """What one step reads, on the host."""

    documents: list[LatentDocument]
    inputs: list[Inputs]
    """Of the recordings that the documents hear, in their order."""
    labels: list[Tensor]
    """CTC labels of the same."""


def tune(module: nn.Module, tuning: PartTuning) -> dict[str, nn.Parameter]:
    """Set what moves in a part; returns it by name. Updates that are there already are kept."""
    if tuning.lora_rank and not updates(module):
        add_lora(module, LoraConfig(rank=tuning.lora_rank, alpha=tuning.lora_alpha))
    factors = {id(value) for one in updates(module).values() for value in one.parameters()}
    for value in module.parameters():
        value.requires_grad_(tuning.full or (id(value) in factors and not tuning.frozen))
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


class LatentTrainer:
    """The state of a run: three parts, an optimizer for each that moves, the place in the data, the step."""

    def __init__(
        self,
        config: LatentTrainConfig,
        tuning: Tuning,
        front_end: LatentFrontEnd,
        decoder: Decoder,
        source: LatentSource,
        out: Path,
        *,
        world: World | None = None,
    ) -> None:
        self.config, self.tuning, self.source, self.out = config, tuning, source, out
        self.world = world or World()
        if config.packs_per_step % self.world.size:
            raise InputError(
                f"train.packs_per_step is {config.packs_per_step} with {self.world.size} processes: "
                "make it a multiple, so that every process has the same number of packs in a step"
            )
        self.device = self.world.device
        self.compute = resolve(self.device, config.precision)
        self.messages = [f"computes on {self.compute}"]
        self.front_end, self.decoder = front_end.to(self.device), decoder.to(self.device)
        self.vocabulary: Vocabulary = source.vocabulary
        self.hole = self.vocabulary.control("<lat>")
        torch.manual_seed(config.seed)
        self.modules: dict[str, nn.Module] = {
            "encoder": front_end.encoder, "adapter": front_end.adapter, "decoder": decoder,
        }  # fmt: skip
        self.tunings: dict[str, PartTuning] = {name: getattr(tuning, name) for name in PARTS}
        self.moving = {name: tune(module, self.tunings[name]) for name, module in self.modules.items()}
        self.world.broadcast_([value.data for module in self.modules.values() for value in module.parameters()])
        if not any(self.moving.values()):
            raise InputError("tuning: encoder, adapter and decoder are all frozen; let one of them move")
        self.optimizers = {
            name: Optimizer(
                moving,
                self._optim(name),
                MuonParams(self.compute.products),
                embeddings=embedding_names(self.modules[name]),
            )
            for name, moving in self.moving.items()
            if moving
        }
        names, table = stream_table(self.vocabulary)
        self.losses = LossTable(source.keys, names, table, self.device)
        self.stream = PackStream(
            listed(source.document),
            capacity=config.pack_size,
            window=config.window,
            seed=config.seed,
            pad=self.vocabulary.pad,
        )
        self.step, self.data = 0, DataState()
        self.ctc_sum = torch.zeros(2, device=self.device)

    def _optim(self, name: str) -> OptimConfig:
        return replace(self.config.optim, learning_rate=self.tunings[name].learning_rate)

    # ---- continuing

    def settings(self) -> dict[str, Any]:
        """What a continued run must have in common with the one that stopped."""
        return {
            "train": asdict(self.config),
            "tuning": asdict(self.tuning),
            "encoder": self.front_end.encoder.to_json(),
            "adapter": self.front_end.adapter.to_json(),
            "mixture": {key: float(count) for key, count in zip(self.source.keys, self.source.schedule.counts)},
            "vocabulary": self.vocabulary.fingerprint,
        }

    def save(self) -> None:
        """Write a checkpoint of what moves, from the first process; frozen parts are those of the start."""
        if not self.world.is_main:
            return
        tensors = {f"{part}|{name}": value.detach() for part, one in self.moving.items() for name, value in one.items()}
        state = {
            f"{part}|{name}": value for part, one in self.optimizers.items() for name, value in one.tensors().items()
        }
        extra = environment(self.compute, world_size=self.world.size)
        checkpoint = Checkpoint(
            model=tensors,
            optimizer=state,
            rng=random_states(),
            state={"data": asdict(self.data), "settings": self.settings(), "environment": extra},
        )
        save_checkpoint(self.out / "checkpoints", checkpoint, step=self.step, keep=self.config.keep_checkpoints)

    @torch.no_grad()
    def resume(self) -> bool:
        """Take over the newest whole checkpoint of the run's folder; False where there is none."""
        found = latest_checkpoint(self.out / "checkpoints")
        if found is None:
            return False
        saved = completed(found.state["settings"], {"train": asdict(LatentTrainConfig())})
        for name, old, new in differences(saved, self.settings()):
            if name not in FREE_TO_CHANGE:
                raise InputError(
                    f"{found.path} was trained with {name} = {old!r} and this run has {new!r}: "
                    "choose another output folder, or the same settings to continue"
                )
        for part, moving in self.moving.items():
            for name, value in moving.items():
                value.copy_(found.model[f"{part}|{name}"])
        for part, optimizer in self.optimizers.items():
            own = {k.partition("|")[2]: v for k, v in found.optimizer.items() if k.startswith(f"{part}|")}
            optimizer.load(own)
        set_random_states(found.rng)
        self.step, self.data = int(found.state["step"]), DataState(**found.state["data"])
        now = environment(self.compute, world_size=self.world.size)
        for change in changes(found.state["environment"], now):
            self.messages.append(f"{change}: the run continues, but not bit for bit")
        self.messages.append(f"continues at step {self.step} from {found.path}")
        return True

    # ---- running

    def _feed(self) -> Iterator[tuple[list[LatentBatch], DataState]]:
        state = self.data
        while True:
            batches: list[LatentBatch] = []
            window, place = state.window, state.pack
            number = 0
            while number < self.config.packs_per_step:
                packs = self.stream.packs(window)
                if place >= len(packs):
                    window, place = window + 1, 0
                    continue
                assert isinstance(packs.documents, ListedDocuments)
                if number % self.world.size == self.world.rank:
                    batches.append(self.batch([packs.documents.documents[one] for one in packs[place]]))
                number, place = number + 1, place + 1
            state = DataState(window=window, pack=place)
            yield batches, state

    def batch(self, documents: list[Any]) -> LatentBatch:
        """Read the recordings of a pack's documents."""
        return LatentBatch(
            documents,
            [inputs for one in documents for inputs in self.source.inputs(one)],
            [labels for one in documents for labels in self.source.labels(one)],
        )

    def run(self, *, stop_after: int | None = None, on_row: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Run to the last step, or to `stop_after` without changing the schedule."""
        config = self.config
        last = config.steps if stop_after is None else min(stop_after, config.steps)
        reporter = Reporter(self.out, steps=config.steps, start=self.step, active=self.world.is_main)
        for message in self.messages:
            reporter.message(message)
        self.messages.clear()  # a run that goes on in pieces says it once
        feed = Prefetcher(self._feed(), config.prefetch)
        started, positions = time.monotonic(), 0
        try:
            while self.step < last:
                batches, after = next(feed)
                objective, norm, used = self.update(batches)
                self.step, self.data, positions = self.step + 1, after, positions + used
                reporter.step(self.step, objective)
                if self.step % config.log_every == 0 or self.step == last:
                    row = self._row(objective, norm, positions, time.monotonic() - started)
                    reporter.row(row)
                    started, positions = time.monotonic(), 0
                    if on_row is not None:
                        on_row(row)
                if self.step % config.checkpoint_every == 0 or self.step == last:
                    self.save()
        finally:
            feed.close()
            reporter.close()

    def _set_modes(self) -> None:
        """A part moves from its step on; until then, and where frozen, it is neither dropped out nor differentiated."""
        for name, module in self.modules.items():
            moves = bool(self.moving[name]) and self.step >= self.tunings[name].start_step
            module.train(moves and self.tunings[name].full)
            for value in self.moving[name].values():
                value.requires_grad_(moves)

    def losses_of(self, batch: LatentBatch) -> tuple[TokenLosses, Tensor, int, int]:
        """(losses, sum of the CTC losses (), CTC labels, positions) of one batch."""
        inputs = [tuple(part.to(self.device) for part in one) for one in batch.inputs]
        documents: list[Document] = list(batch.documents)
        latents = self.front_end(inputs) if inputs else None
        if latents is not None:
            lengths = iter(latents.lengths)
            documents = [
                with_vectors(one, [next(lengths) for _ in one.heard], self.vocabulary) if one.heard else one
                for one in batch.documents
            ]
        used = sum(len(one.ids) for one in documents)
        pack = collate(documents, capacity=-(-used // ROUND) * ROUND, pad=self.vocabulary.pad).to(self.device)
        ids = pack.ids
        places = None if latents is None else (ids == self.hole).nonzero()[:, 0]
        hidden = self.decoder(
            ids, pack.positions, pack.sequences, pack.max_seqlen,
            prefix_lengths=pack.prefix_lengths[: pack.num_sequences],
            vectors=None if latents is None else latents.vectors, vector_index=places,
        )  # fmt: skip
        losses = supervised_losses(
            hidden, self.decoder.head_weight, labels=pack.labels, loss_weight=pack.loss_weight,
            task_ids=pack.task_ids,
        )  # fmt: skip
        ctc, count = ctc_loss(latents, batch.labels, self.device)
        return losses, ctc, count, used

    def update(self, batches: list[LatentBatch]) -> tuple[float, float, int]:
        """One step; returns (objective, norm of the gradient, positions).

        The objective is the sum of the step's token losses over their number, and of its CTC losses over the number of
        their labels: over all packs of all processes, so that a token counts the same in a short pack as in a long one.
        """
        self._set_modes()
        total = 0.0
        used = 0
        weight = self.config.ctc_weight
        tokens, labels = self._counts(batches)
        for batch in batches:
            with self.compute.mixed():
                losses, ctc, count, size = self.losses_of(batch)
            objective = losses.total / tokens
            if count and weight:
                objective = objective + weight * ctc / labels
                self.ctc_sum += torch.stack([ctc.detach(), ctc.new_tensor(float(count))])
            if objective.requires_grad:  # a pack of text alone moves nothing where the decoder is frozen
                objective.backward()
            total, used = total + float(objective.detach()), used + size
            self.losses.add(losses)
        values = [value for moving in self.moving.values() for value in moving.values()]
        if self.world.size > 1:
            total, used = self._summed(values, total, used)
        grads = [value.grad for value in values if value.grad is not None]
        norm = float(clip_gradients(grads, self.config.optim.clip)) if grads else 0.0
        if not (math.isfinite(norm) and math.isfinite(total)):
            raise NonFiniteLoss(
                f"loss {total} with gradient norm {norm} at step {self.step + 1}; the weights were not updated with "
                "it: lower the learning rates under tuning, or use train.precision=fp32"
            )
        for name, optimizer in self.optimizers.items():
            begun = self.step - self.tunings[name].start_step
            if begun >= 0:  # a late part warms up from its own first step
                warm = min(1.0, (begun + 1) / max(self.config.optim.warmup_steps, 1))
                optimizer.step(min(warm, rate(self.step, steps=self.config.steps, config=self.config.optim)))
        for value in values:
            value.grad = None
        return total, norm, used

    def _counts(self, batches: list[LatentBatch]) -> tuple[float, float]:
        """(supervised tokens, CTC labels) of a step over all processes, each at least 1; known before any forward."""
        documents = [one for batch in batches for one in batch.documents]
        tokens = sum(int(np.count_nonzero(one.loss_weight[1:] > 0)) for one in documents)
        said = [len(one) for batch in batches for one in batch.labels] if self.front_end.encoder.labels else []
        counts = torch.tensor([tokens, sum(said)], dtype=torch.float64, device=self.device)
        self.world.sum_([counts])
        found = counts.clamp(min=1).tolist()
        return found[0], found[1]

    def _summed(self, values: list[nn.Parameter], total: float, used: int) -> tuple[float, int]:
        """Add up gradients, and what a step counts, over the processes; all of them must have the same gradients."""
        moving = [value for value in values if value.requires_grad]
        for value in moving:
            value.grad = torch.zeros_like(value) if value.grad is None else value.grad
        counts = torch.tensor([total, used], dtype=torch.float64, device=self.device)
        self.world.sum_([*(value.grad for value in moving if value.grad is not None), counts])
        return float(counts[0]), int(counts[1])

    def _row(self, objective: float, norm: float, positions: int, seconds: float) -> dict[str, Any]:
        self.world.sum_([self.losses.sums, self.ctc_sum])
        table = self.losses.read()
        self.losses.reset()
        tokens = sum(table["task_tokens"].values())
        ctc, count = self.ctc_sum.tolist()
        self.ctc_sum.zero_()
        factor = rate(self.step - 1, steps=self.config.steps, config=self.config.optim)
        return {
            "step": self.step,
            "loss": sum(table["task"][name] * n for name, n in table["task_tokens"].items()) / max(tokens, 1),
            "objective": objective,
            "loss_by_task": table["task"],
            "loss_by_stream": table["stream"],
            "ctc_loss": ctc / count if count else 0.0,
            "learning_rate": {name: self.tunings[name].learning_rate * factor for name in self.optimizers},
            "gradient_norm": norm,
            "tokens": positions,
            "seconds": seconds,
            "tokens_per_second": positions / max(seconds, 1e-9),
        }


def ctc_loss(latents: Latents | None, labels: list[Tensor], device: torch.device) -> tuple[Tensor, int]:
    """(sum over a batch, number of labels) of the CTC loss (Graves et al. 2006) of an encoder with such a head."""
    loss, count = torch.zeros((), device=device), 0
    for group in () if latents is None else latents.groups:
        chosen = [labels[place] for place in group.places]
        size = sum(len(one) for one in chosen)
        if group.frames.ctc is None or not size:
            continue
        loss, count = (
            loss
            + functional.ctc_loss(
                group.frames.ctc.float().transpose(0, 1),
                torch.cat(chosen).to(device),
                group.frames.lengths,
                torch.tensor([len(one) for one in chosen], device=device),
                reduction="sum",
                zero_infinity=True,  # more pieces than frames: nothing to learn from
            ),
            count + size,
        )
    return loss, count
