"""Weights, gradients and optimizer state split over processes by torch's FSDP2 (`fully_shard`).

A block's weights are gathered when it is computed and let go after it. `train.precision` decides the policy: "fp32" and
"bf16" gather float32 weights (the latter computes under autocast, as without sharding), "bf16-pure" gathers bfloat16;
gradients are always added up in float32. Optimizers see the local slices as plain tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unitok.decoder import Decoder
from unitok_tokenizers.errors import InputError
from unitok_training.distributed import World
from unitok_training.optim import Masters
from unitok_training.train_config import TrainConfig


def shard_decoder(decoder: Decoder, config: TrainConfig, world: World) -> Decoder:
    """A sharded copy of a decoder whose weights are equal in all processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if config.optim.name == "muon":
        raise InputError("train.optim.name is 'muon', which needs whole matrices: choose adamw, or train.shard=false")
    mesh = init_device_mesh(world.device.type, (world.size,))
    half = torch.bfloat16 if config.precision == "bf16-pure" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
    sharded = copy.deepcopy(decoder)
    for block in sharded.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    # The head is read after the forward pass, by the loss: the root's own weights stay gathered until the backward.
    fully_shard(sharded, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by the tokens of all processes already
            module.set_force_sum_reduction_for_comms(True)
    return sharded


class ShardedMasters(Masters):
    """This process's slices of the float32 weights, which share their storage with the sharded module."""

    def __init__(self, module: Decoder, original: Decoder, world: World) -> None:
        from torch.distributed.tensor import DTensor

        self.original, self.world, self.separate = original, world, False
        self.module = {name: value for name, value in module.named_parameters() if value.requires_grad}
        sharded: dict[str, DTensor] = {}
        self.sharded = sharded
        for name, value in self.module.items():
            assert isinstance(value.data, DTensor)
            self.sharded[name] = value.data
        self.named = {name: nn.Parameter(value.to_local()) for name, value in self.sharded.items()}

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

    def part(self, name: str, full: Tensor) -> Tensor:
        """This process's slice of a whole tensor of a weight's shape; others (a step's number) are whole everywhere."""
        from torch.distributed.tensor import distribute_tensor

        like = self.sharded[name]
        if full.shape != like.shape:
            return full
        return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None).to_local()

    def whole(self, name: str, local: Tensor) -> Tensor:
        """A slice as the distributed tensor that it belongs to, to be saved."""
        from torch.distributed.tensor import DTensor

        like = self.sharded[name]
        if local.shape != self.named[name].shape:
            return local
        return DTensor.from_local(
            local, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
        )

    @torch.no_grad()
    def restore(self) -> None:
        """Give the decoder that was sharded the trained weights; all processes call it."""
        own = dict(self.original.named_parameters())
        for name, value in self.sharded.items():
            own[name].copy_(value.full_tensor())


def total_norm(grads: list[Tensor], world: World) -> Tensor:
    """Norm () over the slices of all processes."""
    square = torch.nn.utils.get_total_norm(grads).square()
    world.sum_([square])
    return square.sqrt()


def distributed_state(masters: ShardedMasters, optimizer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as `model|name` and optimizer state as `optimizer|name|key`, distributed where they are split."""
    state = {f"model|{name}": masters.whole(name, value.detach()) for name, value in masters.named.items()}
    for full, value in optimizer.items():
        state[f"optimizer|{full}"] = masters.whole(full.rpartition("|")[0], value)
    return state
