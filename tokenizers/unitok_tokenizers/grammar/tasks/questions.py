"""What a recording tells beside its words."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import HEARD, PROSODY_KINDS, FromRows, TaskSpec, Variant

SID = TaskSpec(
    name="sid",
    conditions=HEARD,
    outputs=("text",),
    variants=(
        Variant(
            description="speech → name of its speaker",
            rows=FromRows(answer="speaker", keeps=("warp",)),
            metrics=("accuracy",),
        ),
    ),
    description="speech to the name of its speaker",
)

PROSODY = TaskSpec(
    name="prosody",
    conditions=(*HEARD, *PROSODY_KINDS),
    outputs=("text",),
    variants=(
        Variant(
            description="speech → name of its prosody class", rows=FromRows(answer="prosody"), metrics=("accuracy",)
        ),
        Variant(
            name="text",
            description="text → name of the prosody class in which it was said",
            rows=FromRows(shows="text", answer="prosody", needs=("text",)),
            metrics=("accuracy",),
        ),
        Variant(
            name="units",
            description="units → name of their prosody class",
            rows=FromRows(shows="units", answer="prosody", needs=("units",)),
            metrics=("accuracy",),
        ),
        Variant(
            name="tokens",
            description="units and tokens of prosody → name of their prosody class",
            rows=FromRows(shows="prosody", answer="prosody", needs=("units", *PROSODY_KINDS)),
            metrics=("accuracy",),
        ),
    ),
    description="speech to the name of its prosody class, an emotion or a contour",
)

CAP = TaskSpec(
    name="cap",
    conditions=HEARD,
    outputs=("text",),
    variants=(
        Variant(
            description="speech → description",
            rows=FromRows(answer="description", keeps=("warp",)),
            metrics=("accuracy", "wer", "formatted_wer"),
        ),
    ),
    description="speech to a description of it: who speaks, how, and what is said",
)

ASK = TaskSpec(
    name="ask",
    conditions=HEARD,
    outputs=("text",),
    variants=(
        Variant(
            description="speech, question → answer",
            rows=FromRows(answer="questions", keeps=("warp",)),
            metrics=("accuracy",),
        ),
        Variant(
            name="words",
            description="speech, question about its words → answer",
            rows=FromRows(answer="word_questions"),
            metrics=("accuracy",),
        ),
    ),
    description="speech and a question in words to the answer",
)
