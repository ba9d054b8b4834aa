"""How often each task is drawn: a deterministic schedule with exact proportions.

The weights become whole numbers of draws in a block of 1024 examples, and every block holds exactly that many draws of
each task, in an order shuffled by (seed, block). The task of an example, and how many of that task came before it, are
then pure functions of its index. With a curriculum some tasks join in at a later block.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.registry import ALIASES, TOKEN_VARIANTS, VARIANTS, TaskVariant

BLOCK = 1024
PLAIN_PAIR = re.compile("[a-z]{2,3}-[a-z]{2,3}(?:-|$)")
"""Two languages of which the first has no dash, as in `en-pt-BR`."""
SCHEDULE = 0x5C4E
"""Separates the random stream that orders tasks from the others made of the same seed."""


@dataclass(frozen=True, kw_only=True)
class TaskKey:
    """A key of the mixture taken apart: `variant[@source[-target]]`, such as `asr`, `tts.codes@en` or `mt@en-de`;
    `mt@pt-BR:en` where a code of a language has a dash."""

    of: TaskVariant
    """The task and which of its variants."""
    source: str | None = None
    """Only rows in this language, or None for all."""
    target: str | None = None
    """Only pairs into this language, or None for all."""


def parse_key(key: str) -> TaskKey:
    """Read one key. InputError with the nearest known one where it names no task or no variant of it, and for languages
    that can be taken apart in several ways."""
    name, _, languages = key.partition("@")
    name = ALIASES.get(name, name)
    if name not in VARIANTS:
        known = difflib.get_close_matches(name, [*TOKEN_VARIANTS, *ALIASES], n=1, cutoff=0.0)
        raise InputError(f"mixture.{key}: no such task; did you mean {known[0]!r}? Known: {', '.join(TOKEN_VARIANTS)}")
    found = VARIANTS[name]
    if found.task.languages == 1:  # whatever dashes its code has
        return TaskKey(of=found, source=languages or None)
    mark = ":" if ":" in languages else "-"
    if languages.count(mark) > 1 and (mark == ":" or not PLAIN_PAIR.match(languages)):
        raise InputError(f"mixture.{key}: which two languages? Write {name}@SOURCE:TARGET")
    source, _, target = languages.partition(mark)
    return TaskKey(of=found, source=source or None, target=target or None)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Weights of the tasks that a model is trained on."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Task key → share of the examples (any positive scale; a task of weight 0 is absent)."""

    def __post_init__(self) -> None:
        for key, weight in self.tasks.items():
            parse_key(key)
            if not (isinstance(weight, int | float) and np.isfinite(weight) and weight >= 0):
                raise InputError(f"mixture.{key} is {weight!r}: a weight is a number of 0 or more")

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys with a weight above 0, sorted, so that the order of a configuration never matters."""
        return tuple(sorted(key for key, weight in self.tasks.items() if weight > 0))


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """When tasks join in: what comes first, and nearly alone, is learned in far fewer steps (Bengio et al. 2009)."""

    tasks: Mapping[str, float] = field(default_factory=dict)
    """Task key → share of the steps after which its examples begin; those not named are there from the first step."""

    def __post_init__(self) -> None:
        for key, share in self.tasks.items():
            parse_key(key)
            if not (isinstance(share, int | float) and 0 <= share < 1):
                raise InputError(f"curriculum.{key} is {share!r}: a share of the steps is 0 or more and below 1")

    def joins(self, mixture: Mixture, lengths: Mapping[str, float], positions: float) -> dict[str, int]:
        """Block of examples at which each task of a mixture joins in; the earliest at 0.

        Args:
            mixture: tasks and weights; keys that it lacks are nobody's.
            lengths: mean ids of an example of each task.
            positions: of the whole run.
        """
        begin = {parse_key(key): share for key, share in self.tasks.items()}
        shares = {key: begin.get(parse_key(key), 0.0) for key in mixture.keys}
        edges = sorted(set(shares.values()))
        block, found = 0, {edges[0]: 0}
        for edge, following in zip(edges, edges[1:]):
            present = [key for key in shares if shares[key] <= edge]
            weight = sum(mixture.tasks[key] for key in present)
            mean = sum(mixture.tasks[key] * lengths[key] for key in present) / weight
            block += max(1, round((following - edge) * positions / mean / BLOCK))
            found[following] = block
        return {key: found[share] for key, share in shares.items()}


class Schedule:
    """Task of every example, for keys and weights in a fixed order.

    `joins` names the block at which a task begins, for those that are not there from the first.
    """

    def __init__(self, mixture: Mixture, *, seed: int, joins: Mapping[str, int] | None = None) -> None:
        if not mixture.keys:
            raise InputError("mixture: no task has a weight above 0; give at least one, such as mixture.asr=1")
        if len(mixture.keys) > BLOCK:
            raise InputError(f"mixture: {len(mixture.keys)} tasks, at most {BLOCK} can be scheduled")
        self.keys = mixture.keys
        self.seed = seed
        weights = np.array([mixture.tasks[key] for key in self.keys], np.float64)
        self.joins = np.array([(joins or {}).get(key, 0) for key in self.keys])
        self.joins -= self.joins.min()
        self.counts = block_counts(weights)
        """(K,) draws of each task in a block, once all are there."""
        self._begins = np.unique(self.joins)  # first block of each lesson
        self._lessons = np.zeros((len(self._begins), len(self.keys)), np.int64)  # draws in a block of it
        for lesson, begin in zip(self._lessons, self._begins):
            lesson[self.joins <= begin] = block_counts(weights[self.joins <= begin])
        sizes = np.diff(self._begins)[:, None] * self._lessons[:-1]
        self._drawn = np.concatenate([np.zeros_like(self._lessons[:1]), np.cumsum(sizes, axis=0)])  # before a lesson
        self._cached: tuple[int, np.ndarray, np.ndarray] | None = None

    def draw(self, index: int) -> tuple[int, int]:
        """(task as an index into `keys`, how many examples of that task have a smaller index)."""
        tasks, before = self.draw_all(np.array([index]))
        return int(tasks[0]), int(before[0])

    def draw_all(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`draw` for indices (D,): tasks (D,) and how many came before (D,), int64."""
        tasks, before = np.empty(len(indices), np.int64), np.empty(len(indices), np.int64)
        block, place = np.divmod(indices, BLOCK)
        edges = np.flatnonzero(np.diff(block)) + 1  # indices in a row have their blocks in a row
        for start, stop in zip([0, *edges.tolist()], [*edges.tolist(), len(block)]):
            if stop > start:
                if self._cached is None or self._cached[0] != block[start]:
                    self._cached = (int(block[start]), *self._block(int(block[start])))
                of = place[start:stop]
                tasks[start:stop], before[start:stop] = self._cached[1][of], self._cached[2][of]
        return tasks, before

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, SCHEDULE, block])
        lesson = int(np.searchsorted(self._begins, block, side="right")) - 1
        counts = self._lessons[lesson]
        earlier = self._drawn[lesson] + (block - self._begins[lesson]) * counts
        tasks = rng.permutation(np.repeat(np.arange(len(self.keys)), counts))
        before = np.empty(BLOCK, np.int64)
        for task, count in enumerate(counts):
            before[tasks == task] = earlier[task] + np.arange(count)
        return tasks, before


