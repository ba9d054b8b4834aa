"""The grammar: a plan (what a sequence says) and its ids are two forms of one thing.

    sequence    := bos header cond* output+ eos
    header      := task lang [lang] flag*
    cond        := text | phones | units | codes | lat | voice | hyp+ | kw         each span is closed
    output      := <gen:X> … </X>                                                   chat puts <then> between outputs
    interleaved := bos <ilm> lang (<text> … | <units> …)+ eos                       switch marks, no closers

`render(plan)` gives ids and loss weights, `parse(ids)` the plan. Everything random is in the plan already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.vocabulary import Vocabulary

CONTENT_KINDS = ("text", "phones", "units", "codes")
CONDITION_KINDS = (*CONTENT_KINDS, "lat", "voice", "hyp", "kw")
STREAM_OF_KIND = {"text": "text", "phones": "phones", "units": "units", "codes": "codes", "hyp": "text", "kw": "text"}
FLAGS = ("<out:units>", "<out:codes>", "<chain>", "<ts>", "<nots>", "<itn>", "<noitn>")


@dataclass(frozen=True)
class TaskLine:
    """One row of the task table."""

    name: str
    """Task name; its control token is `<name>`."""
    languages: int
    """1: one language; 2: source and target."""
    conditions: tuple[str, ...]
    """Kinds of spans that may stand before the first generate mark."""
    outputs: tuple[str, ...]
    """Kinds of the outputs without a flag that changes them."""
    by_flag: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Outputs where the flag is set; the first flag that matches decides."""
    then: bool = False
    """A `<then>` mark stands between the outputs."""
    description: str = ""


_SPEECH = (("<out:codes>", ("units", "codes")), ("<out:units>", ("units",)))

TASKS: dict[str, TaskLine] = {
    line.name: line
    for line in (
        TaskLine("asr", 1, ("units", "codes", "lat", "kw", "text"), ("text",), description="speech to its text"),
        TaskLine("tts", 1, ("voice", "text", "phones"), ("units",), _SPEECH, description="text to speech"),
        TaskLine("s2tt", 2, ("units", "codes", "lat"), ("text",), description="speech to translated text"),
        TaskLine(
            "s2st",
            2,
            ("voice", "units", "codes", "lat"),
            ("units",),
            (("<chain>", ("text", "text", "units")), *_SPEECH),
            description="speech to translated speech, direct or as a chain through both texts",
        ),
        TaskLine("mt", 2, ("text",), ("text",), description="text to translated text"),
        TaskLine("lm", 1, (), ("text",), description="text language model"),
        TaskLine("slm", 1, ("voice",), ("units",), _SPEECH, description="speech continuation"),
        TaskLine("chat", 1, ("units",), ("text", "text", "units"), then=True, description="chain of modality"),
        TaskLine("ger", 1, ("hyp",), ("text",), description="correction from an n-best list"),
        TaskLine("gtr", 2, ("hyp",), ("text",), description="translation from an n-best list"),
        TaskLine("ilm", 1, (), (), description="text and units interleaved"),
    )
}
"""The task table. A new task is a row here."""


@dataclass(frozen=True, eq=False)
class Span:
    """Local ids of one kind: (N,) for text and units, (F, Q) for codes; for `lat` only the length counts."""

    kind: str
    content: np.ndarray
    stream: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in CONDITION_KINDS:
            raise InputError(f"unknown span kind {self.kind!r}; known: {', '.join(CONDITION_KINDS)}")
        object.__setattr__(self, "content", np.asarray(self.content, dtype=np.int64))
        if self.stream is None:
            object.__setattr__(self, "stream", "codes" if self.kind == "voice" else STREAM_OF_KIND.get(self.kind))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Span):
            return NotImplemented
        same = self.kind == other.kind and self.stream == other.stream
        return same and np.array_equal(self.content, other.content)

    def __len__(self) -> int:
        return len(self.content)


@dataclass(frozen=True)
class Plan:
    """What one sequence says."""

    task: str
    source: str
    target: str | None = None
    flags: tuple[str, ...] = ()
    conditions: tuple[Span, ...] = ()
    outputs: tuple[Span, ...] = ()
    forced: int = 0
    """Leading items (frames for codes) of the first output that are a given prompt: no loss on them."""


