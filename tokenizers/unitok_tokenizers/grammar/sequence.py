"""Plans: what a sequence says, before it has ids, and the rules that its task's row sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.tasks.base import CONDITION_KINDS, MODALITIES, PROSODY_KINDS, STATES, TaskSpec
from unitok_tokenizers.grammar.tasks.registry import output_kinds, task_spec

STREAM_OF_KIND = {
    **{"text": "text", "phones": "phones", "units": "units", "codes": "codes"},
    **{"hyp": "text", "kw": "text", "tool": "text"},
    **{kind: kind for kind in PROSODY_KINDS},
}
"""Kind of the stream of a span that names none; its name stands for the main stream of that kind."""


@dataclass(frozen=True, eq=False)
class Span:
    """Local ids of one kind."""

    kind: str
    """text, phones, units, codes, lat, voice, hyp, kw, style, pitch, durations, tool or state."""
    content: np.ndarray
    """(N,) int64; codes (F, Q). Of `lat` only the length counts: how many vectors stand there. A `state` is one place
    in `STATES`."""
    stream: str | None = None
    """Stream that the ids belong to; the name of a kind, which None becomes, is the vocabulary's main stream of it."""

    def __post_init__(self) -> None:
        if self.kind not in (*CONDITION_KINDS, "tool", "state"):
            raise InputError(f"unknown span kind {self.kind!r}; known: {', '.join(CONDITION_KINDS)}, tool, state")
        content = np.asarray(self.content, dtype=np.int64)
        stream = self.stream
        if self.kind == "lat":
            content, stream = np.zeros(len(content), dtype=np.int64), None
        elif self.kind == "state":
            stream = None
            if content.shape != (1,) or not 0 <= content[0] < len(STATES):
                raise InputError(f"a state span holds {content.tolist()}: give one place of {' '.join(STATES)}")
        elif stream is None:
            voice = "codes" if content.ndim == 2 else "units"
            stream = voice if self.kind == "voice" else STREAM_OF_KIND[self.kind]
        object.__setattr__(self, "content", content)
        object.__setattr__(self, "stream", stream)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Span):
            return NotImplemented
        same = self.kind == other.kind and self.stream == other.stream
        return same and np.array_equal(self.content, other.content)

    def __len__(self) -> int:
        """Items: ids, or frames of codes."""
        return len(self.content)


@dataclass(frozen=True)
class SequenceSpec:
    """What one sequence says."""

    task: str
    """Name of a row of the task table."""
    source: str
    """Language of the conditions, or the only one."""
    target: str | None = None
    """Language of the outputs, for tasks with two."""
    flags: tuple[str, ...] = ()
    """Such as `<out:codes>`."""
    conditions: tuple[Span, ...] = ()
    """What is given."""
    outputs: tuple[Span, ...] = ()
    """What is to be learnt; in a prompt, the prefix to continue."""
    forced: int = 0
    """Leading items (frames for codes) of the first output that are a given prompt: no loss on them."""


@dataclass(frozen=True)
class Rendered:
    """A plan as ids."""

    ids: np.ndarray
    """(T,) int64."""
    loss_weight: np.ndarray
    """(T,) float32: the weight of predicting each id; the first is 0."""
    prefix_length: int = 0
    """Leading ids that are given whatever is answered; a decoder with `prefix_lm` lets them see each other."""
    frames: Frames | None = None
    """Codes beside the ids; None where the vocabulary has no slots. What an id weighs, they weigh."""


@dataclass(frozen=True)
class Parsed:
    """What ids say."""

    task: str
    source: str
    target: str | None
    flags: tuple[str, ...]
    conditions: tuple[Span, ...]
    outputs: tuple[Span, ...]
    """A last one that is still open holds its whole items."""
    complete: bool = True
    """False where the ids stop before the end of the sequence."""
    start: int | None = None
    """Number of ids before the first output's content (interleaved: before its first switch mark); None where the ids
    stop earlier."""

    def plan(self) -> SequenceSpec:
        """The plan that renders to these ids."""
        return SequenceSpec(self.task, self.source, self.target, self.flags, self.conditions, self.outputs)


def check_flags(line: TaskSpec, flags: Sequence[str]) -> None:
    """InputError where a task does not take the flags."""
    for flag in flags:
        if flag not in line.flags:
            raise InputError(f"task {line.name!r} takes no flag {flag!r}; it takes {' '.join(line.flags)}")
    if len(set(flags)) < len(flags):
        raise InputError(f"flags {' '.join(flags)} repeat one; give each once")


def check_conditions(line: TaskSpec, kinds: Sequence[str]) -> None:
    """InputError where a task does not take the kinds of spans."""
    for kind in kinds:
        if kind not in line.conditions:
            allowed = ", ".join(line.conditions) or "none"
            raise InputError(f"task {line.name!r} takes no {kind!r} condition; it takes {allowed}")


def check_interleaved(spans: Sequence[Span]) -> None:
    """InputError where spans do not alternate between text and units, or one is empty."""
    kinds = [span.kind for span in spans]
    fits = all(kind in MODALITIES for kind in kinds) and all(a != b for a, b in zip(kinds, kinds[1:]))
    if not fits or not all(len(span) for span in spans):
        found = ", ".join(f"{len(span)} {span.kind}" for span in spans)
        raise InputError(f"an interleaved sequence alternates text and units, no span empty; found {found}")


def check_paired(spans: Sequence[Span], where: str) -> None:
    """InputError where units stand beside durations that are not one for each."""
    sizes = {span.kind: len(span) for span in spans if span.kind in ("units", "durations")}
    if len(set(sizes.values())) > 1:
        raise InputError(f"{where} have {sizes['units']} units and {sizes['durations']} durations; give one for each")


def check_spec(plan: SequenceSpec, *, prompt: bool = False) -> TaskSpec:
    """The plan's row; InputError where the plan does not follow it. A prompt may have fewer outputs."""
    line = task_spec(plan.task)
    if (plan.target is not None) != (line.languages == 2):
        raise InputError(f"task {plan.task!r} takes {line.languages} language(s), got {plan.source!r}, {plan.target!r}")
    check_flags(line, plan.flags)
    check_conditions(line, [span.kind for span in plan.conditions])
    if line.interleaved:
        check_interleaved(plan.outputs)
    else:
        _check_outputs(plan, prompt)
    check_paired(plan.conditions, "conditions")
    if not prompt:
        check_paired(plan.outputs, "outputs")
    if not prompt and not plan.outputs:
        raise InputError(f"the {plan.task!r} plan has no outputs to learn; use render_prompt for a prompt")
    first = len(plan.outputs[0]) if plan.outputs else 0
    if not 0 <= plan.forced <= first:
        raise InputError(f"forced is {plan.forced}, but the first output has {first} items; force at most these")
    return line


def _check_outputs(plan: SequenceSpec, prompt: bool) -> None:
    kinds, wanted = tuple(span.kind for span in plan.outputs), output_kinds(plan.task, plan.flags)
    if kinds != wanted and not (prompt and kinds == wanted[: len(kinds)]):
        flags = " ".join(plan.flags) or "no flags"
        found = ", ".join(kinds) or "no output"
        raise InputError(f"task {plan.task!r} with {flags} gives {', '.join(wanted)}; the plan has {found}")
