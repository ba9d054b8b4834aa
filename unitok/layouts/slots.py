"""What layouts are made of: rows of codes that are read, heads for codes that are predicted, sums of their losses.

P positions, S slots, K slots of some kind, B sequences, C width of the decoder, D width of what heads read, V codes of
the largest slot.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unitok.decoder.model import INITIAL_SCALE
from unitok.layouts.base import SlotLosses
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern

LOGITS_AT_ONCE = 1 << 25
"""Logits (positions × slots × codes) that stand in memory at a time; of more, a piece is computed again in the backward
pass. 128 MiB in float32, three times that at the peak."""


def drawn(*shape: int, generator: torch.Generator | None) -> nn.Parameter:
    """A matrix, or several, with the decoder's initial scale; left as it is on the meta device."""
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.normal_(0.0, INITIAL_SCALE, generator=generator))


def read_columns(pattern: FramePattern) -> list[int]:
    """Columns whose codes enter the decoder: all but those of a second pass."""
    return [column for column, slot in enumerate(pattern.slots) if slot.role != "refined"]


def predicted_columns(pattern: FramePattern) -> list[int]:
    """Columns that the layout predicts; InputError where there are none."""
    found = [column for column, slot in enumerate(pattern.slots) if slot.role == "predicted"]
    if not found:
        raise InputError(f"layout {pattern.layout!r} of stream {pattern.stream!r} predicts no slot: it has no use here")
    return found


def span(columns: Sequence[int]) -> slice | list[int]:
    """The same columns as a slice where they stand in a row: to index by a list copies it to the device each time."""
    first = columns[0] if columns else 0
    in_a_row = list(columns) == list(range(first, first + len(columns)))
    return slice(first, first + len(columns)) if in_a_row else list(columns)


def positions_in(all_columns: Sequence[int], columns: Sequence[int]) -> slice | list[int]:
    """Where some columns stand among others, to index by."""
    return span([all_columns.index(column) for column in columns])


def expected(pattern: FramePattern, before: Tensor, behind: Tensor | None) -> Tensor:
    """(B, S) whether slots hold a code, by their delays: `before` and `behind` (B,) as `CodebookLayout.step` says."""
    if not pattern.flush:
        return torch.ones(len(before), len(pattern.slots), dtype=torch.bool, device=before.device)
    delays = torch.tensor([slot.delay for slot in pattern.slots], device=before.device)
    begun = before[:, None] >= delays
    return begun if behind is None else begun & (behind[:, None] <= delays)


