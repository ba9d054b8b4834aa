"""Text to speech."""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import OUT_CODES, OUT_UNITS, SPOKEN, TaskSpec, Variant

TTS = TaskSpec(
    name="tts",
    conditions=("voice", "text", "phones"),
    outputs=("units",),
    by_flag=SPOKEN,
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
    ),
    description="text to speech",
)
