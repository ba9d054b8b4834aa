"""Which ids may come next, as masks on the device: made of the ranges that automata tell, kept in a bounded table.

B sequences, V vocabulary, F ranges' rows that are made together.

Most states of a batch are the same few ("any unit or the end"), and their rows are looked up. Others come once: where
codes follow units, every pair of neighboring units is a state. So the table holds the rows that were used last, at
most twice the batch or `ROWS`: a byte an id, 10 MB for 64 rows of 150,000 ids, however long the answer is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.output_slots import Ranges

ROWS = 64
"""Rows that a table begins with."""


def rows_of(ranges: Sequence[Ranges], size: int, device: torch.device | str) -> Tensor:
    """(F, V) bool, True inside the half-open ranges of each row, for V = `size`.

    One copy of the ranges' ends to the device, whatever their number: a row's edges are +1 and −1, and their running
    sum is 1 inside. Ranges are apart, as automata promise, so that no edge is written twice.
    """
    ends = [(row, start, stop) for row, one in enumerate(ranges) for start, stop in one]
    edges = torch.zeros(len(ranges), size + 1, dtype=torch.int8, device=device)
    if ends:
        rows, starts, stops = torch.from_numpy(np.asarray(ends, dtype=np.int64).T.copy()).to(device)
        edges[rows, starts] = 1
        edges[rows, stops] = -1
    return edges.cumsum(1, dtype=torch.int8)[:, :size].bool()


class MaskTable:
    """Allowed-id masks of automaton states, one row per distinct state, on the device."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.rows: dict[Ranges, int] = {}
        """Row of each state that is kept, the one that was used last at the end."""
        self.table = torch.zeros(ROWS, size, dtype=torch.bool, device=device)

    def __call__(self, automata: Sequence[Automaton]) -> Tensor:
        """(B, V) bool (or (1, V), the same for all), True where an id is allowed."""
        keys = [automaton.state_key for automaton in automata]
        self._keep(list(dict.fromkeys(keys)))
        index = [self.rows[key] for key in keys]
        if min(index) == max(index):
            return self.table[index[0] : index[0] + 1]
        return self.table[torch.tensor(index, device=self.device)]

    def _keep(self, wanted: Sequence[Ranges]) -> None:
        """See that every state of a step has a row; the ones that were used longest ago give theirs up."""
        if 2 * len(wanted) > len(self.table):  # only where a batch is larger than any before
            more = self.table.new_zeros(2 * len(wanted) - len(self.table), self.size)
            self.table = torch.cat([self.table, more])
        fresh = []
        for key in wanted:
            row = self.rows.pop(key, None)
            if row is None:
                fresh.append(key)
            else:
                self.rows[key] = row
        if not fresh:
            return
        for key in fresh:
            full = len(self.rows) == len(self.table)
            self.rows[key] = self.rows.pop(next(iter(self.rows))) if full else len(self.rows)
        places = torch.tensor([self.rows[key] for key in fresh], device=self.device)
        self.table[places] = rows_of(fresh, self.size, self.device)