class SlotTables(nn.Module):
    """An embedding row for each code of each slot; what is absent has none, and adds nothing.

    Args:
        sizes: codes of each of K slots.
        width: C.
        tables: which table each slot reads, for slots that share theirs; one each where None.
        absent_rows: absence has a row as well, behind a table's codes: what MusicGen and Moshi call the padding id.
        generator: draws the rows.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        *,
        tables: Sequence[int] | None = None,
        absent_rows: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.absent_rows = absent_rows
        which = list(range(len(sizes)) if tables is None else tables)
        lengths = dict(zip(which, sizes))
        counts = [lengths[table] + absent_rows for table in sorted(lengths)]
        starts = [sum(counts[: sorted(lengths).index(table)]) for table in which]
        self.weight = drawn(sum(counts), width, generator=generator)
        self.register_buffer("sizes", torch.tensor(list(sizes), dtype=torch.int64), persistent=False)
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64), persistent=False)
        self.sizes: Tensor
        self.starts: Tensor

    def _places(self, codes: Tensor, which: slice | list[int]) -> tuple[Tensor, Tensor]:
        """Rows (P, K) of codes, and whether they count."""
        there = codes != ABSENT
        if self.absent_rows:
            return self.starts[which] + torch.where(there, codes, self.sizes[which]), torch.ones_like(there)
        return self.starts[which] + codes.clamp_min(0), there

    def total(self, codes: Tensor) -> Tensor:
        """Codes (P, K), -1 absent → the sum of their rows (P, C)."""
        places, there = self._places(codes, slice(None))
        if not codes.numel():  # no slots, or no positions: the kernel knows neither
            return self.weight.new_zeros(len(codes), self.weight.shape[1]) + 0 * self.weight.sum()
        weights = there.to(self.weight.dtype)  # rows of 80 channels are never made one by one
        return functional.embedding_bag(places, self.weight, mode="sum", per_sample_weights=weights)

    def rows(self, codes: Tensor, which: slice | list[int] = slice(None)) -> Tensor:
        """Codes (P, K) of `which` slots, -1 absent → their rows (P, K, C), 0 where there is none."""
        places, there = self._places(codes, which)
        return functional.embedding(places, self.weight) * there[..., None].to(self.weight.dtype)


class SlotHeads(nn.Module):
    """A matrix for each slot, or one for all, that makes logits of states. Logits are float32.

    Args:
        sizes: classes of each of K slots.
        width: D.
        shared: one matrix for all.
        generator: draws them.
    """

    def __init__(
        self, sizes: Sequence[int], width: int, *, shared: bool = False, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.shared, self.classes = shared, tuple(sizes)
        self.weight = drawn(1 if shared else len(sizes), max(sizes), width, generator=generator)
        behind = torch.arange(max(sizes)) >= torch.tensor(sizes)[:, None]
        self.register_buffer("behind", behind, persistent=False)
        self.behind: Tensor
        """(K, V) classes that smaller slots do not have; without logits, and 0 in the matrices."""
        if not shared and not self.weight.is_meta:
            with torch.no_grad():
                self.weight.masked_fill_(behind[..., None], 0.0)

    def logits(self, states: Tensor) -> Tensor:
        """States (P, D) of all slots or (P, K, D) of each → (P, K, V), -inf for classes that a slot does not have."""
        weight = self.weight.to(states.dtype)
        if states.ndim == 3 and not self.shared:
            found = torch.einsum("pkd,kvd->pkv", states, weight)
        elif states.ndim == 3:
            found = functional.linear(states, weight[0])
        else:
            found = functional.linear(states, weight.flatten(0, 1)).view(-1, *weight.shape[:2])
            found = found.expand(-1, len(self.classes), -1)
        wide = found.float()
        return wide if min(self.classes) == wide.shape[-1] else wide.masked_fill(self.behind, -torch.inf)

    def slot(self, place: int, states: Tensor) -> Tensor:
        """Logits of one slot: states (B, D) → (B, its classes)."""
        weight = self.weight[0 if self.shared else place, : self.classes[place]]
        return functional.linear(states, weight.to(states.dtype)).float()

    def losses(self, states: Tensor, classes: Tensor) -> Tensor:
        """Negative log-likelihoods in nats: states as `logits` takes them, classes (P, K) → (P, K), 0 where -1."""
        at_once = max(1, LOGITS_AT_ONCE // self.behind.numel())
        pieces = list(zip(states.split(at_once), classes.split(at_once)))
        if len(pieces) == 1:
            return self._losses(states, classes)
        if not torch.is_grad_enabled():
            return torch.cat([self._losses(*piece) for piece in pieces])
        return torch.cat(
            [checkpoint(self._losses, *piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
        )

    def _losses(self, states: Tensor, classes: Tensor) -> Tensor:
        logits = self.logits(states)
        found = functional.cross_entropy(logits.flatten(0, 1), classes.flatten(), ignore_index=-1, reduction="none")
        return found.view_as(classes)


def weighed(nll: Tensor, asked: Tensor, weight: Tensor, columns: Sequence[int], slots: int) -> SlotLosses:
    """Sums over positions: nll (P, K) and whether it was asked for, weight (P,); 0 in slots beside `columns`."""
    place = torch.tensor(list(columns), dtype=torch.int64, device=nll.device)
    empty = torch.zeros(slots, dtype=torch.float32, device=nll.device)
    total = (nll * weight[:, None]).sum(0)
    counted = (asked * weight[:, None]).sum(0)
    return SlotLosses(total=empty.index_copy(0, place, total), weight=empty.index_copy(0, place, counted.float()))


def counted_positions(weight: Tensor) -> Tensor:
    """(P',) positions of weight (P,) that cost something: what is given need not go through a layout at all.

    Asks the device how many there are; what it saves is the layout's whole computation over conditions.
    """
    return weight.nonzero().flatten()


def no_losses(module: nn.Module, slots: int, device: torch.device) -> SlotLosses:
    """Those of no positions: zeros that hang on every parameter, so that each has a gradient on every rank."""
    nothing = sum((parameter.sum() * 0 for parameter in module.parameters()), torch.zeros((), device=device))
    zeros = torch.zeros(slots, dtype=torch.float32, device=device)
    return SlotLosses(total=zeros + nothing.float(), weight=zeros)
