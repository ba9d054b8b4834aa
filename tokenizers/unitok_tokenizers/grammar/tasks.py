"""Control tokens and the task table: a task is a row of data, not a model.

A new task is a row in `TASKS`; a new control token goes to the end of `CONTROLS`, so that no id moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitok_tokenizers.errors import InputError

CONTENT_KINDS = ("text", "phones", "units", "codes")
CONDITION_KINDS = (*CONTENT_KINDS, "lat", "voice", "hyp", "kw")
OUTPUT_FLAGS = ("<out:units>", "<out:codes>", "<chain>")
"""Flags that change which outputs a task gives; only the rows that name them take them."""
STYLE_FLAGS = ("<ts>", "<nots>", "<itn>", "<noitn>")
"""Flags that ask for time stamps or inverse text normalization; any task takes them."""
FLAGS = (*OUTPUT_FLAGS, *STYLE_FLAGS)
STATES = ("<listen>", "<speak>", "<stop>")
"""What a coordinator does with a chunk of sound; a `state` span holds the place of one of them here."""


def opener(kind: str) -> str:
    """Token that opens a span; `<lat>` itself is the placeholder inside a latent span."""
    return "<lats>" if kind == "lat" else f"<{kind}>"


def closer(kind: str) -> str:
    """Token that closes a span."""
    return "</lats>" if kind == "lat" else f"</{kind}>"


_TASK_NAMES = "asr tts s2tt s2st mt lm slm ilm chat ger gtr vtts cap se sr tse edit vc sid".split()
_SPAN_NAMES = (*CONDITION_KINDS, "tool")

CONTROLS: tuple[str, ...] = (
    *("<bos>", "<eos>", "<pad>", "<mask>"),
    *(f"<{name}>" for name in _TASK_NAMES),
    *(mark for kind in _SPAN_NAMES for mark in (opener(kind), closer(kind))),
    "<lat>",
    *("<gen:text>", "<gen:units>", "<gen:codes>", "<gen:first>"),
    *("<then>", "<fine>"),
    *OUTPUT_FLAGS,
    *STYLE_FLAGS,
    *STATES,
    *("<route>", "<gen:tool>"),
    *("<prosody>", "<ask>"),
    *("<turn>", "<gen:state>", opener("state"), closer("state")),
)
"""Control tokens in the order of their ids."""


@dataclass(frozen=True, kw_only=True)
class TaskLine:
    """One row of the task table."""

    name: str
    """Task name; its control token is `<name>`."""
    languages: int
    """1: one language; 2: source and target."""
    conditions: tuple[str, ...] = ()
    """Kinds of spans that may stand before the first generate mark, in any order."""
    outputs: tuple[str, ...] = ()
    """Kinds of the outputs without a flag that changes them."""
    by_flag: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """(flags, outputs): the first row whose flags are all set decides."""
    then: bool = False
    """A `<then>` mark stands between the outputs."""
    interleaved: bool = False
    """Text and units alternate behind switch marks, as many spans as it likes, instead of fixed outputs."""
    description: str = ""
    """What the task does, for people."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that the task takes."""
        return (*(flag for flag in OUTPUT_FLAGS if any(flag in flags for flags, _ in self.by_flag)), *STYLE_FLAGS)


_SPOKEN = ((("<out:codes>",), ("units", "codes")), (("<out:units>",), ("units",)))
_CHAINED = (
    (("<chain>", "<out:codes>"), ("text", "text", "units", "codes")),
    (("<chain>",), ("text", "text", "units")),
)

_HEARD = ("units", "codes", "lat", "text")

_ROWS = (
    TaskLine(
        name="asr",
        languages=1,
        conditions=("units", "codes", "lat", "kw", "text"),
        outputs=("text",),
        description="speech to its text",
    ),
    TaskLine(
        name="tts",
        languages=1,
        conditions=("voice", "text", "phones"),
        outputs=("units",),
        by_flag=_SPOKEN,
        description="text to speech",
    ),
    TaskLine(
        name="s2tt",
        languages=2,
        conditions=("units", "codes", "lat", "kw", "text"),
        outputs=("text",),
        description="speech to translated text",
    ),
    TaskLine(
        name="s2st",
        languages=2,
        conditions=("voice", "units", "codes", "lat"),
        outputs=("units",),
        by_flag=(*_CHAINED, *_SPOKEN),
        description="speech to translated speech, direct or as a chain through both texts",
    ),
    TaskLine(
        name="mt",
        languages=2,
        conditions=("text", "lat"),
        outputs=("text",),
        description="text to translated text; vectors may stand for the text",
    ),
    TaskLine(
        name="lm",
        languages=1,
        conditions=("text", "lat"),
        outputs=("text",),
        description="text continuation, of nothing or of what is given",
    ),
    TaskLine(
        name="slm",
        languages=1,
        conditions=("voice",),
        outputs=("units",),
        by_flag=_SPOKEN,
        description="speech continuation",
    ),
    TaskLine(
        name="chat",
        languages=1,
        conditions=("units",),
        outputs=("text", "text", "units"),
        then=True,
        description="spoken question to its text, the answer's text, the spoken answer",
    ),
    TaskLine(
        name="ger",
        languages=1,
        conditions=("hyp", "lat"),
        outputs=("text",),
        description="correction of an n-best list",
    ),
    TaskLine(
        name="gtr",
        languages=2,
        conditions=("hyp", "lat"),
        outputs=("text",),
        description="translation of an n-best list",
    ),
    TaskLine(
        name="sid",
        languages=1,
        conditions=_HEARD,
        outputs=("text",),
        description="speech to the name of its speaker",
    ),
    TaskLine(
        name="prosody",
        languages=1,
        conditions=_HEARD,
        outputs=("text",),
        description="speech to the name of its prosody class, an emotion or a contour",
    ),
    TaskLine(
        name="cap",
        languages=1,
        conditions=_HEARD,
        outputs=("text",),
        description="speech to a description of it: who speaks, how, and what is said",
    ),
    TaskLine(
        name="ask",
        languages=1,
        conditions=_HEARD,
        outputs=("text",),
        description="speech and a question in words to the answer",
    ),
    TaskLine(
        name="route",
        languages=1,
        conditions=("text", "units", "lat"),
        outputs=("tool",),
        description="request to the name and arguments of the tool that answers it",
    ),
    TaskLine(
        name="turn",
        languages=1,
        conditions=("units", "lat", "text"),
        outputs=("state",),
        description="what is heard and what was said so far to whether to listen, to speak or to stop",
    ),
    TaskLine(name="ilm", languages=1, interleaved=True, description="text and units interleaved"),
)

TASKS: Mapping[str, TaskLine] = {line.name: line for line in _ROWS}
"""The task table by name."""


def task_line(task: str) -> TaskLine:
    """The row of a task; InputError where there is none."""
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return TASKS[task]


def output_kinds(task: str, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Kinds of a task's outputs in order; none for an interleaved task, whose spans are free."""
    line = task_line(task)
    for wanted, kinds in line.by_flag:
        if set(wanted) <= set(flags):
            return kinds
    return line.outputs
