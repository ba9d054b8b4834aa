"""From one language into another."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import (
    CHAIN,
    CHAINED,
    OUT_CODES,
    OUT_UNITS,
    SPOKEN,
    FromRows,
    TaskSpec,
    Variant,
)

S2TT = TaskSpec(
    name="s2tt",
    languages=2,
    conditions=("units", "codes", "lat", "kw", "text"),
    outputs=("text",),
    long_audio="apart",
    variants=(
        Variant(
            description="units → text in another language",
            given=("units",),
            rows=FromRows(),
            aliases=("s2tt.units",),
            metrics=("bleu",),
            title="Speech to translated text",
        ),
        Variant(name="codes", description="codes → text in another language", given=("codes",), metrics=("bleu",)),
    ),
    description="speech to translated text",
)

S2ST = TaskSpec(
    name="s2st",
    languages=2,
    conditions=("voice", "units", "codes", "lat"),
    outputs=("units",),
    by_flag=(*CHAINED, *SPOKEN),
    long_audio="apart",
    variants=(
        Variant(
            name="chain",
            description="units → text, text and units in another language",
            given=("units",),
            flags=(CHAIN, OUT_UNITS),
            title="Speech to translated speech, through both texts",
            metric="s2st_chained",
        ),
        Variant(
            description="units → units in another language",
            given=("units",),
            flags=(OUT_UNITS,),
            aliases=("s2st.units",),
            title="Speech to translated speech, directly",
        ),
        Variant(
            name="codes",
            description="[voice] units → units, codes in another language",
            given=("voice", "units"),
            flags=(OUT_CODES,),
        ),
        Variant(
            name="chain_codes",
            description="[voice] units → text, text, units and codes in another language",
            given=("voice", "units"),
            flags=(CHAIN, OUT_CODES),
        ),
    ),
    description="speech to translated speech, direct or as a chain through both texts",
)

MT = TaskSpec(
    name="mt",
    languages=2,
    conditions=("text", "lat"),
    outputs=("text",),
    variants=(
        Variant(
            description="text → text in another language",
            given=("text",),
            rows=FromRows(shows="text", needs=("text",)),
            metrics=("bleu",),
            title="Text to translated text",
        ),
        Variant(
            name="speech",
            description="speech in place of a text → text in another language",
            rows=FromRows(),
            metrics=("bleu",),
        ),
    ),
    description="text to translated text; vectors may stand for the text",
)
