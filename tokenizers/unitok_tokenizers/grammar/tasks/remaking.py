"""Speech to the same speech in codes: without noise, by one of two talkers, with other words in it, in another voice.

The first four are SpeechX's (arXiv 2308.06873), which says a whole recording anew to edit it; here only the stretch
that changes is said, between what stands on its two sides, so that nothing else can change.
"""

from __future__ import annotations

from unitok_tokenizers.grammar.tasks.base import TaskSpec, Variant

SE = TaskSpec(
    name="se",
    conditions=("text", "codes"),
    outputs=("codes",),
    answer_named="clean",
    variants=(
        Variant(description="codes with noise → codes without", given=("codes",)),
        Variant(name="text", description="text, codes with noise → codes without", given=("text", "codes")),
    ),
    description="speech without the noise under it",
)

SR = TaskSpec(
    name="sr",
    conditions=("text", "codes"),
    outputs=("codes",),
    answer_named="noise",
    variants=(Variant(description="codes of speech in noise → codes of the noise", given=("codes",)),),
    description="the noise without the speech over it",
)

TSE = TaskSpec(
    name="tse",
    conditions=("voice", "text", "codes"),
    outputs=("codes",),
    answer_named="talker",
    voiced=True,
    variants=(
        Variant(description="voice, codes of two talkers → codes of the one", given=("voice", "codes")),
        Variant(
            name="text",
            description="voice, text, codes of two talkers → codes of the one",
            given=("voice", "text", "codes"),
        ),
    ),
    description="of two talkers at once the one whose voice is given",
)

EDIT = TaskSpec(
    name="edit",
    conditions=("text", "codes"),
    outputs=("codes",),
    infills=True,
    variants=(
        Variant(
            description="text, codes before a stretch, codes behind it → codes of the stretch", given=("text", "codes")
        ),
    ),
    description="a stretch of a recording said anew, as a text has it",
)

VC = TaskSpec(
    name="vc",
    conditions=("voice", "units"),
    outputs=("codes",),
    voiced=True,
    long_audio="apart",
    variants=(Variant(description="voice, units → codes", given=("voice", "units")),),
    description="what is said, in the voice that is given",
)