@dataclass(frozen=True)
class Rendered:
    """Ids (T,) int64 and the weight (T,) float32 of predicting each of them; the first weight is 0."""

    ids: np.ndarray
    loss_weight: np.ndarray


@dataclass(frozen=True)
class Parsed:
    """What ids say; `complete` is False where they stop before the end of the sequence."""

    task: str
    source: str
    target: str | None
    flags: tuple[str, ...]
    conditions: tuple[Span, ...]
    outputs: tuple[Span, ...]
    complete: bool = True

    def plan(self) -> Plan:
        return Plan(self.task, self.source, self.target, self.flags, self.conditions, self.outputs)


def task_line(task: str) -> TaskLine:
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return TASKS[task]


def output_kinds(task: str, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Kinds of the outputs of a task, in order."""
    line = task_line(task)
    for flag, kinds in line.by_flag:
        if flag in flags:
            return kinds
    return line.outputs


def _check(plan: Plan, *, outputs: bool) -> TaskLine:
    line = task_line(plan.task)
    if (plan.target is not None) != (line.languages == 2):
        raise InputError(f"task {plan.task!r} takes {line.languages} language(s), got {plan.source!r}, {plan.target!r}")
    for flag in plan.flags:
        if flag not in FLAGS:
            raise InputError(f"unknown flag {flag!r}; known: {' '.join(FLAGS)}")
    for span in plan.conditions:
        if span.kind not in line.conditions:
            allowed = ", ".join(line.conditions) or "none"
            raise InputError(f"task {plan.task!r} takes no {span.kind!r} condition; it takes {allowed}")
    kinds = tuple(span.kind for span in plan.outputs)
    if outputs and plan.task != "ilm" and kinds != output_kinds(plan.task, plan.flags):
        wanted = ", ".join(output_kinds(plan.task, plan.flags))
        raise InputError(f"task {plan.task!r} with flags {plan.flags} gives {wanted}; the plan has {', '.join(kinds)}")
    return line


# -- rendering --------------------------------------------------------------------------------------------------


def content_ids(span: Span, vocabulary: Vocabulary) -> np.ndarray:
    """Global ids of a span's content, codes frame by frame with all codebooks of a frame together."""
    if span.kind == "lat":
        return np.full(len(span), vocabulary.control("<lat>"), dtype=np.int64)
    assert span.stream is not None
    if span.content.ndim == 2:
        columns = [vocabulary.to_ids(span.stream, span.content[:, q], q) for q in range(span.content.shape[1])]
        return np.stack(columns, axis=1).reshape(-1)  # (F, Q) -> (F * Q,)
    return vocabulary.to_ids(span.stream, span.content)


def opener(kind: str) -> str:
    return "<lats>" if kind == "lat" else f"<{kind}>"


def closer(kind: str) -> str:
    return "</lats>" if kind == "lat" else f"</{kind}>"


def _header(plan: Plan, vocabulary: Vocabulary) -> list[int]:
    ids = [vocabulary.bos, vocabulary.control(f"<{plan.task}>"), vocabulary.language(plan.source)]
    if plan.target is not None:
        ids.append(vocabulary.language(plan.target))
    return ids + [vocabulary.control(flag) for flag in plan.flags]


def _conditions(plan: Plan, vocabulary: Vocabulary) -> list[np.ndarray]:
    pieces = []
    for span in plan.conditions:
        ids = content_ids(span, vocabulary)
        pieces += [[vocabulary.control(opener(span.kind))], ids, [vocabulary.control(closer(span.kind))]]
    return [np.asarray(piece, dtype=np.int64) for piece in pieces]


def _concatenate(pieces: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(piece, dtype=np.int64) for piece in pieces])