def block_counts(weights: np.ndarray) -> np.ndarray:
    """Draws of each task in a block: largest remainders, at least one each. Sums to BLOCK."""
    shares = weights / weights.sum() * BLOCK
    counts = np.maximum(np.floor(shares).astype(np.int64), 1)
    while (rest := BLOCK - int(counts.sum())) != 0:
        if rest > 0:
            order = np.argsort(counts - shares, kind="stable")  # most underserved first
            counts[order[:rest]] += 1
        else:
            order = np.argsort(np.where(counts > 1, shares - counts, np.inf), kind="stable")  # most overserved first
            counts[order[0]] -= 1
    return counts


class Shares:
    """Which of several places each number falls to, such as the folder that an example of a task comes from.

    As with tasks, every block of 1024 numbers holds exactly so many of each place.
    """

    def __init__(self, weights: Sequence[float], *keys: int) -> None:
        self.counts = block_counts(np.array(weights, np.float64))
        """(P,) numbers of each place in a block."""
        self.keys = keys

    def draw_all(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For numbers (D,): their places (D,), and how many numbers of that place are smaller (D,), int64."""
        places, before = np.empty(len(numbers), np.int64), np.empty(len(numbers), np.int64)
        block, inside = np.divmod(numbers, BLOCK)
        for one in np.unique(block).tolist():
            of = block == one
            order = np.random.default_rng([*self.keys, one]).permutation(
                np.repeat(np.arange(len(self.counts)), self.counts)
            )
            rank = np.empty(BLOCK, np.int64)
            for place, count in enumerate(self.counts.tolist()):
                rank[order == place] = one * count + np.arange(count)
            places[of], before[of] = order[inside[of]], rank[inside[of]]
        return places, before


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the rows of a task variant must have."""

    source: tuple[str, ...]
    """Streams of the row that is given."""
    target: tuple[str, ...] | None
    """Streams of the row that answers; None where it is the same row."""

    @staticmethod
    def of(one: TaskVariant) -> Needs:
        """Of a variant that token shards make."""
        assert one.variant.given is not None, f"{one.key} is made of rows"
        first = int(one.opens_with_transcript)
        given = (*(kind for kind in one.variant.given if kind != "voice"), *one.outputs[:first])
        answer = one.outputs[first:]
        if one.task.pairs:
            return Needs(source=given, target=answer)
        return Needs(source=(*given, *answer), target=None)

    @property
    def text_only(self) -> bool:
        """Whether voices make no difference: what several of them say counts once."""
        return set((*self.source, *(self.target or ()))) == {"text"}
