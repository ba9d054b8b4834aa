"""Weights, gradients and optimizer state split over processes by torch's FSDP2 (`fully_shard`).

A block's weights are gathered when it is computed and let go after it. `train.precision` decides the policy: "fp32" and
"bf16" gather float32 weights (the latter computes under autocast, as without sharding), "bf16-pure" gathers bfloat16;
gradients are always added up in float32. Optimizers see the local slices as plain tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from unitok.decoder.lora import plain_name
from unitok.decoder.model import Decoder
from unitok.decoder.rotary import rotary_frequencies
from unitok_tokenizers.compute import Compute
from unitok_tokenizers.stored_tensors import StoredTensor, shape_of
from unitok_tokenizers.stored_tensors import rows_of as tensor_rows
from unitok_training.trainer.distributed import World
from unitok_training.trainer.optimizer import MasterWeights, MuonParams, orthogonalize

Initial = Iterable[tuple[str, Tensor | StoredTensor]]
"""Weights by the names that `plain_name` gives, one after another: whole ones in memory, or ones of which a process
reads its slices."""


def shard_decoder(decoder: Decoder, compute: Compute, world: World, initial: Initial | None = None) -> Decoder:
    """A sharded decoder: a copy of one whose weights are equal in all processes, or one on the meta device itself.

    That one has no weights but factors of low-rank updates that were drawn just now, equal in all processes: each
    process takes its slices of these and of the `initial` ones.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    half = compute.weights if compute.weights != torch.float32 else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    bare = decoder.embedding.is_meta
    drawn = {name: value.detach().clone() for name, value in decoder.named_parameters() if bare and not value.is_meta}
    sharded = decoder if bare else copy.deepcopy(decoder)
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The head is read after the forward pass, by the loss: the root's own weights stay gathered until the backward.
    fully_shard(sharded, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all processes already
            module.set_force_sum_reduction_for_comms(True)
    if bare:
        assert initial is not None, "a decoder without weights is given some"
        sharded.to_empty(device=world.device)
        shape = sharded.config
        sharded.frequencies.copy_(rotary_frequencies(shape.head_dim, shape.rope_theta, shape.rope_scaling))
        _fill(sharded, chain(drawn.items(), initial), world)
    return sharded


@torch.no_grad()
def _fill(sharded: Decoder, initial: Initial, world: World) -> None:
    """Give each process its slices; of what is stored it reads nothing else."""
    from torch.distributed.tensor import DTensor

    own = {plain_name(name): value for name, value in sharded.named_parameters()}
    for name, whole in initial:
        place = own.pop(plain_name(name))
        data = place.data
        assert isinstance(data, DTensor) and data.shape == whole.shape, f"{name} fits no weight of the decoder"
        start, stop = own_rows(whole.shape[0], world)
        data.to_local().copy_(whole[start:stop])
    assert not own, f"no initial weights for {', '.join(own)}"


class ShardedMasterWeights(MasterWeights):
    """This process's slices of the float32 weights, which share their storage with the sharded module."""

    def __init__(self, module: Decoder, original: Decoder | None, world: World) -> None:
        from torch.distributed.tensor import DTensor

        self.original, self.world, self.separate = original, world, False
        self.module = {name: value for name, value in module.named_parameters() if value.requires_grad}
        sharded: dict[str, DTensor] = {}
        self.sharded = sharded
        for name, value in module.named_parameters():
            assert isinstance(value.data, DTensor)
            self.sharded[name] = value.data
        self.named = {name: nn.Parameter(self.sharded[name].to_local()) for name in self.module}
        self.still = {name: value.to_local() for name, value in sharded.items() if name not in self.named}
        """This process's slices of what does not move."""

    def gradients(self) -> list[Tensor]:
        """This process's slice of every gradient, summed over all processes already."""
        from torch.distributed.tensor import DTensor

        for name, value in self.module.items():
            slope = value.grad
            local = slope.to_local() if isinstance(slope, DTensor) else torch.zeros_like(self.named[name])
            self.named[name].grad = local
        return super().gradients()

    def zero_grad(self) -> None:
        """Drop all gradients."""
        super().zero_grad()
        for value in self.module.values():
            value.grad = None

    def part(self, name: str, tensors: Mapping[str, Tensor], key: str) -> Tensor:
        """This process's slice of a tensor of a weight's shape, nothing else being read where it is stored; others (a
        step's number) are whole everywhere."""
        like = self.sharded[name]
        if shape_of(tensors, key) != tuple(like.shape):
            return tensors[key]
        start, stop = own_rows(like.shape[0], self.world)
        return tensor_rows(tensors, key, start, stop)

    @torch.no_grad()
    def restore(self) -> None:
        """Give the decoder that was sharded the trained weights; all processes call it. One that never was whole keeps
        its slices: the last checkpoint has all of them."""
        if self.original is None:
            return
        own = dict(self.original.named_parameters())
        for name in self.named:
            own[name].copy_(self.sharded[name].full_tensor())


class SplitMuonParams(MuonParams):
    """Matrices of which every process holds some rows: each is made whole in one of them, in turn.

    Rows go to the process that computes a matrix and come back as rows of its update: two exchanges for all matrices
    of one shape, and no process computes what another one does.
    """

    def __init__(self, masters: ShardedMasterWeights, world: World, products: torch.dtype = torch.float32) -> None:
        super().__init__(products)
        self.world = world
        self.shapes = {id(local): masters.sharded[name].shape for name, local in masters.named.items()}

    def shape(self, parameter: Tensor) -> torch.Size:
        """Shape of the whole matrix."""
        return self.shapes[id(parameter)]

    def orthogonalize(self, directions: Sequence[Tensor], shape: torch.Size) -> Sequence[Tensor]:
        """Rows of the orthogonalized matrices, given rows (R', C) of matrices of `shape` (R, C)."""
        rank, size, columns = self.world.rank, self.world.size, shape[1]
        rows = rows_of(shape[0], size)
        own = [range(owner, len(directions), size) for owner in range(size)]
        there = [len(indices) * rows[rank] * columns for indices in own]  # what goes to each owner, and comes back
        here = [len(own[rank]) * count * columns for count in rows]
        outgoing = [directions[i].reshape(-1) for indices in own for i in indices]
        parts = self._exchange(torch.cat(outgoing), there, here).split(here)
        whole = torch.cat([part.view(len(own[rank]), count, columns) for part, count in zip(parts, rows)], dim=1)
        updates = orthogonalize(whole, self.products) if len(whole) else whole
        split = torch.cat([part.reshape(-1) for part in updates.split(rows, dim=1)])
        slices = self._exchange(split, here, there).view(len(directions), rows[rank], columns)
        order = [i for indices in own for i in indices]
        return [slices[order.index(i)] for i in range(len(directions))]

    def _exchange(self, data: Tensor, outgoing: list[int], incoming: list[int]) -> Tensor:
        import torch.distributed as dist

        received = data.new_empty(sum(incoming))
        dist.all_to_all_single(received, data, incoming, outgoing)
        return received


def own_rows(rows: int, world: World) -> tuple[int, int]:
    """(first row, row after the last) that this process holds of a matrix of `rows`."""
    counts = rows_of(rows, world.size)
    start = sum(counts[: world.rank])
    return start, start + counts[world.rank]


def rows_of(rows: int, size: int) -> list[int]:
    """Rows that each process holds of a matrix: as many as the others, the last ones fewer (or none)."""
    each = -(-rows // size)
    return [max(0, min(each, rows - rank * each)) for rank in range(size)]


def total_norm(grads: list[Tensor], world: World) -> Tensor:
    """Norm () over the slices of all processes."""
    square = torch.nn.utils.get_total_norm(grads).square()
    world.sum_([square])
    return square.sqrt()


def local_slices(
    masters: ShardedMasterWeights, optimizer: Mapping[str, Tensor], world: World, *, still: bool
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """(what this process has to save, where each tensor begins in the whole one).

    What does not move is saved too where `still` is set. Weights are named `model|name` and optimizer state
    `optimizer|name|key`. What all processes hold alike (a step's number) is the first one's to save, and a slice
    without rows nobody's.
    """
    own = {**(masters.still if still else {}), **masters.named}
    held = {f"model|{name}": (name, value.detach()) for name, value in own.items()}
    held |= {f"optimizer|{full}": (full.rpartition("|")[0], value) for full, value in optimizer.items()}
    slices, offsets = {}, {}
    for full, (name, value) in held.items():
        if value.ndim and value.shape == own[name].shape:
            first, _ = own_rows(masters.sharded[name].shape[0], world)
            if len(value):
                slices[full], offsets[full] = value, [first, *[0] * (value.ndim - 1)]
        elif world.is_main:
            slices[full], offsets[full] = value, [0] * value.ndim
    return slices, offsets
