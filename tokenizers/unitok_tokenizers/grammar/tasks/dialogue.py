"""Talk: answers in speech, tools that are called, turns that are taken."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import OUT_UNITS, TaskSpec, Variant

CHAT = TaskSpec(
    name="chat",
    conditions=("units",),
    outputs=("text", "text", "units"),
    by_flag=(((OUT_UNITS,), ("units",)),),
    then=True,
    replies=True,
    variants=(
        Variant(
            description="spoken question (units) → its text, the answer's text, the answer's units", given=("units",)
        ),
        Variant(
            name="direct",
            description="spoken question (units) → the answer's units",
            given=("units",),
            flags=(OUT_UNITS,),
        ),
    ),
    description="spoken question to its text, the answer's text, the spoken answer, or to the last at once",
)

ROUTE = TaskSpec(
    name="route",
    conditions=("text", "units", "lat"),
    outputs=("tool",),
    description="request to the name and arguments of the tool that answers it",
)

TURN = TaskSpec(
    name="turn",
    conditions=("units", "lat", "text"),
    outputs=("state",),
    description="what is heard and what was said so far to whether to listen, to speak or to stop",
)
