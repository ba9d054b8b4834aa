"""Control tokens in the order of their ids. A new one goes to the end, so that no id moves."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import (
    CONDITION_KINDS,
    OUTPUT_FLAGS,
    PROSODY_FLAGS,
    PROSODY_KINDS,
    STATES,
    STYLE_FLAGS,
    closer,
    opener,
)
from unitok_tokenizers.grammar.tasks.registry import TASKS

_FIRST_TASKS = "asr tts s2tt s2st mt lm slm ilm chat ger gtr vtts cap se sr tse edit vc sid".split()
"""Those that the first version named, some of them for tasks to come."""
_SPAN_NAMES = (*(kind for kind in CONDITION_KINDS if kind not in PROSODY_KINDS), "tool")

_FIXED: tuple[str, ...] = (
    *("<bos>", "<eos>", "<pad>", "<mask>"),
    *(f"<{name}>" for name in _FIRST_TASKS),
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
    *(mark for kind in PROSODY_KINDS for mark in (opener(kind), closer(kind), f"<gen:{kind}>")),
    *PROSODY_FLAGS,
    *("<frame>", "<flush>"),
)

CONTROLS: tuple[str, ...] = (*_FIXED, *(f"<{name}>" for name in TASKS if f"<{name}>" not in _FIXED))
"""Control tokens in the order of their ids; those of tasks that came since stand at the end."""
