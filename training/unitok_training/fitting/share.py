"""One step of several processes: which of its items a process computes, and what all of them make of the rest together.

Every process draws the whole batch of a step, with all that is random in it, and computes every so-many-th item of it:
what is learned depends neither on the number of processes nor on which of them computes an item.
B items of a step, b those that this process computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unitok_tokenizers.encoders.networks.attention import ChannelDropout
from unitok_training.checkpoint.state import random_states, set_random_states
from unitok_training.trainer.distributed import World


class Share:
    """What this process computes of the items of a step; all of them where it is the only one.

    Args:
        world: this process among all.
    """

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.items = 0
        """B of the step under way."""

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world.size == 1

    @property
    def own(self) -> int:
        """How many items count here; 0 where there are fewer than processes, and others have them all."""
        return len(range(self.world.rank, self.items, self.world.size))

    @property
    def rows(self) -> slice:
        """Which items this process computes: one of somebody else's, which counts nothing, where it has none."""
        return slice(self.world.rank, None, self.world.size) if self.own else slice(0, 1)

    def of(self, items: int) -> slice:
        """A step of so many items, one at least, begins: which of them this process computes."""
        assert items > 0
        self.items = items
        return self.rows

    def mean(self, value: Tensor) -> Tensor:
        """What this process adds to a mean over all items, given that over those it computes."""
        return self.part(value, self.own, self.items)

    def part(self, value: Tensor, count: float, whole: float) -> Tensor:
        """What this process adds to a mean over `whole` things of all items, given that over `count` of its own."""
        if self.alone:
            return value
        return value * (count / whole if self.own else 0.0)

    def gathered(self, rows: Tensor) -> Tensor:
        """Something of the items that this process computes, (b, …) → of all, (B, …), the same bits anywhere."""
        if self.alone:
            return rows
        whole = rows.new_zeros(self.items, *rows.shape[1:])
        if self.own:
            whole[self.rows] = rows
        self.world.sum_([whole])
        return whole

    @torch.no_grad()
    def sum_gradients(self, values: Sequence[nn.Parameter], loss: Tensor) -> None:
        """Add up gradients and a loss () over all processes, in place and all at once.

        A weight that no process has reached keeps no gradient, as it has none where there is one process.
        """
        if self.alone:
            return
        reached = torch.tensor([float(value.grad is not None) for value in values], device=loss.device)
        asks = any(value.grad is None for value in values)
        for value in values:
            if value.grad is None:
                value.grad = torch.zeros_like(value)
        self.world.sum_([loss, reached, *(value.grad for value in values if value.grad is not None)])
        if asks:  # where nothing is missing here, nothing is missing anywhere
            for value, count in zip(values, reached.tolist()):
                if not count:
                    value.grad = None


@torch.no_grad()
def same_in_all(tensors: Iterable[Tensor], world: World) -> None:
    """Overwrite tensors, on whatever device, with those of the first process."""
    if world.size == 1:
        return
    for one in tensors:
        held = one.detach().to(world.device).contiguous()
        world.broadcast_([held])
        one.copy_(held)


def same_random(world: World) -> None:
    """Let torch's generators stand where those of the first process do."""
    if world.size > 1:
        states = random_states()
        same_in_all(states.values(), world)
        set_random_states(states)


@contextmanager
def shared_dropout(network: nn.Module, share: Share) -> Iterator[None]:
    """While this lasts, what a network drops of an item is what it would drop in a process that computes all items.

    What drops single values of a row (`nn.Dropout`) needs rows as long as the longest one of all items. What a network
    drops by functions, without a module, is not known here: such a network is trained by one process.
    """
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    if not share.alone:
        found = [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]
        replaced = [one for one in found if _drops(one[2])]
    try:
        for parent, name, dropout in replaced:
            setattr(parent, name, _OwnRows(dropout, share))
        yield
    finally:
        for parent, name, dropout in replaced:
            setattr(parent, name, dropout)


def _drops(module: nn.Module) -> bool:
    """Whether a module draws what it drops."""
    if isinstance(module, ChannelDropout):
        return module.share > 0
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


class _OwnRows(nn.Module):
    """Dropout that draws for all items of a step, and drops of those that this process computes."""

    def __init__(self, dropout: nn.Module, share: Share) -> None:
        super().__init__()
        assert isinstance(dropout, nn.Dropout | nn.Dropout1d | ChannelDropout), f"{dropout} in several processes"
        self.dropout, self.share = dropout, share
        self.train(dropout.training)

    def forward(self, x: Tensor) -> Tensor:
        """(b, …) → (b, …)."""
        if not self.training:
            return x
        assert len(x) == max(1, self.share.own), "rows are the items of a step"
        sizes = list(x.shape[1:])
        if isinstance(self.dropout, nn.Dropout1d):  # whole channels of (b, C, T)
            sizes[-1] = 1
        elif isinstance(self.dropout, ChannelDropout):  # whole channels of (b, T, D)
            sizes[0] = 1
        kept: Tensor = self.dropout(x.new_ones(self.share.items, *sizes))
        return x * kept[self.share.rows]
