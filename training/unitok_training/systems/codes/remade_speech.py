"""What is heard in speech that is said again: noise, words and whose voice, and of an edit the words in it and around.

N recordings, S samples, F frames, Q codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from unitok.nbest.correction import edits
from unitok.requests.prompt_request import around_cut
from unitok_tokenizers.audio.speech_activity import noise_db
from unitok_tokenizers.corpora.toy import SAMPLE_RATE, lexicon
from unitok_tokenizers.corpora.toy_oracle import Recognized
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_parts import OracleEar, voices_heard, word_errors, words_heard

Wanted = Sequence[tuple[str, str, str]]
"""(text that is to be said, language, speaker) of each recording."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heard:
    """What recordings are worth."""

    errors: Counted
    """Words that the oracle hears otherwise."""
    noise: Counted
    """Level of the quietest moments against the loudest, in dB: the rate is their mean."""
    voices: Counted
    """Recordings in which the nearest known voice is the one that is wanted."""
    recognized: Sequence[Recognized | None] = field(repr=False)
    """What the oracle makes of each; None where there is no sound."""


def heard(ear: OracleEar, recordings: Sequence[np.ndarray], wanted: Wanted) -> Heard:
    """Hear recordings (S,) of the corpus's rate."""
    found = ear.hear(recordings, [lang for _, lang, _ in wanted])
    levels = [noise_db(one, SAMPLE_RATE) for one in recordings]
    return Heard(
        errors=word_errors([text for text, _, _ in wanted], words_heard(found)),
        noise=Counted(counts=np.array(levels), sizes=np.ones(len(levels))),
        voices=voices_heard(found, [speaker for _, _, speaker in wanted]),
        recognized=found,
    )


# -- edits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Edit:
    """One word of a recording that is to become another one."""

    plan: SequenceSpec
    """The prompt: the new text, and the codes before the word and behind it."""
    words: tuple[str, ...]
    """What the recording says."""
    place: int
    """Which of the words changes."""
    asked: str
    """What it is to become."""

    @property
    def sides(self) -> tuple[int, int]:
        """Frames before the stretch and behind it."""
        before, behind = (len(span) for span in self.plan.conditions if span.kind == "codes")
        return before, behind


def word_edits(run: Evaluation, rows: Sequence[int], topics: int) -> list[Edit]:
    """Another word of the same kind and topic for an inner word of each row; rows of two words have none.

    `topics` are those of the corpus.
    """
    random = np.random.default_rng([run.seed, len(rows)])
    stream, found = run.stream("codes"), list[Edit]()
    assert stream is not None and stream.frame_rate is not None, "the codec says its rate"
    for row in rows:
        timed = run.shards.row(row)["words"]
        words = tuple(word for word, _, _ in timed)
        if len(words) < 3:
            continue
        place = int(random.integers(1, len(words) - 1))
        peers = like_words(words[place], run.lang(row), topics)
        asked = peers[int(random.integers(len(peers)))]
        before, behind = around_cut(run.span("codes", row), timed[place][1:], stream.frame_rate)
        text = run.model.text_span(" ".join((*words[:place], asked, *words[place + 1 :])))
        plan = SequenceSpec("edit", run.lang(row), conditions=(text, before, behind))
        found.append(Edit(plan=plan, words=words, place=place, asked=asked))
    return found


def like_words(word: str, lang: str, topics: int) -> list[str]:
    """The other words of its class that are about the same topic, of a corpus with so many."""
    for words in lexicon(lang).values():
        if word in words:
            return [one for one in words[words.index(word) % topics :: topics] if one != word]
    raise AssertionError(f"{word!r} is a word of {lang}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """Word errors of edits."""

    inside: Counted
    """In the stretch, against the word that was asked for."""
    outside: Counted
    """Around it, against what the recording said there."""


def edited(edits_: Sequence[Edit], found: Sequence[Recognized | None], frames: Sequence[int], rate: float) -> Edited:
    """Tell words in the stretch from those around it, by where the middle of each stands.

    Args:
        edits_: N of them.
        found: what the oracle heard.
        frames: of codes, of each recording.
        rate: frames a second.
    """
    inside, outside, sizes = list[int](), list[int](), list[int]()
    for one, read, count in zip(edits_, found, frames, strict=True):
        before, behind = one.sides
        edges = before / rate, (count - behind) / rate
        parts: tuple[list[str], list[str], list[str]] = ([], [], [])
        for word, start, end in () if read is None else read.words:
            middle = (start + end) / 2
            parts[int(middle >= edges[0]) + int(middle >= edges[1])].append(word)
        inside.append(edits([one.asked], parts[1]))
        sides = ((one.words[: one.place], parts[0]), (one.words[one.place + 1 :], parts[2]))
        outside.append(sum(edits(list(said), read_) for said, read_ in sides))
        sizes.append(len(one.words) - 1)
    return Edited(
        inside=Counted(counts=np.array(inside, np.float64), sizes=np.ones(len(inside))),
        outside=Counted(counts=np.array(outside, np.float64), sizes=np.array(sizes, np.float64)),
    )
