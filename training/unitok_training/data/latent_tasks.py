"""How rows of a manifest become examples: what a row is asked, and what it answers.

The task table says of each variant what is shown (the recording as vectors or units, or its text) and what is answered;
here is what those names mean. A new way to show a row is an entry in `SHOWN`, a fact that a row does not hold as it is
an entry in `ANSWERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.registry import ROW_VARIANTS, TaskVariant
from unitok_tokenizers.text.base import TextTokenizer

Questions = Sequence[tuple[str, str]]
"""(question in words, or nothing; answer) of a row; empty where it has no answer."""
COLUMNS = ("speaker", "group")
"""Columns of a row that may be an answer as they are; not its language, which stands in every header."""
KEYWORDS_AT_MOST = 50
"""Distractors that are drawn beside a row's own keywords in training: none in nearly half of the prompts."""


@dataclass(frozen=True)
class PromptSpans:
    """What stands before the answer."""

    spans: tuple[Span, ...]
    """In their order; a recording is a `lat` span without vectors."""
    heard: tuple[int, ...]
    """Rows whose recordings the `lat` spans are."""


class RowTexts:
    """Rows with what a line asks of them more than once: pieces of texts, and what other rows offer."""

    def __init__(self, rows: Sequence[Row], text: TextTokenizer) -> None:
        self.rows, self.text = list(rows), text
        self._pieces: dict[str, np.ndarray] = {}
        self.keywords = sorted({word for row in self.rows for word in keywords_of(row)})
        """Keywords of all rows: what distractors are drawn from."""
        self.partners: dict[tuple[str, str], list[int]] = {}
        """(speaker, language) → rows with audio and text: what examples in a prompt are drawn from."""
        for index, row in enumerate(self.rows):
            if row.audio is not None and row.text:
                self.partners.setdefault((row.speaker, row.lang), []).append(index)

    def pieces(self, text: str) -> np.ndarray:
        """(N,) text ids."""
        if text not in self._pieces:
            self._pieces[text] = np.asarray(self.text.encode(text), dtype=np.int64)
        return self._pieces[text]

    def phones(self, row: int) -> np.ndarray:
        """(N,) phones of a row as the text pieces of their letters: `extras.segments`, or else the letters of its text.

        Raises:
            InputError: a phone that is no text piece.
        """
        said = [str(name) for name, *_ in self.rows[row].extras.get("segments", ())]
        letters = said or [letter for letter in self.rows[row].text or "" if not letter.isspace()]
        if lost := set(letters) - self._places.keys():
            raise InputError(f"row {self.rows[row].id}: phone {min(lost)!r} is no text piece of this model")
        return np.asarray([self._places[letter] for letter in letters], dtype=np.int64)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {piece: index for index, piece in enumerate(self.text.pieces())}


def keywords_of(row: Row) -> tuple[str, ...]:
    """Keywords that a row's `extras` name."""
    return tuple(str(word) for word in row.extras.get("keywords", ()))


# -- what is given ------------------------------------------------------------------------------------------------

MakePrompt = Callable[[RowTexts, int, np.random.Generator], PromptSpans]
LAT = Span("lat", np.zeros(0))


