"""Rows of ids that join a decoder's tables: what they begin with.

N rows that a table has, M rows that join, C width; K units, D width of their centroids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.text.surfaces import Surfaces
from unitok_tokenizers.tokenizer_set import TokenizerSet

MEAN_SPREAD = "mean-spread"
CENTROIDS = "centroids"
LETTERS = "letters"
LINE_BREAKS = "line-breaks"
MARKS = ("control", "language")
"""Blocks of the vocabulary that stand between what is given and what is said."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Rows of which more is known than that they are new."""

    first: int
    """Id of the first one."""
    vectors: Tensor
    """(K, D) float32: what each of these ids is near to, in a space of its own."""


@dataclass(frozen=True, kw_only=True)
class Spelled:
    """Rows of ids of which is known how they are read aloud: as letters, by shares."""

    first: int
    """Id of the first one."""
    shares: Tensor
    """(K, L) float32: of each letter in what stands for an id; rows may add up to less than 1."""
    letters: Sequence[Sequence[int]]
    """Text ids of each letter."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Rows of control tokens and languages, which stand between what is given and what is said."""

    ids: tuple[int, ...]
    """Theirs."""
    line_break: tuple[int, ...]
    """Text ids of what stands there in texts."""


@dataclass(frozen=True, kw_only=True)
class Joining:
    """The rows that join, and what they may be made of."""

    old: int
    """N, rows that stay."""
    count: int
    """M, rows that join behind them."""
    text: int
    """The first rows, which are text."""
    known: Sequence[Known]
    """Rows with vectors; the others have none."""
    spelled: Sequence[Spelled] = ()
    """Rows that stand for letters."""
    marks: Marks | None = None
    """Rows of control tokens and languages."""


Rows = Callable[[Tensor], Tensor]
"""The rows that a table has (N, C) → those that join it (M, C) float32; asked for the embedding, then for a head."""


def _mean_spread(joining: Joining, generator: torch.Generator) -> Rows:
    """The mean and, in each dimension, the spread of the table."""
    return lambda old: _on_scale(_normal(joining.count, old.shape[1], generator), old)