def render(plan: Plan, vocabulary: Vocabulary) -> Rendered:
    """Ids and loss weights of a plan.

    Loss starts after the first generate mark (interleaved: after the language); a forced prefix has none.
    """
    line = _check(plan, outputs=True)
    if plan.task == "ilm":
        return _render_interleaved(plan, vocabulary)
    prompt = _concatenate([_header(plan, vocabulary), *_conditions(plan, vocabulary)])
    pieces: list[Sequence[int] | np.ndarray] = [prompt]
    for index, span in enumerate(plan.outputs):
        if index and line.then:
            pieces.append([vocabulary.control("<then>")])
        pieces += [
            [vocabulary.control(f"<gen:{span.kind}>")],
            content_ids(span, vocabulary),
            [vocabulary.control(closer(span.kind))],
        ]
    ids = _concatenate([*pieces, [vocabulary.eos]])
    weight = np.ones(len(ids), dtype=np.float32)
    width = plan.outputs[0].content.shape[1] if plan.outputs[0].content.ndim == 2 else 1
    weight[: len(prompt) + 1 + plan.forced * width] = 0.0
    return Rendered(ids, weight)


def _render_interleaved(plan: Plan, vocabulary: Vocabulary) -> Rendered:
    header = _header(plan, vocabulary)
    pieces: list[Sequence[int] | np.ndarray] = [header]
    for before, span in zip((None, *plan.outputs), plan.outputs):
        if span.kind not in ("text", "units") or (before is not None and before.kind == span.kind) or not len(span):
            raise InputError("an interleaved plan alternates text and units spans, none of them empty")
        pieces += [[vocabulary.control(opener(span.kind))], content_ids(span, vocabulary)]
    ids = _concatenate([*pieces, [vocabulary.eos]])
    weight = np.ones(len(ids), dtype=np.float32)
    weight[: len(header)] = 0.0
    return Rendered(ids, weight)


def render_prompt(plan: Plan, vocabulary: Vocabulary) -> np.ndarray:
    """Ids that generation starts from: header, conditions, first generate mark, and the given prefix if there is one.

    `plan.outputs` may be empty, or hold one span, whose content is the prefix to continue. For `ilm` the outputs are
    the spans so far, the last one left open.
    """
    _check(plan, outputs=False)
    pieces: list[Sequence[int] | np.ndarray] = [_header(plan, vocabulary), *_conditions(plan, vocabulary)]
    if plan.task == "ilm":
        for span in plan.outputs:
            pieces += [[vocabulary.control(opener(span.kind))], content_ids(span, vocabulary)]
        return _concatenate(pieces)
    pieces.append([vocabulary.control(f"<gen:{output_kinds(plan.task, plan.flags)[0]}>")])
    if plan.outputs:
        pieces.append(content_ids(plan.outputs[0], vocabulary))
    return _concatenate(pieces)