def from_audio(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """The recording."""
    return PromptSpans((LAT,), (row,))


def from_text(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """The row's text."""
    return PromptSpans((Span("text", table.pieces(table.rows[row].text or "")),), ())


def as_units(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """The row's units, which its manifest must hold."""
    return PromptSpans((Span("units", table.rows[row].tokens["units"]),), ())


def as_prosody(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """The row's units with its tokens of prosody, all of which its manifest must hold."""
    tokens = table.rows[row].tokens
    return PromptSpans(tuple(Span(kind, tokens[kind]) for kind in ("style", "pitch", "units", "durations")), ())


def as_phones(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """The phones of the row's text: what a recognizer of phones would hear."""
    return PromptSpans((Span("text", table.phones(row)),), ())


def nothing(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """Not even the row."""
    return PromptSpans((), ())


def keyword_span(table: RowTexts, words: Sequence[str]) -> tuple[Span, ...]:
    """The `<kw>` condition of a list of words; nothing where it is empty."""
    return (Span("kw", table.pieces(" ".join(words))),) if words else ()


def with_keywords(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """MaLa-ASR: the row's keywords among those of other rows, or now and then no list or only foreign ones."""
    own = list(keywords_of(table.rows[row]))
    drawn = int((KEYWORDS_AT_MOST + 1) * random.random() ** 5)
    others = [table.keywords[i] for i in random.permutation(len(table.keywords))[:drawn]]
    listed = sorted({*others, *(own if random.random() < 0.8 else ())}, key=lambda word: random.random())
    return PromptSpans((*keyword_span(table, listed), LAT), (row,))


def with_example(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """COSMIC: another recording of the same speaker and its text first, where there is one."""
    one = table.rows[row]
    speakers = table.partners.get((one.speaker, one.lang), ())
    return with_one_of(table, row, [index for index in speakers if table.rows[index].group != one.group], random)


def with_one_of(table: RowTexts, row: int, others: Sequence[int], random: np.random.Generator) -> PromptSpans:
    """One of other recordings and its text first, where there are any."""
    if not others:
        return from_audio(table, row, random)
    shown = others[int(random.integers(len(others)))]
    return PromptSpans((LAT, Span("text", table.pieces(table.rows[shown].text or "")), LAT), (shown, row))


def with_anothers(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """An example of another speaker, to compare with."""
    speaker = table.rows[row].speaker
    return with_one_of(table, row, [i for i, one in enumerate(table.rows) if one.speaker != speaker], random)


def sometimes_with_example(table: RowTexts, row: int, random: np.random.Generator) -> PromptSpans:
    """Four times of five with an example."""
    return (from_audio if random.random() < 0.2 else with_example)(table, row, random)


# -- what is answered ---------------------------------------------------------------------------------------------


def transcript(row: Row) -> Questions:
    """What is said."""
    return [("", row.text)] if row.text else []


def fact(name: str) -> Callable[[Row], Questions]:
    """A column of the row, or an entry of its `extras`."""

    def answers(row: Row) -> Questions:
        found = getattr(row, name) if name in COLUMNS else row.extras.get(name)
        return [("", str(found))] if found else []

    return answers


def timed(row: Row) -> Questions:
    """What is said, each word behind its start in tenths of a second: `3 the 5 green 9 house`."""
    return [("", " ".join(f"{round(10 * start)} {word}" for word, start, _ in row.words))] if row.words else []


def description(row: Row) -> Questions:
    """DeSTA: who speaks, how, and what is said, as one sentence; `extras.caption` where there is one."""
    if row.extras.get("caption"):
        return [("", str(row.extras["caption"]))]
    manner = row.extras.get("prosody")
    if not (row.text and row.speaker and manner):
        return []
    return [("", f"{row.speaker} says with {manner} tone: {row.text}")]


def questions(row: Row) -> Questions:
    """Questions whose answers a row knows, the last ones across tasks; `extras.asks` adds (question, answer) pairs."""
    found: list[tuple[str, str]] = [(str(question), str(answer)) for question, answer in row.extras.get("asks", ())]
    words, manner = (row.text or "").split(), str(row.extras.get("prosody", ""))
    if row.speaker:
        found.append(("who speaks", row.speaker))
    if manner:
        found.append(("with which tone", manner))
    found += word_questions(row)
    if words and manner:
        found.append(("which word is first and with which tone", f"{words[0]} {manner}"))
    if row.speaker and row.words:
        found.append(("who speaks and which word is first", f"{row.speaker} {row.words[0][0]}"))
    return found


def word_questions(row: Row) -> Questions:
    """Questions about what is said alone."""
    words = (row.text or "").split()
    return [("how many words", str(len(words))), ("which word is last", words[-1])] if words else []


# -- the table ----------------------------------------------------------------------------------------------------

SHOWN: Mapping[str, MakePrompt] = {
    "recording": from_audio,
    "text": from_text,
    "nothing": nothing,
    "units": as_units,
    "prosody": as_prosody,
    "phones": as_phones,
    "keywords": with_keywords,
    "example": sometimes_with_example,
}
"""`FromRows.shows` → what stands before the answer."""
ANSWERS: Mapping[str, Callable[[Row], Questions]] = {
    "text": transcript,
    "timed": timed,
    "description": description,
    "questions": questions,
    "word_questions": word_questions,
}
"""`FromRows.answer` → what may be asked of a row; any other name is a column of it or an entry of its `extras`."""


@dataclass(frozen=True, kw_only=True)
class LatentTask:
    """How rows become examples of a task variant."""

    task: str
    """Task of the grammar."""
    flags: tuple[str, ...] = ()
    """Its flags: the tags that say in which form the answer is wanted."""
    tell: MakePrompt = from_audio
    """What is given."""
    answers: Callable[[Row], Questions] = transcript
    """What may be asked of a row."""
    across: bool = False
    """The answer is that of a row of the same group in another language."""
    needs: tuple[str, ...] = ("audio",)
    """Of audio, text and streams: what the row that is given must have."""
    keeps: tuple[str, ...] = ()
    """Of "warp" and "tempo": what augmentation leaves alone, because the answer tells of the voice or of times."""

    @staticmethod
    def of(one: TaskVariant) -> LatentTask:
        """As the task table has it."""
        rows = one.variant.rows
        assert rows is not None, f"{one.key} is made of token shards"
        return LatentTask(
            task=one.task.name, flags=one.variant.flags, tell=SHOWN[rows.shows],
            answers=ANSWERS.get(rows.answer) or fact(rows.answer), across=one.task.pairs, needs=rows.needs,
            keeps=rows.keeps,
        )  # fmt: skip

    def usable(self, row: Row) -> bool:
        """Whether a row has what is given."""
        has = {"audio": row.audio is not None, "text": bool(row.text)}
        return all(has.get(name, name in row.tokens) for name in self.needs)

    def plan(
        self, table: RowTexts, given: int, target: str | None, question: str, answer: str | None, told: PromptSpans
    ) -> SequenceSpec:
        """A row's example; without an answer its prompt."""
        asked = (Span("text", table.pieces(question)),) if question else ()
        outputs = () if answer is None else (Span("text", table.pieces(answer)),)
        return SequenceSpec(
            self.task, table.rows[given].lang, target, self.flags, conditions=(*told.spans, *asked), outputs=outputs
        )


LATENT_TASKS: Mapping[str, LatentTask] = {key: LatentTask.of(one) for key, one in ROW_VARIANTS.items()}
"""Key of a latent mixture → task."""


@dataclass(frozen=True)
class Item:
    """One thing that is asked of one row."""

    given: int
    """Row that is given."""
    target: str | None
    """Language of the answer, for tasks with two."""
    question: str
    """In words, or nothing."""
    answer: str


def asked_items(task: LatentTask, rows: Sequence[Row]) -> list[Item]:
    """Everything that a task asks of rows."""
    usable = [index for index, row in enumerate(rows) if task.usable(row)]
    if not task.across:
        return [
            Item(index, None, question, answer) for index in usable for question, answer in task.answers(rows[index])
        ]
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.group, []).append(index)
    found: dict[tuple[int, str, str], Item] = {}  # the same text in several voices is one answer
    for given in usable:
        for other in groups[rows[given].group]:
            if rows[other].lang != rows[given].lang:
                for question, answer in task.answers(rows[other]):
                    found.setdefault((given, rows[other].lang, answer), Item(given, rows[other].lang, question, answer))
    return list(found.values())
