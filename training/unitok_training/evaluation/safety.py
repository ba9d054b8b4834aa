"""Is free sampling safe: how many outputs per task end, how they end, how much they repeat, how many are empty.

Prompts are drawn from shards as training draws them; what the shards hold as the answer is measured beside, because
real speech repeats itself too. F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.results import Result
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import TOKEN_VARIANTS
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture

GRAM = 4
"""Items of a repeated span."""
LONGEST_PERIOD = 16
LEAST_TURNS = 4
LEAST_ITEMS = 16
"""A loop: a cycle of at most so many items that is gone through so often, over at least so many items."""


@dataclass(frozen=True, kw_only=True)
class TaskSafety:
    """How the sampled outputs of one task ended."""

    count: int
    """Outputs."""
    eos_share: float
    """Share that ended by itself."""
    length_share: float
    """Share that a limit closed."""
    runaway: int
    """Outputs that exceed their limit, or are not closed: 0 with a working automaton."""
    endless_loops: int
    """Outputs that went round in a cycle until a limit closed them."""
    loops_cut: int
    """Outputs that the loop guard closed."""
    empty_share: float
    """Share in which an output holds no item, or text that is blank."""
    repeated_share: float
    """Share of spans of four items that came before in the same output (seq-rep-4, Welleck et al. 2020)."""
    reference_repeated_share: float
    """The same of what the shards hold as the answer."""
    length_ratio: float
    """Items of all outputs ÷ items of the shards' answers."""
    longest_ids: int
    """Ids of the longest output."""


def is_healthy(*, loops: int, runaways: int, empty_share: float) -> bool:
    """Whether answers have no endless loop, no runaway, and at most one in a hundred is empty."""
    return not loops and not runaways and empty_share <= 0.01


@dataclass(frozen=True, kw_only=True)
class GenerationHealth:
    """How answers ended, whoever asked for them."""

    count: int
    """Answers."""
    loops: int
    """Those that went round in a cycle until a limit closed them (endless loops)."""
    loops_cut: int
    """Those whose cycle the loop guard closed: no endless loops, and no good answers."""
    runaways: int
    """Those that are not closed: with a working automaton none."""
    cut: int
    """Those that a length limit closed, endless loops among them."""
    empties: int
    """Those in which an output holds no item, or text that is blank."""

    @property
    def healthy(self) -> bool:
        """See `is_healthy`."""
        return is_healthy(loops=self.loops, runaways=self.runaways, empty_share=self.empties / self.count)


def span_items(span: Span) -> np.ndarray:
    """(N,) int64 items of a span; a frame (F, Q) of codes is one item."""
    content = np.asarray(span.content)
    return content if content.ndim == 1 else np.unique(content, axis=0, return_inverse=True)[1].reshape(-1)


def repeated_grams(items: np.ndarray, gram: int = GRAM) -> tuple[int, int]:
    """(spans of `gram` items that came before in the sequence, all such spans)."""
    total = max(len(items) - gram + 1, 0)
    if not total:
        return 0, 0
    windows = np.lib.stride_tricks.sliding_window_view(items, gram)
    return total - len(np.unique(windows, axis=0)), total


def ends_in_a_loop(items: np.ndarray) -> bool:
    """Whether the end of a sequence goes round in a short cycle."""
    for period in range(1, LONGEST_PERIOD + 1):
        needed = max(LEAST_TURNS * period, LEAST_ITEMS)
        tail = items[-needed:]
        if len(tail) == needed and (tail[period:] == tail[:-period]).all():
            return True
    return False


def repeated_share(outputs: Sequence[Sequence[Span]]) -> float:
    """Spans of four items that came before, over all outputs; 0 where none is that long."""
    counts = [repeated_grams(span_items(span)) for spans in outputs for span in spans]
    total = sum(count for _, count in counts)
    return sum(repeats for repeats, _ in counts) / total if total else 0.0


def is_empty(result: Result) -> bool:
    """Whether some output holds nothing to read or to hear."""
    if not result.outputs or not all(len(span) for span in result.outputs):
        return True
    return any(not text.strip() for text in result.texts)


def is_runaway(model: Model, plan: SequenceSpec, result: Result) -> bool:
    """Whether an answer exceeds its limits, or has no end."""
    closed = len(result.ids) > 0 and int(result.ids[-1]) == model.vocabulary.eos
    within = all(len(span) <= limit for span, limit in zip(result.outputs, model.limits.of(plan)))
    return not closed or not within or len(result.ids) > model.token_limit(plan)


