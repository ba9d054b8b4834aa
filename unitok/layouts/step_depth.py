"""A depth decoder whose every matrix is another one at each step: that of Moshi, weight for weight.

Step k of a position is the projected state of the large decoder plus a row: of the id of text at step 0, of the code
before at the others, from tables of the depth decoder's own. There are no positions and no norm behind the last block.
Slots of the role forced (what the other side says) enter the large decoder and are not predicted.

P positions, S slots, K predicted slots and steps, N steps of a call, B sequences, C width of the decoder, D width of
the small one, H query heads, G key/value heads, E head size, I inner width, T rows of text.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unitok.decoder.products import rms_norm
from unitok.layouts.base import Choose, SlotLosses
from unitok.layouts.configured import ConfiguredLayout
from unitok.layouts.depth import FrameAttend
from unitok.layouts.slots import (
    SlotHeads,
    SlotTables,
    counted_positions,
    drawn,
    expected,
    no_losses,
    predicted_columns,
    read_columns,
    weighed,
)
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class StepDepthConfig:
    """Shape of the small decoder."""

    text_rows: int = 1
    """T."""
    size: int = 64
    """D."""
    layers: int = 2
    """Blocks."""
    heads: int = 4
    """H."""
    kv_heads: int = 4
    """G."""
    head_size: int = 16
    """E."""
    ffn: int = 128
    """I."""
    norm_eps: float = 1e-8
    """Added to mean squares."""
    both: bool = True
    """The codes of the other side are read beside the own ones, in slots of the stream `user`."""


class StepBlock(nn.Module):
    """Attention and feed-forward with a matrix for each step."""

    def __init__(self, options: StepDepthConfig, index: int, steps: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.options, self.index = options, index
        size, mixed, held = options.size, options.heads * options.head_size, options.kv_heads * options.head_size
        self.norm, self.ffn_norm = (nn.Parameter(torch.ones(size)) for _ in range(2))
        self.q = drawn(steps, mixed, size, generator=generator)
        self.k, self.v = (drawn(steps, held, size, generator=generator) for _ in range(2))
        self.out = drawn(steps, size, mixed, generator=generator)
        self.gate_up = drawn(steps, 2 * options.ffn, size, generator=generator)
        self.down = drawn(steps, size, options.ffn, generator=generator)

    def forward(self, x: Tensor, done: int, attend: FrameAttend) -> Tensor:
        """Steps behind `done`: (P, N, D) → (P, N, D)."""
        options = self.options
        read = rms_norm(x, self.norm, options.norm_eps)
        counts = (options.heads, options.kv_heads, options.kv_heads)
        q, k, v = (
            by_step(read, matrix, done).reshape(x.shape[0] * x.shape[1], count, options.head_size)
            for matrix, count in zip((self.q, self.k, self.v), counts)
        )
        mixed = attend(self.index, q, k, v).reshape(*x.shape[:2], self.out.shape[-1])
        x = x + by_step(mixed, self.out, done)
        gate, up = by_step(rms_norm(x, self.ffn_norm, options.norm_eps), self.gate_up, done).chunk(2, -1)
        return x + by_step(functional.silu(gate) * up, self.down, done)


def by_step(x: Tensor, matrices: Tensor, done: int) -> Tensor:
    """x (P, N, D) of the steps behind `done`, each by its own of the matrices (K, O, D) → (P, N, O)."""
    if x.shape[1] == 1:  # generation: one operation instead of the many that a joint one is made of
        return functional.linear(x, matrices[done].to(x.dtype))
    return torch.einsum("pnd,nod->pno", x, matrices[done : done + x.shape[1]].to(x.dtype))


class StepDepthLayout(ConfiguredLayout):
    """Text inline, all codes beside it; see the module."""

    name = "step_depth"
    Config = StepDepthConfig
    options: StepDepthConfig

    def __init__(
        self, options: StepDepthConfig, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        self.read, self.predicted = read_columns(pattern), predicted_columns(pattern)
        sizes, steps = [slot.size for slot in pattern.slots], len(self.predicted)
        self.tables = SlotTables([sizes[i] for i in self.read], width, absent_rows=True, generator=generator)
        self.id_table = drawn(options.text_rows, options.size, generator=generator)
        chained = [sizes[i] for i in self.predicted[:-1]]  # nobody reads the last one
        self.own_tables = SlotTables(chained, options.size, absent_rows=True, generator=generator)
        self.projection = drawn(steps, options.size, width, generator=generator)
        blocks = (StepBlock(options, index, steps, generator) for index in range(options.layers))
        self.blocks = nn.ModuleList(blocks)
        self.heads = SlotHeads([sizes[i] for i in self.predicted], options.size, generator=generator)

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: StepDepthConfig) -> FramePattern:
        """The own codebooks, predicted, and those of the other side, forced; all but each first one a frame late."""
        sides: list[tuple[str, str]] = [(stream.name, "predicted"), *([("user", "forced")] if options.both else [])]
        slots = [
            SlotSpec(stream=name, codebook=book, size=size, role=role, delay=int(book > 0))  # type: ignore[arg-type]
            for name, role in sides
            for book, size in enumerate(stream.cardinalities)
        ]
        return FramePattern(
            layout=cls.name, stream=stream.name, cardinalities=stream.cardinalities, inline=(), slots=tuple(slots)
        )

    def id_rows(self, ids: Tensor, embed: object) -> Tensor:
        """Rows (P, D) of text ids (P,), of the depth decoder's own table."""
        return functional.embedding(ids, self.id_table)

    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""
        return self.tables.total(slots[:, self.read])

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Losses of the predicted slots; `rows` as `id_rows` gives them. See `CodebookLayout.losses`."""
        kept = counted_positions(weight)
        if not len(kept):
            return no_losses(self, len(self.pattern.slots), hidden.device)
        codes = slots[kept][:, self.predicted]
        nll = self.heads.losses(self.states(hidden[kept], rows[kept], codes[:, :-1]), codes)
        return weighed(nll, codes != ABSENT, weight[kept], self.predicted, len(self.pattern.slots))

    def states(self, hidden: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
        """What heads read, (P, K, D), where the codes (P, K - 1) of all predicted slots but the last are known."""
        entered = torch.cat([rows[:, None], self.own_tables.rows(codes)], 1)
        return self._run(hidden, entered, 0, FrameAttend(len(self.predicted)))

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence; `rows` as `id_rows` gives them. See `CodebookLayout.step`."""
        held = expected(self.pattern, before, behind)
        slots = torch.full_like(held, ABSENT, dtype=torch.int64)
        scores = torch.zeros(held.shape, dtype=torch.float32, device=held.device)
        attend, entered = FrameAttend(1, keep=True), rows[:, None]
        for place, column in enumerate(self.predicted):
            state = self._run(hidden, entered, place, attend)[:, -1]
            codes, score = choose(column, self.heads.slot(place, state))
            slots[:, column] = torch.where(held[:, column], codes, ABSENT)
            scores[:, column] = torch.where(held[:, column], score, 0.0)
            if column != self.predicted[-1]:
                entered = self.own_tables.rows(slots[:, [column]], slice(place, place + 1))
        return slots, scores

    def _run(self, hidden: Tensor, entered: Tensor, done: int, attend: FrameAttend) -> Tensor:
        """The small decoder over steps behind `done`: states (P, C), rows (P, N, D) → (P, N, D)."""
        states = hidden[:, None].expand(-1, entered.shape[1], -1)
        x = by_step(states, self.projection, done) + entered.to(hidden.dtype)
        for block in self.blocks:
            x = block(x, done, attend)
        return x
