"""What a latent model answers on held-out rows: any line of a latent mixture, asked as in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import torch

from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_tokenizers.progress import advance_aside, part_of_work
from unitok_training.data.latent_examples import filled
from unitok_training.data.latent_tasks import LATENT_TASKS, Item, LatentTask, RowTexts, asked_items
from unitok_training.evaluation.metrics import bleu, bleu_label, error_unit, formatted_wer, wer
from unitok_training.evaluation.run import drawn

AT_ONCE = 16
"""Requests that are answered together."""


@dataclass(frozen=True)
class Question:
    """What is asked of recordings, and the answer that is right."""

    plan: SequenceSpec
    """A prompt; its `lat` conditions hold no vectors yet."""
    heard: tuple[Row, ...]
    """Rows whose recordings the `lat` conditions are."""
    answer: str


def question(line: LatentTask, table: RowTexts, item: Item, random: np.random.Generator) -> Question:
    """An item as it is asked in training."""
    told = line.tell(table, item.given, random)
    plan = line.plan(table, item.given, item.target, item.question, None, told)
    return Question(plan, tuple(table.rows[row] for row in told.heard), item.answer)


def answers(model: Model, asked: Sequence[Question]) -> list[str]:
    """The model's answers, greedily."""
    found: list[str] = []
    for begin in range(0, len(asked), AT_ONCE):
        together = asked[begin : begin + AT_ONCE]
        recordings = [row for one in together for row in one.heard]
        heard = iter(hear(model, recordings))
        requests = []
        for one in together:
            vectors = [next(heard) for _ in one.heard]
            plan = filled(one.plan, [len(given) for given in vectors])
            requests.append(PromptRequest(plan=plan, vectors=torch.cat(vectors) if vectors else None))
        found += [result.text or "" for result in model.run(requests)]
        advance_aside("answer", len(found), len(asked))
    return found


def hear(model: Model, rows: Sequence[Row]) -> list[torch.Tensor]:
    """Vectors (N, C) of the recordings of rows."""
    if not rows:
        return []
    rate = model.latent.sample_rate if model.latent is not None else model.sample_rate
    found = model.heard([(row.load(rate), rate) for row in rows], "latent")
    return [vectors for _, vectors in found if vectors is not None]


def score_lines(
    model: Model, rows: Sequence[Row], keys: Sequence[str], limit: int = 200, *, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Scores of each key that the rows fit, of at most `limit` questions each (0: of all).

    Returns:
        `wer` of asr, `bleu` of s2tt and mt; of other lines `accuracy` (whole answers), and of those that transcribe
        `wer` and `formatted_wer` too, of `asr.times` also `near`; `unit` or `bleu_tokenizer`, what they count; `rows`,
        how many were asked. A line of text alone without a question has none.
    """
    table = RowTexts(rows, model.tokenizers.text)
    scores: dict[str, dict[str, Any]] = {}
    for number, key in enumerate(keys):
        line = LATENT_TASKS[key]
        items = [
            item for item in asked_items(line, rows) if item.target is None or item.target in model.languages
        ] if line.needs else []  # fmt: skip
        if not items:
            continue
        random = np.random.default_rng(seed)
        asked = [question(line, table, item, random) for item in drawn(items, limit, seed=seed)]
        with part_of_work(f"scores of {key}", number, len(keys)):
            scores[key] = {**score(key, [one.answer for one in asked], answers(model, asked)), "rows": len(asked)}
    return scores


def score(key: str, wanted: Sequence[str], found: Sequence[str]) -> dict[str, Any]:
    """The figures that a line is judged by, and what they count (`unit`, `bleu_tokenizer`)."""
    scores = {name: METRICS[name](wanted, found) for name in VARIANTS[key].variant.metrics}
    counted: dict[str, Any] = {"unit": error_unit(wanted)} if "wer" in scores else {}
    if "bleu" in scores:
        counted["bleu_tokenizer"] = bleu_label(wanted)
    return {**scores, **counted}


def accuracy(wanted: Sequence[str], found: Sequence[str]) -> float:
    """Share of whole answers that are right."""
    return sum(a == b for a, b in zip(wanted, found)) / len(wanted)


def near(wanted: Sequence[str], found: Sequence[str]) -> float:
    """Share of the words of `3 the 5 green` that are found, in their order, at most a tenth of a second away."""
    pairs = [([*zip(one.split()[::2], one.split()[1::2])] for one in texts) for texts in (wanted, found)]
    right = total = 0
    for said, heard in zip(*pairs):
        total += len(said)
        words = SequenceMatcher(a=[word for _, word in said], b=[word for _, word in heard], autojunk=False)
        for block in words.get_matching_blocks():
            both = zip(said[block.a : block.a + block.size], heard[block.b : block.b + block.size])
            right += sum(b.isdigit() and abs(int(a) - int(b)) <= 1 for (a, _), (b, _) in both)
    return right / max(total, 1)


def without_recordings(one: Question) -> Question:
    """The same question with the recordings' places taken out."""
    spans: tuple[Span, ...] = tuple(span for span in one.plan.conditions if span.kind != "lat")
    return replace(one, plan=replace(one.plan, conditions=spans), heard=())


METRICS: Mapping[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "accuracy": accuracy,
    "wer": wer,
    "formatted_wer": formatted_wer,
    "near": near,
    "bleu": bleu,
}
"""What `Variant.metrics` names: (references, outputs) → score."""
