"""Speech to the words that are said."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import FromRows, TaskSpec, Variant

FORMED = ("accuracy", "wer", "formatted_wer")
"""Of transcripts whose form counts."""

ASR = TaskSpec(
    name="asr",
    conditions=("units", "codes", "lat", "kw", "text"),
    outputs=("text",),
    long_audio="overlap",
    variants=(
        Variant(
            description="units → text",
            given=("units",),
            rows=FromRows(),
            aliases=("asr.units",),
            metrics=("wer",),
            title="Speech to text",
        ),
        Variant(name="codes", description="codes → text", given=("codes",), metrics=("wer",)),
        Variant(
            name="plain",
            description="speech → text as it is spoken",
            flags=("<noitn>",),
            rows=FromRows(),
            metrics=FORMED,
        ),
        Variant(
            name="formatted",
            description="speech → text as it is written",
            flags=("<itn>",),
            rows=FromRows(answer="formatted"),
            metrics=FORMED,
        ),
        Variant(
            name="mixed",
            description="speech → text in one of the two forms, without a tag that says which",
            rows=FromRows(answer="mixed"),
            metrics=FORMED,
        ),
        Variant(
            name="times",
            description="speech → text with the start of every word",
            flags=("<ts>",),
            rows=FromRows(answer="timed", keeps=("tempo",)),
            metrics=("near", *FORMED),
        ),
        Variant(
            name="keywords", description="keywords, speech → text", rows=FromRows(shows="keywords"), metrics=FORMED
        ),
        Variant(
            name="example",
            description="speech and its text, speech → text",
            rows=FromRows(shows="example"),
            metrics=FORMED,
        ),
        Variant(
            name="phones", description="phones → text", rows=FromRows(shows="phones", needs=("text",)), metrics=FORMED
        ),
    ),
    description="speech to its text",
)
