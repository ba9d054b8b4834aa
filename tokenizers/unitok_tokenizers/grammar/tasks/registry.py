"""The tasks by name. A new one is a file, or a row in one, and a line here.

Its control token comes behind all others, so that no id moves (`controls`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.tasks.base import TaskSpec, Variant
from unitok_tokenizers.registry import Registry

TASKS: Mapping[str, TaskSpec] = dict(
    Registry(
        "task",
        {
            "asr": "unitok_tokenizers.grammar.tasks.recognition:ASR",
            "tts": "unitok_tokenizers.grammar.tasks.synthesis:TTS",
            "s2tt": "unitok_tokenizers.grammar.tasks.translation:S2TT",
            "s2st": "unitok_tokenizers.grammar.tasks.translation:S2ST",
            "mt": "unitok_tokenizers.grammar.tasks.translation:MT",
            "lm": "unitok_tokenizers.grammar.tasks.continuation:LM",
            "slm": "unitok_tokenizers.grammar.tasks.continuation:SLM",
            "chat": "unitok_tokenizers.grammar.tasks.dialogue:CHAT",
            "ger": "unitok_tokenizers.grammar.tasks.lists:GER",
            "gtr": "unitok_tokenizers.grammar.tasks.lists:GTR",
            "sid": "unitok_tokenizers.grammar.tasks.questions:SID",
            "prosody": "unitok_tokenizers.grammar.tasks.questions:PROSODY",
            "cap": "unitok_tokenizers.grammar.tasks.questions:CAP",
            "ask": "unitok_tokenizers.grammar.tasks.questions:ASK",
            "route": "unitok_tokenizers.grammar.tasks.dialogue:ROUTE",
            "turn": "unitok_tokenizers.grammar.tasks.dialogue:TURN",
            "ilm": "unitok_tokenizers.grammar.tasks.continuation:ILM",
            "vtts": "unitok_tokenizers.grammar.tasks.synthesis:VTTS",
            "se": "unitok_tokenizers.grammar.tasks.remaking:SE",
            "sr": "unitok_tokenizers.grammar.tasks.remaking:SR",
            "tse": "unitok_tokenizers.grammar.tasks.remaking:TSE",
            "edit": "unitok_tokenizers.grammar.tasks.remaking:EDIT",
            "vc": "unitok_tokenizers.grammar.tasks.remaking:VC",
        },
    )
)
"""The task table by name."""


@dataclass(frozen=True, kw_only=True)
class TaskVariant:
    """A kind of examples by its key: `asr`, `asr.codes`."""

    key: str
    """Task, or task and variant with a point between them."""
    task: TaskSpec
    """Its task."""
    variant: Variant
    """Which of the task's."""

    @property
    def metric(self) -> str:
        """Where its scores stand."""
        return self.variant.metric or self.key

    @property
    def outputs(self) -> tuple[str, ...]:
        """Kinds of its outputs; of an interleaved task the two that take turns."""
        return ("text", "units") if self.task.interleaved else self.task.output_kinds(self.variant.flags)

    @property
    def opens_with_transcript(self) -> bool:
        """Whether the first of its outputs is the text of what is given, and not of the answer."""
        return self.outputs.count("text") == 2


def _variants() -> dict[str, TaskVariant]:
    rows = ((f"{task.name}.{one.name}".strip("."), task, one) for task in TASKS.values() for one in task.variants)
    return {key: TaskVariant(key=key, task=task, variant=one) for key, task, one in rows}


VARIANTS: Mapping[str, TaskVariant] = _variants()
"""Key of a mixture → task variant."""
ALIASES: Mapping[str, str] = {alias: key for key, one in VARIANTS.items() for alias in one.variant.aliases}
"""Other names of keys."""
TOKEN_VARIANTS: Mapping[str, TaskVariant] = {key: one for key, one in VARIANTS.items() if one.variant.given is not None}
"""Those that token shards make."""
ROW_VARIANTS: Mapping[str, TaskVariant] = {key: one for key, one in VARIANTS.items() if one.variant.rows is not None}
"""Those that rows of a manifest make, for models that hear recordings as vectors."""


def task_spec(task: str) -> TaskSpec:
    """The row of a task; InputError where there is none."""
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    return TASKS[task]


def output_kinds(task: str, flags: Sequence[str] = ()) -> tuple[str, ...]:
    """Kinds of a task's outputs in order; none for an interleaved task, whose spans are free."""
    return task_spec(task).output_kinds(tuple(flags))
