"""The parts of a model while they are trained: what of each moves, its master weights, its optimizers.

A decoder alone is one part without a name; a latent model has three. The rows of a decoder's tables may be tuned apart
from its blocks, and new rows apart from old ones: each such group has an optimizer of its own, over views of the same
weights.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unitok.decoder.lora import LoraConfig, add_lora, lora_config, updates
from unitok.decoder.model import CompiledBlocks, Decoder
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.stored_tensors import StoredTensors
from unitok_training.checkpoint.state import check_names, load_module, module_tensors
from unitok_training.trainer.config import DecoderTuning, PartTuning
from unitok_training.trainer.distributed import World
from unitok_training.trainer.fsdp import Initial, ShardedMasterWeights, SplitMuonParams, shard_decoder
from unitok_training.trainer.optimizer import MasterWeights, MuonParams, OptimConfig, Optimizer, embedding_names, rate

TABLES = ("embedding", "head")
"""Parameters of a decoder whose rows are ids."""


@dataclass(frozen=True, kw_only=True)
class RowTuning:
    """How the rows of a decoder's tables are tuned apart from its blocks."""

    old: PartTuning
    """Rows before `first_new`."""
    new: PartTuning
    """Rows from `first_new` on."""
    first_new: int
    """First of the new rows."""

    @staticmethod
    def of(tuning: DecoderTuning, first_new: int | None, rows: int) -> RowTuning | None:
        """Of a recipe; None where all rows are tuned as the blocks are. InputError where there are no new rows."""
        decoder = tuning.decoder
        plain = decoder if decoder.full else PartTuning(full=False)
        old = tuning.embeddings or plain
        new = tuning.new_embeddings or old
        if old == new == plain:
            return None
        if tuning.new_embeddings is not None and (first_new is None or first_new >= rows):
            raise InputError(
                "tuning.new_embeddings: this start has no new rows; leave it out, or start from an imported model or "
                "one whose streams the shards add to. A trained model that meets a language, a voice or other "
                "recordings is for the preset adapt"
            )
        return RowTuning(old=old, new=new, first_new=rows if first_new is None else first_new)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that share a learning rate and a start."""

    name: str
    """For reports."""
    tuning: PartTuning
    """How fast, from which step on."""
    peak: float
    """Peak learning rate."""
    named: Mapping[str, nn.Parameter]
    """What the optimizer moves: master weights, or views of rows of them."""
    optimizer: Optimizer
    """What moves it."""

    def moves(self, step: int) -> bool:
        """Whether it moves in the step of this number."""
        return step >= self.tuning.start_step

    def factor(self, step: int, *, steps: int, optim: OptimConfig) -> float:
        """Its learning rate in a step ÷ the peak: 0 before its start, from which a late part warms up by itself."""
        begun = step - self.tuning.start_step
        warm = min(1.0, (begun + 1) / max(optim.warmup_steps, 1))
        return max(0.0, min(warm, rate(step, steps=steps, config=optim)))


def _alike(there: LoraConfig | None, asked: LoraConfig) -> bool:
    if there is None or (there.rank, set(there.targets)) != (asked.rank, set(asked.targets)):
        return False
    return math.isclose(there.alpha, asked.alpha)


def tune(module: nn.Module, tuning: PartTuning, rows: RowTuning | None = None) -> dict[str, nn.Parameter]:
    """Set what moves in a part; returns it by name. Updates that are there already are kept."""
    asked = LoraConfig(rank=tuning.lora_rank or 1, alpha=tuning.lora_alpha, targets=tuning.lora_targets)
    if tuning.lora_rank and not updates(module):
        add_lora(module, asked)
    elif tuning.lora_rank and not _alike(there := lora_config(module), asked):
        raise InputError(
            f"tuning.lora_rank is {tuning.lora_rank}, with lora_alpha {tuning.lora_alpha:g} of "
            f"{', '.join(tuning.lora_targets)}: the start has low-rank updates already, {there}; say the same to go on "
            "with them, or start from a model without"
        )
    factors = {id(value) for one in updates(module).values() for value in one.parameters()}
    for name, value in module.named_parameters():
        if rows is not None and name in TABLES:
            value.requires_grad_(not (rows.old.frozen and rows.new.frozen))
        else:
            value.requires_grad_(tuning.full or (id(value) in factors and not tuning.frozen))
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


class Part:
    """One module of a model in training.

    Args:
        name: stands before the names of its tensors in checkpoints; empty for a decoder alone, whose checkpoints hold
            all of its tensors, while those of a named part hold what moves.
        module: what is trained, on the world's device.
        tuning: what of it moves.
        optim: its optimizers; the learning rate is the tuning's.
        compute: precision of weights and products.
        world: processes that share the work; weights become those of the first.
        rows: how its tables' rows are tuned apart from it.
        shard: split weights, gradients and optimizer state over the processes (a decoder's).
        initial: weights by name, one after another, of a decoder on the meta device that is to be sharded.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        tuning: PartTuning,
        optim: OptimConfig,
        compute: Compute,
        world: World,
        *,
        rows: RowTuning | None = None,
        shard: bool = False,
        initial: Initial | None = None,
    ) -> None:
        self.name, self.module, self.tuning, self.rows = name, module, tuning, rows
        self.moving = tune(module, tuning, rows)
        bare = any(parameter.is_meta for parameter in module.parameters())
        if not bare:
            world.broadcast_([parameter.data for parameter in module.parameters()])
        self.masters: MasterWeights
        self.sharded = shard and world.size > 1
        matrices = MuonParams(compute.products)
        if self.sharded:
            assert isinstance(module, Decoder), "decoders are sharded"
            if rows is not None and rows.old != rows.new:
                raise InputError(
                    "tuning.new_embeddings: rows of a sharded table are not tuned apart; set train.shard=false"
                )
            self.module = sharded = shard_decoder(module, compute, world, initial)
            self.masters = split = ShardedMasterWeights(sharded, None if bare else module, world)
            matrices = SplitMuonParams(split, world, compute.products)
        else:
            self.masters = MasterWeights(module, compute.weights)
        self._views: list[tuple[nn.Parameter, nn.Parameter, slice]] = []
        """Rows that are tuned apart: their view, the table, which rows."""
        self.groups = self._groups(optim, matrices)
        self._mode: bool | None = None
        self._frozen: dict[str, Tensor] = {}
        """Weights of a part that never moves as they were, on the host, while it computes in another type."""
        if name and not self.moving and not self.sharded:
            self._round(compute.products)

    # ---- precision

    @torch.no_grad()
    def _round(self, products: torch.dtype) -> None:
        """Hold float32 weights that never move in the type of the products: they would be rounded in every step."""
        for name, value in self.module.named_parameters():
            if value.dtype == torch.float32 and products != torch.float32:
                self._frozen[name] = value.data.cpu().clone()
                value.data = value.data.to(products)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the module its float32 weights back, frozen ones bit for bit."""
        self.masters.restore()
        for name, value in self.module.named_parameters():
            if name in self._frozen:
                value.data = self._frozen[name].to(value.device)
        self._frozen = {}

    # ---- what moves

    def _groups(self, optim: OptimConfig, matrices: MuonParams) -> list[Group]:
        tables, rows = {}, self.rows
        if rows is not None:
            tables = {name: value for name, value in self.masters.named.items() if name in TABLES}
        plain = {name: value for name, value in self.masters.named.items() if name not in tables}
        groups = [("decoder" if rows is not None else self.name, self.tuning, plain)]
        if rows is not None and rows.old == rows.new:
            groups.append(("embeddings", rows.old, tables))
        elif rows is not None:
            at = rows.first_new
            for name, tuning, part, mark in (
                ("embeddings", rows.old, slice(None, at), f"[:{at}]"),
                ("new_embeddings", rows.new, slice(at, None), f"[{at}:]"),
            ):
                views = {f"{table}{mark}": nn.Parameter(value.data[part]) for table, value in tables.items()}
                self._views += [(view, value, part) for view, value in zip(views.values(), tables.values())]
                groups.append((name, tuning, views))
        names, found = embedding_names(self.module), []
        for name, tuning, named in groups:
            if tuning.frozen or not named:
                continue
            peak = optim.learning_rate if tuning.learning_rate is None else tuning.learning_rate
            share = min(1.0, peak / optim.learning_rate)  # what is slower is so as a whole: Muon's matrices too
            own = replace(optim, learning_rate=peak, matrix_learning_rate=share * optim.matrix_learning_rate)
            optimizer = Optimizer(named, own, matrices, embeddings=names)
            found.append(Group(name=name, tuning=tuning, peak=peak, named=named, optimizer=optimizer))
        return found

    def moves(self, step: int) -> bool:
        """Whether anything of it moves in the step of this number."""
        return any(group.moves(step) for group in self.groups)

    def set_mode(self, step: int) -> None:
        """A part moves from its start on; before, and where frozen, it is neither dropped out nor differentiated."""
        moves = self.moves(step)
        if moves == self._mode:
            return
        self._mode = moves
        self.module.train(moves and (self.tuning.full or self.rows is not None))
        for value in self.masters.module.values():
            value.requires_grad_(moves)

    def answering(self) -> nn.Module:
        """The network as it answers, in evaluation mode: a decoder of its own over the same float32 weights, which no
        compiled piece and no mode of training is shared with; another network itself, or one with float32 weights.

        `forget_mode` is to be called afterwards.
        """
        self.module.eval()
        if not isinstance(self.module, Decoder) and not self._frozen:
            return self.module
        assert not self.sharded, "a sharded decoder is nowhere whole"
        shared: dict[int, Any] = {}
        if isinstance(self.module, Decoder):
            shared[id(self.module.pieces)] = CompiledBlocks()
        for name, value in self.module.named_parameters():
            held = self._frozen.get(name, self.masters.named.get(name, value)).detach()
            shared[id(value)] = nn.Parameter(held.to(value.device).float(), requires_grad=False)
        return copy.deepcopy(self.module, shared)

    def forget_mode(self) -> None:
        """Somebody else has set the module's mode: the next step sets it again."""
        self._mode = None

    def gradients(self, step: int) -> list[Tensor]:
        """Gradient of all that moves in a step, zeros where it reached nothing: all processes have the same list."""
        self.masters.gradients()
        for view, table, part in self._views:
            assert table.grad is not None
            view.grad = table.grad[part]
        return [value.grad for value in self.moving_in(step) if value.grad is not None]

    def moving_in(self, step: int) -> list[nn.Parameter]:
        """What its optimizers move in a step: master weights, or views of rows of them."""
        return [value for group in self.groups if group.moves(step) for value in group.named.values()]

    def descend(self, step: int, *, steps: int, optim: OptimConfig, skip: Tensor | None = None) -> None:
        """Move what moves in a step; not at all where `skip` () is 1 on the device. Gradients are dropped."""
        for group in self.groups:
            if group.moves(step):
                group.optimizer.step(group.factor(step, steps=steps, optim=optim), skip=skip)
        self.masters.publish()
        self.masters.zero_grad()
        for group in self.groups:
            group.optimizer.zero_grad()

    # ---- checkpoints

    def key(self, name: str) -> str:
        """Name of one of its tensors in a checkpoint."""
        return f"{self.name}|{name}" if self.name else name

    def tensors(self) -> dict[str, Tensor]:
        """What of its weights a checkpoint keeps, under the checkpoint's names."""
        whole = {} if self.name else module_tensors(self.module)
        masters = {name: value.detach() for name, value in self.masters.named.items()}
        return {self.key(name): value for name, value in {**whole, **masters}.items()}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """State of its optimizers under the checkpoint's names."""
        found: dict[str, Tensor] = {}
        for group in self.groups:
            found.update({self.key(name): value for name, value in group.optimizer.tensors().items()})
        return found

    @torch.no_grad()
    def load(self, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor]) -> None:
        """Take over what a checkpoint holds of it, under the checkpoint's names. InputError where it does not fit."""
        masters = self.masters
        if not self.name:
            model, optimizer = without_parts(model), without_parts(optimizer, inside=1)
        if not self.name:
            whole = masters.original if isinstance(masters, ShardedMasterWeights) else self.module
            if whole is not None:
                load_module(whole, model)
            else:
                check_names(self.module, model)
            if isinstance(masters, ShardedMasterWeights):
                for name, value in masters.still.items():
                    value.copy_(masters.part(name, model, self.key(name)))
        for name, value in masters.named.items():
            value.copy_(masters.part(name, model, self.key(name)))
        prefix = self.key("")
        owner = {name: group for group in self.groups for name in group.named}
        for key in optimizer:
            if not key.startswith(prefix):
                continue
            full = key.removeprefix(prefix)
            name = full.rpartition("|")[0]
            if name not in owner:
                raise InputError(f"optimizer state {full!r} fits no parameter of the model")
            value = masters.part(name, optimizer, key) if self.sharded else optimizer[key]
            owner[name].optimizer.load({full: value})  # one after another: what was read is let go
        masters.publish()


def without_parts(tensors: Mapping[str, Tensor], *, inside: int = 0) -> Mapping[str, Tensor]:
    """Those of a checkpoint that belong to a decoder without a name: `inside` is how many bars their names have."""
    kept = [name for name in tensors if name.count("|") == inside]
    if len(kept) == len(tensors):
        return tensors
    if isinstance(tensors, StoredTensors):
        return StoredTensors({name: tensors.stored[name] for name in kept})
    return {name: tensors[name] for name in kept}


def all_moving(parts: Sequence[Part]) -> dict[str, dict[str, nn.Parameter]]:
    """Part → what of it moves, by name."""
    return {part.name or "decoder": part.moving for part in parts}
