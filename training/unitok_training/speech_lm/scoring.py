"""How probable a decoder finds what is said: log-probabilities of ids behind a prompt, many sequences at a time.

All ids of the vocabulary compete: what a model puts on ids that cannot follow it has not put on those that do. P ids of
a prompt, R ids that follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitok.generation.generate import score
from unitok.model import Model
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import task_spec
from unitok_tokenizers.progress import advance
from unitok_tokenizers.seeds import check_seed

POSITIONS = 4096
"""Most positions that are computed together; a single longer sequence is computed alone."""
AT_ONCE = 64
"""Most sequences that are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """Ids whose log-probabilities are asked for."""

    prompt: np.ndarray
    """(P,) int64 ids that are given."""
    rest: np.ndarray
    """(R,) int64 ids that are scored."""


def alone(model: Model, plan: SequenceSpec, *, end: bool = False) -> Scored:
    """All of a plan's only output behind its header, with the id that closes it where `end` is True."""
    prompt = render_prompt(replace(plan, outputs=()), model.vocabulary)
    ids = render(plan, model.vocabulary).ids
    return Scored(prompt=prompt, rest=ids[len(prompt) : -1 if end else -2])  # the end of the sequence never counts


def behind(model: Model, task: str, lang: str, begin: Span, then: Span) -> Scored:
    """What follows a beginning: in a span of the same kind, or, of an interleaved task, in the next one.

    The mark of a change of kind is given too: it is the same whatever follows.
    """
    vocabulary = model.vocabulary
    if begin.kind != then.kind:
        prompt = render_prompt(SequenceSpec(task, lang, outputs=(begin,)), vocabulary)
        ids = render(SequenceSpec(task, lang, outputs=(begin, then)), vocabulary).ids
        return Scored(prompt=ids[: len(prompt) + 1], rest=ids[len(prompt) + 1 : -1])
    both = Span(begin.kind, np.concatenate([begin.content, then.content]), begin.stream)
    prompt = render_prompt(SequenceSpec(task, lang, outputs=(begin,)), vocabulary)
    ids = render(SequenceSpec(task, lang, outputs=(both,)), vocabulary).ids
    return Scored(prompt=prompt, rest=ids[len(prompt) : len(prompt) + len(then)])


def opening(model: Model, task: str, lang: str, span: Span) -> Scored:
    """A span with nothing before it, as `behind` scores it with a beginning."""
    if not task_spec(task).interleaved:
        return alone(model, SequenceSpec(task, lang, outputs=(span,)))
    prompt = render_prompt(SequenceSpec(task, lang), model.vocabulary)
    ids = render(SequenceSpec(task, lang, outputs=(span,)), model.vocabulary).ids
    return Scored(prompt=ids[: len(prompt) + 1], rest=ids[len(prompt) + 1 : -1])


def fits(model: Model, asked: Scored) -> bool:
    """Whether a decoder has positions for a sequence."""
    return len(asked.prompt) + len(asked.rest) <= model.decoder.config.max_positions


def check_fits(model: Model, asked: Scored, what: str) -> None:
    """InputError where a decoder has no positions for a sequence, or nothing of it is scored."""
    size, most = len(asked.prompt) + len(asked.rest), model.decoder.config.max_positions
    if size > most or not len(asked.rest):
        raise InputError(f"{what} takes {size} positions of {most}, {len(asked.rest)} of them scored; leave it out")


def log_probabilities(model: Model, asked: Sequence[Scored]) -> list[np.ndarray]:
    """Natural log-probabilities (R,) float32 of each, given all before it."""
    found: list[np.ndarray] = []
    for group in _groups(asked):
        prompts = [one.prompt for one in group]
        given = [parse(prompt, model.vocabulary).start or 0 for prompt in prompts]
        found += score(model.decoder, prompts, [one.rest for one in group], given=given)
        advance("sequence scored", len(found), len(asked))
    return found


def _groups(asked: Sequence[Scored]) -> Iterator[list[Scored]]:
    """Sequences in their order, as many together as `POSITIONS` hold."""
    group: list[Scored] = []
    size = 0
    for one in asked:
        length = len(one.prompt) + len(one.rest)
        if group and (size + length > POSITIONS or len(group) == AT_ONCE):
            yield group
            group, size = [], 0
        group.append(one)
        size += length
    if group:
        yield group


def chosen(count: int, most: int, seed: int) -> list[int]:
    """Places of at most `most` of `count` items in their order, drawn at random; all where it is 0."""
    if not most or count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(check_seed(seed)).permutation(count)[:most].tolist())
