"""How a story goes on: the sentence that follows against one of another story, in speech, in text and across them.

Only the topic can tell the two apart (topic cloze, Hassid et al. 2023): the wrong one is a good sentence of its own.
N ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import Span
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.registry import VARIANTS
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.intervals import preferred
from unitok_training.speech_lm.scoring import Scored, behind, fits, log_probabilities, opening

KINDS = {"s": "units", "t": "text"}
DIRECTIONS = ("s_s", "t_t", "t_s", "s_t")
"""Kind of the beginning and of what follows: speech, text."""
SENTENCES = 3
"""Of a beginning, at most."""
FEWEST_WORDS = 4
"""Of a sentence that is cut in two."""
OWN = {"units": "slm", "text": "lm"}
"""Task of a beginning that goes on in its own kind; the interleaved one where a model was not trained on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A stretch of a story."""

    units: np.ndarray
    """(N,) ids of what is said."""
    text: np.ndarray
    """(N,) ids of its text; empty where there is none."""

    def span(self, kind: str) -> Span:
        """It as units or as text."""
        return Span(kind, self.units if kind == "units" else self.text)


@dataclass(frozen=True, kw_only=True, eq=False)
class Story:
    """A beginning and two ways to go on."""

    lang: str
    """Language code."""
    begin: Part
    """What is given."""
    right: Part
    """What follows it."""
    wrong: Part
    """What follows another one."""
    same_speaker: bool
    """Whether both are said by one speaker: the voice does not tell them apart."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Passage:
    """A beginning and what follows it."""

    document: str
    lang: str
    speaker: str
    begin: Part
    then: Part


