"""A small decoder over the codebooks of a frame (UniAudio, Moshi, CSM): each code is predicted knowing those before it.

Its sequence for a position is what the large decoder's state and the position's id say, then one code after another; a
head of its own reads each step. The shape is that of transformers' `CsmDepthDecoderForCausalLM`, weight for weight;
with `state_added` the state is no step but is added to every one, as in Moshi and UniAudio.

What a frame costs: K or K + 1 steps of the small decoder, with keys and values kept, in generation; all of them side by
side in training. Without the kept ones a frame would be K (K + 3) ÷ 2 steps: 4 times as many for K = 7, 15 for 31.

P positions, S slots, K predicted slots, L steps (K, or K + 1 where the state is one), B sequences, C width of the
decoder, D width of the small one, H query heads, G key/value heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unitok.decoder import cpu_kernel as native
from unitok.decoder.fast_step import Stepper, fingerprint, steppable
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder, DecoderConfig
from unitok.layouts.base import Choose, SlotLosses, Step
from unitok.layouts.configured import ConfiguredLayout, books_beside, delays_of
from unitok.layouts.slots import (
    SlotHeads,
    SlotTables,
    counted_positions,
    drawn,
    expected,
    no_losses,
    positions_in,
    predicted_columns,
    read_columns,
    span,
    weighed,
)
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, SlotSpec
from unitok_tokenizers.grammar.streams import StreamInfo


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Options of a depth decoder."""

    decoder: DecoderConfig = field(default_factory=lambda: DecoderConfig(vocab_size=0, width=256, layers=4))
    """Shape of the small decoder. It has no rows and no head: `vocab_size` and `tied` count for nothing."""
    state_added: bool = False
    """The state is projected and added to every step (Moshi, UniAudio); else it is the first step itself (CSM)."""
    step_projections: bool = False
    """A projection of its own for each step; else one for all."""
    shared_head: bool = False
    """One head for all slots; else one for each."""
    own_tables: bool = False
    """Codes enter by rows of its own; else by those that enter the large decoder (CSM)."""
    absent_rows: bool = False
    """Absence has a row in the tables; else it adds nothing."""
    delays: tuple[int, ...] = ()
    """Positions by which each codebook behind the first follows its frame (Moshi: 1 each); none where empty."""


