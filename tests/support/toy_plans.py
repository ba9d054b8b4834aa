"""A small vocabulary with everything in it, and random plans of every task line."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import settings

from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.base import PROSODY_KINDS, STATES
from unitok_tokenizers.grammar.tasks.registry import TASKS, output_kinds
from unitok_tokenizers.grammar.vocabulary import Vocabulary

TEXT = StreamInfo("text", "text", "t", None, (50,))
UNITS = StreamInfo("units", "units", "u", Fraction(50), (12,), deduplicated=True)
CODES = StreamInfo("codes", "codes", "c", Fraction(75, 2), (8, 8, 5))
PHONES = StreamInfo("phones", "phones", "p", None, (9,))
SECOND = StreamInfo("encodec", "codes", "e", Fraction(75), (600, 600))
"""A second codec."""
VIEW = StreamInfo("units", "units", "v", Fraction(75, 2), (8,), views="codes")
"""Units that are the first codebook of the codec."""
HOST_ROLES = {"bos": 1, "eos": 2, "pad": 2}
"""Of a host model that pads with its end of sequence."""

LANGUAGES = ("de", "en")

PROPERTY = settings(deadline=None, max_examples=30)
"""Of property tests; without a deadline, because machines are busy."""

LINES = [(task, ()) for task in TASKS] + [
    ("tts", ("<out:units>",)),
    ("tts", ("<out:codes>",)),
    ("s2st", ("<out:codes>",)),
    ("s2st", ("<chain>", "<out:units>")),
    ("s2st", ("<chain>", "<out:codes>")),
    ("slm", ("<out:codes>",)),
    ("asr", ("<nots>", "<itn>")),
]
"""(task, flags) of every line of the grammar."""


def line_name(line: tuple[str, tuple[str, ...]]) -> str:
    """For the names of tests."""
    return " ".join((line[0], *line[1]))


def own() -> Vocabulary:
    """A model with its own text pieces, units, a codec and phones."""
    return Vocabulary.build(text=TEXT, streams=[UNITS, CODES, PHONES], languages=LANGUAGES)


def viewing() -> Vocabulary:
    """Units are a view of the codec; a host model owns the roles."""
    return Vocabulary.build(text=TEXT, streams=[VIEW, CODES, PHONES], languages=LANGUAGES, roles=HOST_ROLES)


def grown() -> Vocabulary:
    """A model that got more text pieces, a second codec and a language after it was made."""
    return own().append_text(20, "t2").append_stream(SECOND).append_language("fr")


VOCABULARIES = {"own": own(), "viewing": viewing(), "grown": grown()}


def random_span(kind: str, vocabulary: Vocabulary, rng: np.random.Generator) -> Span:
    """A span of one to five items."""
    count = int(rng.integers(1, 6))
    if kind == "lat":
        return Span(kind, np.zeros(count))
    if kind == "state":
        return Span(kind, rng.integers(len(STATES), size=1))
    usual = {"hyp": "text", "kw": "text", "tool": "text", "voice": str(rng.choice(["units", "codes"]))}.get(kind, kind)
    choices = [usual, *(name for name, info in vocabulary.streams.items() if info.kind == kind and kind != "text")]
    info = vocabulary.streams[str(rng.choice(choices))]
    if info.kind == "codes":
        return Span(kind, rng.integers(0, info.cardinalities, size=(count, len(info.cardinalities))), info.name)
    lowest = 3 if info.kind == "text" else 0  # a host model's roles are below
    return Span(kind, rng.integers(lowest, info.cardinalities[0], size=count), info.name)


def random_plan(task: str, flags: tuple[str, ...], vocabulary: Vocabulary, rng: np.random.Generator) -> SequenceSpec:
    """A plan of a line, with any of its conditions in any order."""
    line = TASKS[task]
    kinds = output_kinds(task, flags)
    if line.interleaved:
        kinds = (("text", "units") if rng.integers(2) else ("units", "text")) * 3
        kinds = kinds[: int(rng.integers(1, 6))]
    known = [kind for kind in line.conditions if kind not in PROSODY_KINDS or kind in vocabulary.streams]
    conditions = rng.choice(known, size=int(rng.integers(1, 4))) if known else ()
    source, target = (str(code) for code in rng.choice(vocabulary.languages, size=2))
    return SequenceSpec(
        task,
        source,
        target if line.languages == 2 else None,
        flags,
        tuple(random_span(str(kind), vocabulary, rng) for kind in conditions),
        tuple(random_span(kind, vocabulary, rng) for kind in kinds),
    )
