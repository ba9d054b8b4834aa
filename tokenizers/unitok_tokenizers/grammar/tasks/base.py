"""What a task is: which spans are given, which outputs follow, which examples data makes of it, how it is scored.

`TaskSpec` is the only description of a task. Rendering, the automaton, what rows of data must have, evaluation, report
titles and the choices of the command line derive from it.
"""

from __future__ import annotations

from dataclasses import dataclass

CONTENT_KINDS = ("text", "phones", "units", "codes")
PROSODY_KINDS = ("style", "pitch", "durations")
"""Kinds of spans that say how something is said, each in the stream of its name. Beside units the first two stand
before them, and durations, one for each unit, behind."""
CONDITION_KINDS = (*CONTENT_KINDS, "lat", "voice", "hyp", "kw", *PROSODY_KINDS)
SPEECH_KINDS = ("units", "codes")
"""Kinds of spans that are speech in tokens."""
MODALITIES = ("text", "units")
"""Kinds that an interleaved sequence alternates between."""
OUT_UNITS, OUT_CODES, CHAIN = "<out:units>", "<out:codes>", "<chain>"
OUTPUT_FLAGS = (OUT_UNITS, OUT_CODES, CHAIN)
"""Flags that change which outputs a task gives; only the rows that name them take them."""
STYLE_FLAGS = ("<ts>", "<nots>", "<itn>", "<noitn>")
"""Flags that ask for time stamps or inverse text normalization; any task takes them."""
OUT_STYLE, OUT_PITCH, OUT_DURATIONS = PROSODY_FLAGS = tuple(f"<out:{kind}>" for kind in PROSODY_KINDS)
"""Flags that ask for prosody beside the units of an answer; tasks that name the kinds take them."""
FLAGS = (*OUTPUT_FLAGS, *STYLE_FLAGS, *PROSODY_FLAGS)
STATES = ("<listen>", "<speak>", "<stop>")
"""What a coordinator does with a chunk of sound; a `state` span holds the place of one of them here."""


def opener(kind: str) -> str:
    """Token that opens a span; `<lat>` itself is the placeholder inside a latent span."""
    return "<lats>" if kind == "lat" else f"<{kind}>"


def closer(kind: str) -> str:
    """Token that closes a span."""
    return "</lats>" if kind == "lat" else f"</{kind}>"