# -- parsing ----------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """A cursor over ids that names what it stumbles on."""

    ids: np.ndarray
    vocabulary: Vocabulary
    at: int = 0
    names: dict[int, str] = field(default_factory=dict)

    def more(self) -> bool:
        return self.at < len(self.ids)

    def name(self) -> str:
        return self.vocabulary.describe(int(self.ids[self.at])).name if self.more() else "the end"

    def take(self, name: str) -> bool:
        if self.more() and self.name() == name:
            self.at += 1
            return True
        return False

    def expect(self, name: str) -> None:
        if not self.take(name):
            raise InputError(f"position {self.at}: expected {name}, found {self.name() or 'text'}")

    def run(self, stream: str, codebooks: int) -> np.ndarray:
        """Content of one stream from here on: (N,) or, with several codebooks, (F, Q)."""
        ranges = [self.vocabulary.block_ranges(stream, q) for q in range(codebooks)]
        start = self.at
        while self.more() and self._inside(ranges[(self.at - start) % codebooks]):
            self.at += 1
        taken = self.ids[start : self.at]
        if codebooks == 1:
            return self.vocabulary.to_local(stream, taken)
        if len(taken) % codebooks and self.more():
            raise InputError(f"position {self.at}: {stream} stop inside a frame of {codebooks} codebooks")
        whole = taken[: len(taken) // codebooks * codebooks].reshape(-1, codebooks)  # (F, Q)
        return np.stack([self.vocabulary.to_local(stream, whole[:, q], q) for q in range(codebooks)], axis=1)

    def _inside(self, ranges: Sequence[tuple[int, int]]) -> bool:
        value = int(self.ids[self.at])
        if value in self.vocabulary.roles.values():
            return False
        return any(start <= value < stop for start, stop in ranges)


def _stream_at(reader: _Reader, kind: str) -> tuple[str, int]:
    """Stream and codebook count of a span's content, told by its first id where the kind leaves it open."""
    vocabulary = reader.vocabulary
    default = "codes" if kind == "voice" else STREAM_OF_KIND[kind]
    if reader.more():
        token = vocabulary.describe(int(reader.ids[reader.at]))
        fits = token.block == kind or (kind == "voice" and token.block in ("units", "codes"))
        if token.tokenizer and fits:
            default = token.tokenizer
            if kind == "units" and token.block == "codes":
                default = "units"
    if default not in vocabulary.streams:
        return default, 1
    stream = vocabulary.streams[default]
    return default, len(stream.cardinalities)


def _read_content(reader: _Reader, kind: str) -> Span:
    if kind == "lat":
        start = reader.at
        while reader.take("<lat>"):
            pass
        return Span(kind, np.zeros(reader.at - start, dtype=np.int64))
    stream, codebooks = _stream_at(reader, kind)
    if kind in ("units", "hyp", "kw"):
        codebooks = 1
        stream = stream if kind == "units" else "text"
    if stream == "text":
        stream = reader.vocabulary.text.name
    if stream not in reader.vocabulary.streams:
        return Span(kind, np.zeros(0, dtype=np.int64), stream)
    return Span(kind, reader.run(stream, codebooks), stream)


def parse(ids: np.ndarray | Sequence[int], vocabulary: Vocabulary) -> Parsed:
    """The plan that ids say; the inverse of `render` (a forced prefix is part of its output).

    Raises:
        InputError: the ids break the grammar; the message names the position and what stood there. Ids that merely
            stop early give `complete=False`.
    """
    reader = _Reader(np.asarray(ids, dtype=np.int64), vocabulary)
    reader.expect("<bos>")
    task = reader.name()[1:-1]
    line = task_line(task)
    reader.at += 1
    languages = [_read_language(reader) for _ in range(line.languages)]
    flags = []
    while reader.name() in FLAGS:
        flags.append(reader.name())
        reader.at += 1
    conditions = []
    while task != "ilm" and (kind := _kind_of_opener(reader.name())) is not None:
        reader.at += 1
        conditions.append(_read_content(reader, kind))
        reader.expect(closer(kind))
    if task == "ilm":
        outputs, complete = _read_interleaved(reader)
    else:
        outputs, complete = _read_outputs(reader, output_kinds(task, flags), line.then)
    if complete and reader.more():
        raise InputError(f"position {reader.at}: {reader.name() or 'text'} after the end of the sequence")
    target = languages[1] if line.languages == 2 else None
    return Parsed(task, languages[0], target, tuple(flags), tuple(conditions), tuple(outputs), complete)


def _read_language(reader: _Reader) -> str:
    name = reader.name()
    if not name.startswith("<lang:"):
        raise InputError(f"position {reader.at}: expected a language, found {name or 'text'}")
    reader.at += 1
    return name[len("<lang:") : -1]


def _kind_of_opener(name: str) -> str | None:
    return next((kind for kind in CONDITION_KINDS if name == opener(kind)), None)


def _read_outputs(reader: _Reader, kinds: Sequence[str], then: bool) -> tuple[list[Span], bool]:
    outputs: list[Span] = []
    for index, kind in enumerate(kinds):
        marks = (["<then>"] if index and then else []) + [f"<gen:{kind}>"]
        for mark in marks:
            if not reader.more():
                return outputs, False
            reader.expect(mark)
        outputs.append(_read_content(reader, kind))
        if not reader.more():
            return outputs, False
        reader.expect(closer(kind))
    if not reader.more():
        return outputs, False
    reader.expect("<eos>")
    return outputs, True


def _read_interleaved(reader: _Reader) -> tuple[list[Span], bool]:
    outputs: list[Span] = []
    while reader.more():
        if reader.take("<eos>"):
            return outputs, True
        kind = next((kind for kind in ("text", "units") if reader.take(f"<{kind}>")), None)
        if kind is None:
            raise InputError(
                f"position {reader.at}: expected <text>, <units> or <eos>, found {reader.name() or 'text'}"
            )
        outputs.append(_read_content(reader, kind))
    return outputs, False