def first_half(run: Evaluation, row: int) -> tuple[int, int] | None:
    """(words, units) of the first half of a row's words by their times; None of fewer than `FEWEST_WORDS` words, of no
    frame rate, or where a half has no unit."""
    stream, words = run.stream("units"), run.shards.row(row)["words"]
    if stream is None or stream.frame_rate is None or len(words) < FEWEST_WORDS:
        return None
    durations = run.cell("units_durations", row)
    middles = (np.cumsum(durations) - durations / 2) / float(stream.frame_rate)
    count = int(np.searchsorted(middles, words[len(words) // 2][1]))
    return (len(words) // 2, count) if 0 < count < len(durations) else None


def _halves(run: Evaluation) -> Iterator[_Passage]:
    """Sentences that are cut in two."""
    for row in run.rows(run.split, "units", "units_durations"):
        cut = first_half(run, row)
        if cut is None:
            continue
        words, units = [word for word, _, _ in run.shards.row(row)["words"]], run.cell("units", row)
        texts = written(run, " ".join(words[: cut[0]]), " ".join(words[cut[0] :]))
        yield _Passage(
            document=str(run.shards.group[row]), lang=run.lang(row), speaker=str(run.shards.speaker[row]),
            begin=Part(units=units[: cut[1]], text=texts[0]), then=Part(units=units[cut[1] :], text=texts[1]),
        )  # fmt: skip


def written(run: Evaluation, begin: str, then: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a text and of what follows it, as they are in the whole: its first word begins with a space."""
    encode = run.model.tokenizers.text.encode
    first, whole = encode(begin), encode(f"{begin} {then}")
    rest = whole[len(first) :] if whole[: len(first)] == first else encode(then)
    return np.asarray(first, np.int64), np.asarray(rest, np.int64)


def _sentences(run: Evaluation, key: str) -> Iterator[_Passage]:
    """Rows of documents, which stand in the order in which they are read: some, and the one behind them."""
    documents: dict[str, list[int]] = {}
    for row in run.all_rows(run.split, "units"):
        name = run.shards.row(row)["extras"].get(key)
        if name is None:
            raise InputError(
                f"row {run.shards.row(row)['id']} has no {key!r} in its extras; --document-key names the entry"
            )
        documents.setdefault(str(name), []).append(row)
    for name, rows in documents.items():
        for start in range(0, len(rows) - 1, SENTENCES + 1):  # of a last one alone nothing follows
            *before, last = rows[start : start + SENTENCES + 1]
            texts = [run.text(row) for row in (*before, last)]
            ids = (np.zeros(0, np.int64), np.zeros(0, np.int64))
            if all(texts):
                ids = written(run, " ".join(texts[:-1]), texts[-1])
            yield _Passage(
                document=name, lang=run.lang(last), speaker=str(run.shards.speaker[last]),
                begin=Part(units=_joined(run, before), text=ids[0]),
                then=Part(units=run.cell("units", last), text=ids[1]),
            )  # fmt: skip


def _joined(run: Evaluation, rows: Sequence[int]) -> np.ndarray:
    """Units of rows one after another."""
    said = run.cell("units", rows[0])
    for row in rows[1:]:
        said = np.concatenate([said, meeting(run.stream("units"), said, run.cell("units", row))])
    return said


def meeting(stream: StreamInfo | None, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What stands behind other units: a run that goes on is one, where units are deduplicated and not merged."""
    runs = stream is not None and stream.deduplicated and stream.merged_from is None
    return after[1:] if runs and len(after) > 1 and len(before) and before[-1] == after[0] else after


def _same(one: Part, other: Part) -> bool:
    """Whether two endings say the same: another voice, or another document, may have it word for word."""
    return np.array_equal(*((one.text, other.text) if len(other.text) else (one.units, other.units)))


def stories(run: Evaluation, document: str) -> list[Story]:
    """Stories of a split's rows, at most the run's limit.

    Args:
        run: model and shards.
        document: entry of the rows' extras that names their document, in which they follow one another; empty to cut
            each sentence in two.

    Raises:
        InputError: a row without such an entry, or nothing of which two could be told apart.
    """
    passages = list(_sentences(run, document) if document else _halves(run))
    found = []
    for number, passage in enumerate(passages):
        others = [
            one
            for one in passages
            if one.document != passage.document and one.lang == passage.lang and not _same(one.then, passage.then)
        ]
        alike = [one for one in others if one.speaker == passage.speaker and passage.speaker]
        if not others:
            continue
        drawn = np.random.default_rng([run.seed, number]).integers(len(alike or others))
        found.append(
            Story(
                lang=passage.lang, begin=passage.begin, right=passage.then, wrong=(alike or others)[int(drawn)].then,
                same_speaker=bool(alike),
            )
        )  # fmt: skip
    if not found:
        raise InputError(
            f"no stories in split {run.split!r}: rows need times of words (to be cut in two), or a document each "
            "(--document-key), and two of them in one language"
        )
    return run.limited(found)


def task_of(run: Evaluation, begin: str, then: str) -> str | None:
    """The task that a direction is scored by; None where the model was trained on none that fits."""
    names = ("ilm",) if begin != then else (OWN[begin], "ilm")
    return next((name for name in names if run.knows(VARIANTS[name])), None)


def cloze_figures(run: Evaluation, *, document: str) -> dict[str, Any]:
    """For each direction the share of stories whose right continuation is the more probable one.

    `per_id` compares means, `sum` sums; `alone` is `per_id` of the continuations without their beginning: what it has
    over a half is not knowledge of the story.
    """
    told = stories(run, document)
    figures: dict[str, Any] = {
        "stories": len(told),
        "of": "documents" if document else "halves of sentences",
        "same_speaker": sum(story.same_speaker for story in told) / len(told),
    }
    for direction in DIRECTIONS:
        begin, then = (KINDS[letter] for letter in direction.split("_"))
        task = task_of(run, begin, then)
        if task is None or run.model.vocabulary.main("units") is None:
            figures.setdefault("not_measured", {})[direction] = "the model was trained on no task that goes so"
            continue
        figures[direction] = _direction(run, told, task, begin, then)
    return figures


def _direction(run: Evaluation, told: Sequence[Story], task: str, begin: str, then: str) -> dict[str, Any]:
    pairs, plain, left = list[Scored](), list[Scored](), 0
    for story in told:
        given, both = story.begin.span(begin), [story.right.span(then), story.wrong.span(then)]
        if not len(given) or not all(map(len, both)):
            left += 1
            continue
        if begin == then == "units":
            stream = run.stream("units")
            both = [Span(then, meeting(stream, given.content, one.content)) for one in both]
        asked = [behind(run.model, task, story.lang, given, one) for one in both]
        if not all(fits(run.model, one) for one in asked):
            left += 1
            continue
        pairs += asked
        plain += [opening(run.model, task, story.lang, one) for one in both]
    scores, without = (log_probabilities(run.model, some) for some in (pairs, plain))
    means, alone = ([float(one.mean()) for one in some] for some in (scores, without))
    sums = [float(one.sum()) for one in scores]
    return {
        "task": task,
        "left_out": left,
        "per_id": preferred(means[0::2], means[1::2]).to_json(),
        "sum": preferred(sums[0::2], sums[1::2]).to_json(),
        "alone": preferred(alone[0::2], alone[1::2]).to_json(),
    }
