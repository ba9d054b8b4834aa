"""What happened over some steps: mean losses by task and stream, terms of the objective, how full batches were.

Sums stay on the device until they are read; those of a run that stops between two rows are saved with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_training.objectives.base import TOKENS, BatchLosses
from unitok_training.objectives.pack_losses import stream_table
from unitok_training.objectives.slot_losses import bits_per_second, slot_names
from unitok_training.objectives.token_loss import LossTable
from unitok_training.trainer.distributed import World

BITS = "bits_per_second"
"""By stream of codes: how many bits its audio is said in."""


class Figures:
    """Running sums of one process; reading adds up those of all.

    Args:
        keys: of the mixture, in the order of the batches' task ids.
        vocabulary: says which stream an id is of.
        terms: of the objective.
        world: the processes.
    """

    def __init__(self, keys: Sequence[str], vocabulary: Vocabulary, terms: Sequence[str], world: World) -> None:
        names, table = stream_table(vocabulary)
        self.world = world
        beside = [] if vocabulary.framed is None else slot_names(vocabulary.framed)
        streams = list(dict.fromkeys([*names, *beside]))
        self.losses = LossTable(keys, streams, table, world.device)
        self.slot_cells = torch.tensor([len(keys) + streams.index(name) for name in beside], device=world.device)
        """(S,) cells of the table in which the losses of codes beside ids are summed."""
        codes = [one for one in vocabulary.streams.values() if one.kind == "codes" and one.frame_rate is not None]
        self.rates = {one.name: (float(one.frame_rate or 0), len(one.cardinalities)) for one in codes}
        self.terms = [name for name in terms if name != TOKENS]
        self.sums = torch.zeros((2, len(self.terms)), dtype=torch.float64, device=world.device)
        """(2, terms): losses and labels."""
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.losses.reset()
        self.sums.zero_()
        self.used = self.positions = self.supervised = 0
        self.started = time.monotonic()

    def add(self, found: BatchLosses, counts: Mapping[str, float]) -> None:
        """Count a micro-batch with the labels of its terms."""
        self.losses.add(found.tokens)
        if found.slots is not None:
            slots = torch.stack([found.slots.total.detach(), found.slots.weight]).double()
            self.losses.sums.index_add_(1, self.slot_cells, slots)
        self.used += found.used
        self.positions += found.positions
        self.supervised += found.supervised
        if self.terms:
            sums = torch.stack([found.terms[name].detach().double() for name in self.terms])
            labels = torch.stack([sums.new_full((), float(counts[name])) for name in self.terms])
            self.sums += torch.stack([sums, labels])

    def _summed(self) -> tuple[Tensor, Tensor, Tensor]:
        """(losses, (3,) counters, terms) of all processes."""
        counters = [self.used, self.positions, self.supervised]
        held = (
            self.losses.sums.clone(),
            torch.tensor(counters, dtype=torch.float64, device=self.world.device),
            self.sums.clone(),
        )
        self.world.sum_(held)
        return held

    def read(self) -> dict[str, Any]:
        """The figures of all processes, under the names of metrics; begins anew."""
        sums, counters, terms = self._summed()
        self.losses.sums.copy_(sums)
        table = self.losses.read()
        used, positions, supervised = counters.tolist()
        seconds = time.monotonic() - self.started
        tokens = sum(table["task_tokens"].values())
        loss = sum(table["task"][name] * count for name, count in table["task_tokens"].items()) / max(tokens, 1)
        if len(self.slot_cells):  # a code beside an id counts as one that is an id
            total, count = sums[:, len(self.losses.tasks) :].sum(1).tolist()
            loss = total / max(count, 1)
        bits = bits_per_second(self.rates, table["stream"])
        found = {
            "loss": loss,
            "loss_by_task": table["task"],
            "loss_by_stream": table["stream"],
            **({BITS: bits} if bits else {}),
            **{
                f"{name}_loss": total / count if count else 0.0
                for name, (total, count) in zip(self.terms, terms.T.tolist())
            },
            "task_share": {name: count / max(tokens, 1) for name, count in table["task_tokens"].items()},
            "tokens": int(used),
            "supervised_tokens": int(supervised),
            "padding_share": 1.0 - used / max(positions, 1),
            "seconds": seconds,
            "tokens_per_second": used / max(seconds, 1e-9),
        }
        self.reset()
        return found

    def state(self) -> dict[str, Any]:
        """What a run that goes on later needs to read what this one would have."""
        losses, counters, terms = (one.tolist() for one in self._summed())
        return {"losses": losses, "counters": counters, "terms": terms}

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Inverse of `state`: the first process has the sums of all, the others begin anew."""
        self.reset()
        if state is None or not self.world.is_main:
            return
        self.losses.sums.copy_(torch.tensor(state["losses"], dtype=torch.float64))
        self.sums.copy_(torch.tensor(state["terms"], dtype=torch.float64).view_as(self.sums))
        self.used, self.positions, self.supervised = (int(count) for count in state["counters"])