@dataclass(frozen=True, kw_only=True)
class FromRows:
    """How the rows of a manifest become examples for a model that hears recordings as vectors."""

    shows: str = "recording"
    """What stands before the answer: an entry of `latent_tasks.SHOWN`."""
    answer: str = "text"
    """What is answered: an entry of `latent_tasks.ANSWERS`, a row's `speaker` or `group`, or else the field of its
    `extras` that holds it."""
    needs: tuple[str, ...] = ("audio",)
    """Of audio, text and streams: what the row that is given must have."""
    keeps: tuple[str, ...] = ()
    """Of "warp" and "tempo": what augmentation leaves alone, because the answer tells of the voice or of times."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One kind of examples of a task, a key of mixtures: `asr` is the plain one of asr, `asr.codes` is another."""

    name: str = ""
    """Behind the point of its key; empty for the one that the task's own name stands for."""
    description: str
    """What is given and what follows, for people: `units → text`."""
    given: tuple[str, ...] | None = None
    """Kinds of the conditions that token shards give; `voice` is drawn and may be absent. What follows are the row's
    own streams, its text among them: an answer that is another fact of a row is made of `rows`. None: shards make none.
    """
    rows: FromRows | None = None
    """How rows of a manifest make it; None where they do not."""
    flags: tuple[str, ...] = ()
    """Flags of its examples."""
    aliases: tuple[str, ...] = ()
    """Other keys by which mixtures may name it."""
    metrics: tuple[str, ...] = ()
    """How its text is compared with the reference: accuracy (whole answers), wer, formatted_wer, near, bleu."""
    title: str = ""
    """Heading of its examples in reports; empty where none are shown."""
    metric: str = ""
    """Where its scores stand, if not under its key."""


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One row of the task table."""

    name: str
    """Task name; its control token is `<name>`."""
    languages: int = 1
    """1: one language; 2: source and target."""
    conditions: tuple[str, ...] = ()
    """Kinds of spans that may stand before the first generate mark, in any order."""
    outputs: tuple[str, ...] = ()
    """Kinds of the outputs without a flag that changes them."""
    by_flag: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = ()
    """(flags, outputs): the first row whose flags are all set decides."""
    prosody: tuple[str, ...] = ()
    """Of `PROSODY_KINDS`: what it says beside units, each where its flag is set."""
    then: bool = False
    """A `<then>` mark stands between the outputs."""
    interleaved: bool = False
    """Text and units alternate behind switch marks, as many spans as it likes, instead of fixed outputs."""
    replies: bool = False
    """The answer is another row, whose `extras` name the one that it replies to."""
    answer_named: str = ""
    """Key in the `extras` of the row that is given, by which it names the row of the answer that it was made of; such
    rows are given and nothing else (`data.mixing`)."""
    voiced: bool = False
    """A voice is always given: without one there is no telling whose speech is wanted."""
    infills: bool = False
    """The answer is a stretch inside codes: what stands before it and behind it is given, as two spans of codes."""
    continues: bool = False
    """What is given is the beginning of the output, and may be nothing."""
    long_audio: str = ""
    """How a long recording is answered: from pieces, whose texts `overlap` or stand `apart`; or as a whole."""
    variants: tuple[Variant, ...] = ()
    """The kinds of examples that data makes of it."""
    description: str
    """What the task does, for people."""

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that the task takes."""
        outputs = (flag for flag in OUTPUT_FLAGS if any(flag in flags for flags, _ in self.by_flag))
        return (*outputs, *STYLE_FLAGS, *(f"<out:{kind}>" for kind in self.prosody))

    def output_kinds(self, flags: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Kinds of the outputs in order; none for an interleaved task, whose spans are free."""
        found = next((kinds for wanted, kinds in self.by_flag if set(wanted) <= set(flags)), self.outputs)
        asked = [kind for kind in self.prosody if f"<out:{kind}>" in flags]
        if not asked:
            return found
        place = found.index("units")
        before, behind = ([kind for kind in asked if (kind == "durations") == paired] for paired in (False, True))
        return (*found[:place], *before, "units", *behind, *found[place + 1 :])

    @property
    def hears(self) -> bool:
        """Whether it may be given speech."""
        return self.interleaved or any(kind in SPEECH_KINDS for kind in self._given)

    @property
    def reads(self) -> bool:
        """Whether it is given text and no speech."""
        return "text" in self._given and not self.hears

    @property
    def _given(self) -> tuple[str, ...]:
        return self.outputs if self.continues else self.conditions

    @property
    def speaks_only(self) -> bool:
        """Whether its answer is speech and nothing else."""
        return bool(self.outputs) and all(kind in SPEECH_KINDS for kind in self.outputs)

    @property
    def prompted(self) -> bool:
        """Whether codes of a voice may be the beginning of its answer, what they say standing before its text."""
        return self.outputs[:1] == ("codes",) and self.reads and not self.continues

    @property
    def remakes(self) -> bool:
        """Whether speech is given to be said again, in codes alone."""
        return self.outputs == ("codes",) and self.hears and not self.continues

    @property
    def reads_codes(self) -> bool:
        """Whether a recording is given to it as codes, all of it, and not as units of what is spoken."""
        return self.remakes and "units" not in self.conditions

    @property
    def takes_voice(self) -> bool:
        """Whether it can be told whose voice answers: by a prompt, or by the vocoder of its units."""
        return self.speaks and ("voice" in self.conditions or not self.remakes)

    @property
    def speaks(self) -> bool:
        """Whether there is speech among its outputs."""
        return self.interleaved or any(kind in SPEECH_KINDS for kind in self.outputs)

    @property
    def askable(self) -> bool:
        """Whether a recording or a text is all that it needs, and text or speech its answer."""
        given = self.continues or any(kind in ("text", *SPEECH_KINDS) for kind in self.conditions)
        return given and all(kind in ("text", *SPEECH_KINDS) for kind in self.outputs)

    @property
    def pairs(self) -> bool:
        """Whether the answer is of another row than what is given."""
        return self.languages == 2 or self.replies or bool(self.answer_named)


SPOKEN = (((OUT_CODES,), ("units", "codes")), ((OUT_UNITS,), ("units",)))
"""Outputs of a task that speaks, by flag."""
CHAINED = (
    ((CHAIN, OUT_CODES), ("text", "text", "units", "codes")),
    ((CHAIN,), ("text", "text", "units")),
)
"""Outputs of speech translation through both texts, by flag."""
HEARD = ("units", "codes", "lat", "text")
"""Conditions of a task that is asked about a recording."""
