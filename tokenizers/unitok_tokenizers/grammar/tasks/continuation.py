"""Language models of text, of speech, and of both in turn."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import OUT_DURATIONS, OUT_UNITS, SPOKEN, FromRows, TaskSpec, Variant

LM = TaskSpec(
    name="lm",
    conditions=("text", "lat"),
    outputs=("text",),
    continues=True,
    variants=(
        Variant(description="text", given=(), rows=FromRows(shows="nothing", needs=())),
        Variant(
            name="text",
            description="text → its continuation",
            rows=FromRows(shows="text", answer="continuation", needs=("text",)),
            metrics=("accuracy",),
        ),
        Variant(
            name="speech",
            description="speech → continuation of what is said",
            rows=FromRows(answer="continuation"),
            metrics=("accuracy",),
        ),
    ),
    description="text continuation, of nothing or of what is given",
)

SLM = TaskSpec(
    name="slm",
    conditions=("voice", "style", "pitch"),
    outputs=("units",),
    by_flag=SPOKEN,
    prosody=("durations",),
    continues=True,
    variants=(
        Variant(description="units", given=()),
        Variant(
            name="prosody",
            description="style, pitch → units, durations",
            given=("style", "pitch"),
            flags=(OUT_UNITS, OUT_DURATIONS),
        ),
    ),
    description="speech continuation",
)

ILM = TaskSpec(
    name="ilm",
    interleaved=True,
    continues=True,
    variants=(Variant(description="text and units in turn", given=()),),
    description="text and units interleaved",
)
