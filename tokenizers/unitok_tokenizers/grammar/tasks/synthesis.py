"""Text to speech."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import (
    OUT_CODES,
    OUT_UNITS,
    PROSODY_FLAGS,
    PROSODY_KINDS,
    SPOKEN,
    TaskSpec,
    Variant,
)

TTS = TaskSpec(
    name="tts",
    conditions=("voice", "text", "phones", *PROSODY_KINDS),
    outputs=("units",),
    by_flag=SPOKEN,
    prosody=PROSODY_KINDS,
    variants=(
        Variant(
            name="units",
            description="text → units",
            given=("text",),
            flags=(OUT_UNITS,),
            aliases=("tts",),
            title="Text to speech through units",
        ),
        Variant(
            name="codes",
            description="[voice] text → units, codes",
            given=("voice", "text"),
            flags=(OUT_CODES,),
            title="Text to speech through acoustic codes",
        ),
        Variant(
            name="prosody",
            description="text → style, pitch, units, durations",
            given=("text",),
            flags=(OUT_UNITS, *PROSODY_FLAGS),
        ),
        Variant(name="style", description="style, text → units", given=("style", "text"), flags=(OUT_UNITS,)),
    ),
    description="text to speech",
)

VTTS = TaskSpec(
    name="vtts",
    conditions=("voice", "text", "phones"),
    outputs=("codes",),
    variants=(
        Variant(description="text → codes, whose beginning a voice prompt may be", given=("text",)),
        Variant(name="voice", description="[voice] text → codes", given=("voice", "text")),
    ),
    description="text to speech in codes alone, by the voice that a prompt has",
)