def _text_copies(joining: Joining, generator: torch.Generator) -> Rows:
    """Rows of text in an order that is drawn, each once before any comes again; of the same ids in both tables."""
    order = torch.randperm(joining.text, generator=generator)
    chosen = order.repeat(-(-joining.count // joining.text))[: joining.count]
    return lambda old: old[chosen].float()


def _centroids(joining: Joining, generator: torch.Generator) -> Rows:
    """Centroids by a random projection, which keeps distances, on the table's scale; others as mean and spread."""
    drawn: dict[tuple[int, int], Tensor] = {}

    def rows(old: Tensor) -> Tensor:
        found = _on_scale(_normal(joining.count, old.shape[1], generator), old)
        for one in joining.known:
            shape = (one.vectors.shape[1], old.shape[1])
            if shape not in drawn:  # one for the embedding and the head
                drawn[shape] = _normal(*shape, generator)
            placed = (one.vectors - one.vectors.mean(0)) @ drawn[shape]
            placed /= placed.std(0, correction=0).clamp_min(torch.finfo(placed.dtype).tiny)
            begin = one.first - joining.old
            found[begin : begin + len(placed)] = _on_scale(placed, old)
        return found

    return rows


def _letters(joining: Joining, generator: torch.Generator) -> Rows:
    """What is known of the letters that an id stands for, in their shares, and a little of its own, by which ids of the
    same letters differ; others as mean and spread."""

    def rows(old: Tensor) -> Tensor:
        found = _on_scale(_normal(joining.count, old.shape[1], generator), old)
        for one in joining.spelled:
            letters = torch.stack([old[list(ids)].float().mean(0) for ids in one.letters])
            mean = old[: joining.text].float().mean(0)
            begin = one.first - joining.old
            own = found[begin : begin + len(one.shares)] - mean
            found[begin : begin + len(one.shares)] = mean + one.shares @ (letters - mean) + OWN * own
        return found

    return rows


def _line_breaks(joining: Joining, generator: torch.Generator) -> Rows:
    """Of control tokens and languages the line break, with a little of their own; others as mean and spread.

    A model that knows text goes on behind a line break with what stood before it, and ends a sentence by one: marks
    that mean nothing to it cost it some hundred updates to find that out again.
    """

    def rows(old: Tensor) -> Tensor:
        found = _on_scale(_normal(joining.count, old.shape[1], generator), old)
        assert joining.marks is not None
        places = torch.tensor(joining.marks.ids, dtype=torch.int64, device=old.device) - joining.old
        line_break = old[list(joining.marks.line_break)].float().mean(0)
        found[places] = line_break + MARK_OWN * (found[places] - old[: joining.text].float().mean(0))
        return found

    return rows


MARK_OWN = 0.1
"""Spread of what is a mark's own, in that of the table."""
OWN = 0.3
"""Spread of what is a row's own, where it stands for letters, in that of the table."""
NEW_ROWS: Mapping[str, Callable[[Joining, torch.Generator], Rows]] = {
    MEAN_SPREAD: _mean_spread,
    "text-copies": _text_copies,
    CENTROIDS: _centroids,
    LETTERS: _letters,
    LINE_BREAKS: _line_breaks,
}
"""What rows that join may begin with. Deterministic by the generator's state."""


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """A choice of what the rows that join a decoder begin with."""

    kind: str = MEAN_SPREAD
    """Entry of `NEW_ROWS`."""
    text: int | None = None
    """The first rows, which are text; all that stay where None."""
    known: tuple[Known, ...] = ()
    """Rows with vectors, for "centroids"."""
    spelled: tuple[Spelled, ...] = ()
    """Rows that stand for letters, for "letters"."""
    marks: Marks | None = None
    """Rows of control tokens and languages, for "line-breaks"."""

    def of(self, old: int, count: int, generator: torch.Generator) -> Rows:
        """What makes the `count` rows that join `old` ones."""
        text = old if self.text is None else self.text
        return NEW_ROWS[self.kind](
            Joining(old=old, count=count, text=text, known=self.known, spelled=self.spelled, marks=self.marks),
            generator,
        )


def check_new_rows(kind: str, where: str) -> None:
    """InputError for a kind that there is not."""
    if kind not in NEW_ROWS:
        raise InputError(f"{where} is {kind!r}: rows begin with {', '.join(NEW_ROWS)}; choose one of them")


def chosen_rows(
    kind: str, tokenizers: TokenizerSet, vocabulary: Vocabulary, *, old: int, text: int, where: str
) -> NewRows:
    """A choice for the ids of `vocabulary` from `old` on, with the centroids of the tokenizers whose units they are.

    Raises:
        InputError: no such kind, centroids where no unit with one joins, or line breaks where no mark does.
    """
    check_new_rows(kind, where)
    known = []
    for name, one in tokenizers.streams.items() if kind == CENTROIDS else ():
        if isinstance(one, UnitTokenizer) and name in vocabulary.streams:
            first, _ = vocabulary.block_ranges(name)[0]
            if first >= old:
                known.append(Known(first=first, vectors=one.id_vectors()))
    if kind == CENTROIDS and not known:
        raise InputError(
            f"{where} is {CENTROIDS!r}, and no units that a tokenizer here makes join the vocabulary; "
            f"give tokenizers with units, or choose {MEAN_SPREAD!r}"
        )
    marks = _marks(tokenizers, vocabulary, old, where) if kind == LINE_BREAKS else None
    return NewRows(kind=kind, text=text, known=tuple(known), marks=marks)


def _marks(tokenizers: TokenizerSet, vocabulary: Vocabulary, old: int, where: str) -> Marks:
    """Control tokens and languages that join. InputError where none does."""
    ids = [one.start + place for one in vocabulary.extents if one.block in MARKS for place in range(one.size)]
    ids = [one for one in ids if one >= old]
    if not ids:
        raise InputError(
            f"{where} is {LINE_BREAKS!r}, and no control token or language joins the vocabulary; choose {MEAN_SPREAD!r}"
        )
    return Marks(ids=tuple(ids), line_break=tuple(Surfaces(tokenizers.text).line_break()))


def _normal(rows: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.empty(rows, width).normal_(0.0, 1.0, generator=generator)


def _on_scale(values: Tensor, old: Tensor) -> Tensor:
    """Values of mean 0 and spread 1 (M, C), changed in place, on the scale of a table."""
    return values.mul_(old.std(0)).add_(old.mean(0))