class FrameAttend:
    """Causal attention among the steps of each position, with the keys and values of earlier calls where kept.

    Args:
        steps: steps of each position in a call; 1 in all but the first where keys are kept.
        keep: keep keys and values for the calls that follow.
    """

    def __init__(self, steps: int, *, keep: bool = False) -> None:
        self.steps, self.keep = steps, keep
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (P · L, H, D), k and v (P · L, G, D) → (P · L, H, D)."""
        q, k, v = (one.unflatten(0, (-1, self.steps)).transpose(1, 2) for one in (q, k, v))  # (P, H, L, D)
        behind = layer in self.kept
        if behind:
            assert self.steps == 1, "behind kept keys comes one step at a time"
            k, v = (torch.cat([old, new], 2) for old, new in zip(self.kept[layer], (k, v)))
        if self.keep:
            self.kept[layer] = (k, v)
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=not behind and self.steps > 1, enable_gqa=q.shape[1] != k.shape[1]
        )
        return out.transpose(1, 2).flatten(0, 1)


RunSteps = Callable[[Tensor, int], Tensor]
"""Inputs (B, N, D) of the steps behind so many → the state (B, D) of the last; earlier steps of the frame are known."""
Enter = Callable[[Tensor, int, int], Tensor]
"""Codes (B,) of the predicted slot of this number → the input (B, 1, D) of the step behind so many."""
ENTERED_BYTES = 1 << 26
"""Most memory that projected rows of all codes are kept in."""


class DepthLayout(ConfiguredLayout):
    """The first codebook inline, the others by a depth decoder; see the module."""

    name = "depth"
    Config = DepthConfig
    options: DepthConfig

    def __init__(
        self, options: DepthConfig, pattern: FramePattern, *, width: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(options, pattern, width=width, generator=generator)
        if options.decoder.window is not None:
            raise InputError(f"layout 'depth': its decoder has a window of {options.decoder.window}; leave it out")
        self.read, self.predicted = read_columns(pattern), predicted_columns(pattern)
        sizes = [slot.size for slot in pattern.slots]
        absent = options.absent_rows
        self.tables = SlotTables([sizes[i] for i in self.read], width, absent_rows=absent, generator=generator)
        chained = [sizes[i] for i in self.predicted[:-1]]  # nobody reads the last one
        self.own_tables = (
            SlotTables(chained, width, absent_rows=absent, generator=generator)
            if options.own_tables and chained
            else None
        )
        inner = options.decoder.width
        self.steps = len(self.predicted) + (not options.state_added)
        each = self.steps if options.step_projections else 1
        self.projection = drawn(each, inner, width, generator=generator)
        self.state_projection = drawn(each, inner, width, generator=generator) if options.state_added else None
        self.decoder = Decoder(replace(options.decoder, vocab_size=0, tied=True), generator=generator)
        del self.decoder.embedding  # slots have tables, and heads of their own; not a weight, nor stored:
        self.decoder.register_buffer("embedding", torch.empty(0, inner), persistent=False)
        classes = [sizes[i] for i in self.predicted]
        self.heads = SlotHeads(classes, inner, shared=options.shared_head, generator=generator)

    @classmethod
    def pattern_for(cls, stream: StreamInfo, options: DepthConfig) -> FramePattern:
        """Codebook 0 inline, the others beside it; InputError for one codebook, or delays that are not theirs."""
        sizes, books = stream.cardinalities, books_beside(stream, cls.name)
        delays = delays_of(stream, options.delays or (0,) * len(books))
        return FramePattern(
            layout=cls.name,
            stream=stream.name,
            cardinalities=sizes,
            inline=(0,),
            slots=tuple(
                SlotSpec(stream=stream.name, codebook=q, size=sizes[q], delay=delay) for q, delay in zip(books, delays)
            ),
        )

    @classmethod
    def read_options(cls, value: Mapping[str, Any]) -> DepthConfig:
        """Options by name; `decoder` is a shape, or what of it is not as by default."""
        shape = value.get("decoder", {})
        if isinstance(shape, Mapping):
            try:
                shape = replace(DepthConfig().decoder, **shape)
            except TypeError as error:
                raise InputError(f"layout 'depth': its decoder has no such option ({error})") from error
            except InputError as error:
                raise InputError(f"layout 'depth', its small decoder (model.depth_…): {error}") from error
        options: DepthConfig = super().read_options({**value, "decoder": shape})
        return options

    def config(self) -> dict[str, Any]:
        """What builds it again, with its pattern; JSON."""
        found = super().config()
        del found["options"]["decoder"]["window"]  # it has none, see `__init__`
        return found

    def vectors(self, slots: Tensor) -> Tensor:
        """What the codes of positions add to the embedding rows of their ids: (P, S) int64, -1 absent → (P, C)."""
        return self.tables.total(slots[:, span(self.read)])

    def losses(self, hidden: Tensor, rows: Tensor, slots: Tensor, weight: Tensor) -> SlotLosses:
        """Losses of the predicted slots; see `CodebookLayout.losses`."""
        kept = counted_positions(weight)
        if not len(kept):
            return no_losses(self, len(self.pattern.slots), hidden.device)
        codes = slots[kept][:, span(self.predicted)]
        nll = self.heads.losses(self.states(hidden[kept], rows[kept], codes[:, :-1]), codes)
        return weighed(nll, codes != ABSENT, weight[kept], self.predicted, len(self.pattern.slots))

    def states(self, hidden: Tensor, rows: Tensor, codes: Tensor) -> Tensor:
        """What heads read, (P, K, D), where the codes (P, K - 1) of all predicted slots but the last are known."""
        entered = [rows[:, None].to(hidden.dtype), self._rows(codes, 0)]
        x = self._enter(hidden, torch.cat(entered, 1), 0)
        return self._run(x, 0, FrameAttend(self.steps))[:, -len(self.predicted) :]

    def step(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence; see `CodebookLayout.step`."""
        attend = FrameAttend(self.steps - len(self.predicted) + 1, keep=True)

        def run(x: Tensor, done: int) -> Tensor:
            attend.steps = x.shape[1]
            return self._run(x, done, attend)[:, -1]

        return self.chain(run, hidden, rows, before, choose, behind)

    def quick_step(self, *, compiled: bool = False) -> Step:
        """`step` without what a frame's steps do not need; see `FrameSteps`."""
        return FrameSteps(self, compiled=compiled)

    def chain(
        self, run: RunSteps, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None,
        enter: Enter | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """`step`, the small decoder's steps taken by `run`: code after code, each by what those before it left."""
        held = expected(self.pattern, before, behind)
        found, scores, done = [], [], 0
        x = self._enter(hidden, rows[:, None].to(hidden.dtype), 0)
        for place, column in enumerate(self.predicted):
            codes, score = choose(column, self.heads.slot(place, run(x, done)))
            if self.pattern.flush:  # else every slot holds a code
                codes, score = torch.where(held[:, column], codes, ABSENT), torch.where(held[:, column], score, 0.0)
            found.append(codes)
            scores.append(score)
            done += x.shape[1]
            if column == self.predicted[-1]:
                break
            x = enter(codes, place, done) if enter else self._enter(hidden, self._rows(codes[:, None], place), done)
        slots, logprobs = torch.full_like(held, ABSENT, dtype=torch.int64), torch.zeros_like(held, dtype=torch.float32)
        slots[:, span(self.predicted)] = torch.stack(found, 1)
        logprobs[:, span(self.predicted)] = torch.stack(scores, 1)
        return slots, logprobs

    def entered_rows(self) -> list[Tensor] | None:
        """What each code of each predicted slot but the last adds to the input of the step behind it, (V, D) a slot.

        None where a slot may hold no code, and where that would be more than `ENTERED_BYTES`.
        """
        sizes = self.heads.classes[:-1]
        if self.pattern.flush or sum(sizes) * self.projection.shape[1] * self.projection.element_size() > ENTERED_BYTES:
            return None
        first = self.steps - len(self.predicted) + 1
        device = self.projection.device
        every = [torch.arange(size, device=device)[:, None] for size in sizes]
        return [
            _project(self._rows(codes, place), self.projection, first + place)[:, 0]
            for place, codes in enumerate(every)
        ]

    def _rows(self, codes: Tensor, first: int) -> Tensor:
        """Rows (P, N, C) of the codes (P, N) of N predicted slots from the `first` one on."""
        which = slice(first, first + codes.shape[1])
        if self.own_tables is not None:
            return self.own_tables.rows(codes, which)
        return self.tables.rows(codes, positions_in(self.read, self.predicted[which]))

    def _enter(self, hidden: Tensor, entered: Tensor, done: int) -> Tensor:
        """Inputs (P, N, D) of the steps behind `done`: the state (P, C), rows (P, M, C) of an id or of codes."""
        if self.state_projection is not None:
            states = _project(hidden[:, None].expand_as(entered), self.state_projection, done)
            return states + _project(entered, self.projection, done)
        return _project(entered if done else torch.cat([hidden[:, None], entered], 1), self.projection, done)

    def _run(self, x: Tensor, done: int, attend: FrameAttend) -> Tensor:
        """The small decoder over steps behind `done`: (P, N, D) → (P, N, D)."""
        places = torch.arange(done, done + x.shape[1], device=x.device).repeat(len(x))
        return self.decoder.run(x.flatten(0, 1), places, attend).view_as(x)


def _project(x: Tensor, matrices: Tensor, done: int) -> Tensor:
    """x (P, N, C) of the steps behind `done`, by a matrix (L, D, C) each or one (1, D, C) for all → (P, N, D), in x's
    type: what runs through the blocks is as wide as the large decoder's."""
    own = matrices[done : done + x.shape[1]] if len(matrices) > 1 else matrices
    own = own.to(x.dtype)
    found = functional.linear(x, own[0]) if len(own) == 1 else torch.einsum("pnc,ndc->pnd", x, own)
    return found.to(x.dtype)


class FrameSteps:
    """`DepthLayout.step` as generation repeats it: no gradients, keys and values in memory that stays, and each step of
    the small decoder by a `Stepper`, which on a processor may be one compiled function.

    The state and the position's id, of which the plain way makes one call, come one after the other.

    Args:
        layout: whose steps these are; its weights may change.
        compiled: step single sequences through the compiled function, where this machine has one.
    """

    def __init__(self, layout: DepthLayout, *, compiled: bool = False) -> None:
        self.layout, self.compiled = layout, compiled
        self.made: tuple[object, Stepper, list[Tensor] | None] | None = None
        """What the weights were, the steps of these, and their `entered_rows`."""
        self.cache: KVCache | None = None

    @torch.inference_mode()
    def __call__(
        self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The codes of one position of each sequence; see `CodebookLayout.step`."""
        layout = self.layout
        stepper, entered = self._parts()
        if stepper is None or hidden.dtype != stepper.dtype:
            return layout.step(hidden, rows, before, choose, behind)
        cache, states = self._cache(hidden), layout.state_projection

        def run(x: Tensor, done: int) -> Tensor:
            for place in range(x.shape[1]):
                state = stepper.frame(x[:, place], cache, done + place)
            return state.to(x.dtype)

        def enter(codes: Tensor, place: int, done: int) -> Tensor:
            assert entered is not None
            x = functional.embedding(codes[:, None], entered[place])
            return x if states is None else _project(hidden[:, None], states, done) + x

        return layout.chain(run, hidden, rows, before, choose, behind, None if entered is None else enter)

    def _parts(self) -> tuple[Stepper | None, list[Tensor] | None]:
        """Made again where the weights are others; none for parts that only `Decoder.run` knows."""
        decoder = self.layout.decoder
        now = fingerprint(self.layout)
        if self.made is None or self.made[0] != now:
            if not steppable(decoder):
                return None, None
            compiled = self.compiled and native.usable(decoder) and native.library() is not None
            self.made = (now, Stepper(decoder, compiled=compiled), self.layout.entered_rows())
        return self.made[1:]

    def _cache(self, hidden: Tensor) -> KVCache:
        """Keys and values of a frame of so many sequences; what the frame before left in them is written over."""
        kept, count = self.cache, len(hidden)
        if kept is None or (len(kept.lengths), kept.kv.dtype, kept.kv.device) != (count, hidden.dtype, hidden.device):
            layout = self.layout
            self.cache = kept = KVCache(
                layout.decoder.config, count, layout.steps, dtype=hidden.dtype, device=hidden.device
            )
        return kept