def is_endless_loop(result: Result) -> bool:
    """Whether a limit had to end an output that went round in a cycle."""
    return result.finish_reason == "length" and any(ends_in_a_loop(span_items(span)) for span in result.outputs)


def generation_health(results: Sequence[Result], *, eos: int) -> GenerationHealth:
    """Count endless loops, runaways and empty ones among answers, each to one prompt.

    Args:
        results: the answers, at least one.
        eos: the vocabulary's end of sequence.
    """
    assert results
    reasons = [result.finish_reason for result in results]
    return GenerationHealth(
        count=len(results),
        loops=sum(map(is_endless_loop, results)),
        loops_cut=reasons.count("loop"),
        runaways=sum(not len(result.ids) or int(result.ids[-1]) != eos for result in results),
        cut=reasons.count("length"),
        empties=sum(map(is_empty, results)),
    )


def judge_outputs(model: Model, plans: Sequence[SequenceSpec], results: Sequence[Result]) -> TaskSafety:
    """Figures of one task. `plans` hold the shards' answers; `results` are the sampled ones, in the same order."""
    questions = [replace(plan, outputs=()) for plan in plans]
    reasons = [result.finish_reason for result in results]
    items = sum(len(span) for result in results for span in result.outputs)
    return TaskSafety(
        count=len(results),
        eos_share=reasons.count("eos") / len(results),
        length_share=reasons.count("length") / len(results),
        runaway=sum(is_runaway(model, plan, result) for plan, result in zip(questions, results)),
        endless_loops=sum(map(is_endless_loop, results)),
        loops_cut=reasons.count("loop"),
        empty_share=sum(map(is_empty, results)) / len(results),
        repeated_share=repeated_share([result.outputs for result in results]),
        reference_repeated_share=repeated_share([plan.outputs for plan in plans]),
        length_ratio=items / sum(len(span) for plan in plans for span in plan.outputs),
        longest_ids=max(len(result.ids) for result in results),
    )


def check_safety(
    model: Model,
    shards: Shards,
    *,
    samples: int = 1000,
    sampling: Sampling | None = None,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Sample every task and tell how the outputs end.

    Args:
        model: what is sampled.
        shards: where prompts come from; a prompt may come more than once, its draws differ.
        samples: outputs per task.
        sampling: how ids are drawn; the bare distribution (temperature 1) by default.
        split: rows that prompts come from.
        tasks: keys of `tasks.registry.TOKEN_VARIANTS`; by default those that the model was trained on, else all.
        seed: of prompts and draws.
        progress: told each task before it is sampled.

    Returns:
        {"tasks": {key: the fields of TaskSafety}, "skipped": {key: why}, "sampling": …}.

    Raises:
        InputError: shards of another vocabulary, no sample asked for, or no task that the shards have rows for.
    """
    if samples < 1:
        raise InputError(f"{samples} samples per task: give 1 or more")
    sampling = sampling or Sampling()
    chosen = list(tasks) if tasks is not None else list(model.info.get("tasks") or TOKEN_VARIANTS)
    found: dict[str, TaskSafety] = {}
    skipped: dict[str, str] = {}
    model.vocabulary.check_all(shards.streams, str(shards.folder), "the model's vocabulary")
    for key in chosen:
        try:
            source = ExampleSource(
                shards,
                model.vocabulary,
                Mixture(tasks={key: 1.0}),
                seed=seed,
                options=ExampleOptions(split=split),
                pieces=model.tokenizers.text.pieces(),
            )
        except InputError as error:
            skipped[key] = str(error)
            continue
        if progress is not None:
            progress(key)
        plans = [source.plan(index) for index in range(samples)]
        requests = [PromptRequest(plan=replace(plan, outputs=())) for plan in plans]
        found[key] = judge_outputs(model, plans, model.run(seeded(requests, seed), sampling=sampling))
    if not found:
        raise InputError(f"{shards.folder}: no task can be sampled: {'; '.join(skipped.values())}")
    return {
        "tasks": {key: asdict(figures) for key, figures in found.items()},
        "skipped": skipped,
        "sampling": asdict(sampling),
    }
