"""What models of flat tokens are scored by, sentence by sentence, so that two can be compared on the same ones.

N sentences, S samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from unitok.generation.generate import score
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.corpora.toy import SAID_AGAIN, topic_of, understand
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.streams import ids_column
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_training.evaluation.language import word_units
from unitok_training.evaluation.metrics import bleu
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.intervals import Counted
from unitok_training.systems.base.token_parts import VOICE, OracleEar, word_errors

TOGETHER = 64
"""Sequences that are scored together."""


def log_probabilities(run: Evaluation, specs: Sequence[SequenceSpec]) -> list[np.ndarray]:
    """Teacher-forced log-probabilities of what follows each spec's prompt, of an interleaved one of its last span.

    The closer of an output counts as its end; the end of the sequence, which is certain behind it, does not.
    """
    vocabulary, found = run.model.vocabulary, list[np.ndarray]()
    for start in range(0, len(specs), TOGETHER):
        some = specs[start : start + TOGETHER]
        prompts = [render_prompt(replace(one, outputs=_before(one)), vocabulary) for one in some]
        rest = [render(one, vocabulary).ids[len(prompt) : -1] for one, prompt in zip(some, prompts)]
        given = [
            parse(prompt, vocabulary).start or 0 if one.task == "ilm" else len(prompt)
            for one, prompt in zip(some, prompts)
        ]
        found += score(run.model.decoder, prompts, rest, given=given)
    return found


def _before(spec: SequenceSpec) -> tuple[Span, ...]:
    """Outputs that are given, not scored."""
    return spec.outputs[:-1] if spec.task == "ilm" else ()


def continued(run: Evaluation, task: str, kind: str, rows: Sequence[int]) -> list[SequenceSpec]:
    """What each row says in a stream, as a language model of it says it."""
    return [SequenceSpec(task, run.lang(row), outputs=(run.span(kind, row),)) for row in rows]


def nats(run: Evaluation, specs: Sequence[SequenceSpec]) -> Counted:
    """Negative log-probabilities out of ids, of every sentence: exp of the rate is the perplexity."""
    found = log_probabilities(run, specs)
    return Counted(
        counts=np.array([-float(one.sum()) for one in found]), sizes=np.array([float(len(one)) for one in found])
    )


def ngram_nats(run: Evaluation, rows: Sequence[int], kind: str, *, order: int) -> Counted:
    """The same by an n-gram model of the training rows of the same language."""
    column, stream = ids_column(kind), run.stream(kind)
    assert stream is not None, "the rows have this stream"
    end, training = stream.cardinalities[0], run.rows_of_training(column)
    models = {
        lang: NgramModel.fit(
            [[*run.cell(column, row).tolist(), end] for row in training if run.lang(row) == lang],
            order=order, size=end + 1,
        )
        for lang in {run.lang(row) for row in rows}
    }  # fmt: skip
    sequences = [[*run.cell(column, row).tolist(), end] for row in rows]
    sizes = np.array([float(len(one)) for one in sequences])
    means = [np.log(models[run.lang(row)].perplexity([one])) for row, one in zip(rows, sequences)]
    return Counted(counts=np.array(means) * sizes, sizes=sizes)


# -- recognition and synthesis ----------------------------------------------------------------------------------


def answers(run: Evaluation, specs: Sequence[SequenceSpec]) -> list[str]:
    """The text that a model answers to each prompt, greedily."""
    return [one.text or "" for one in run.model.run([PromptRequest(plan=spec) for spec in specs])]


def sentences_of(run: Evaluation, rows: Sequence[int]) -> list[str]:
    """Which sentence each row says: that of its group. What known voices say of the test is of the test's own."""
    seen = run.shards.split == run.seen_split
    groups = [str(run.shards.group[row]) for row in rows]
    return [name.removesuffix(SAID_AGAIN) if seen[row] else name for row, name in zip(rows, groups)]


def rows_with(shards: Shards, column: str) -> list[int]:
    """Training rows in which a ragged column holds something: those of text alone have no speech."""
    there = np.diff(shards.ragged(column)[1]) > 0
    return np.flatnonzero((shards.split == "train") & there).tolist()


def recognized(run: Evaluation, rows: Sequence[int], kind: str = "units") -> Counted:
    """Word errors of the text that a model reads in each row's units, or codes."""
    specs = [SequenceSpec("asr", run.lang(row), conditions=(run.span(kind, row),)) for row in rows]
    return word_errors([run.text(row) for row in rows], answers(run, specs)).of(sentences_of(run, rows))


@dataclass(frozen=True, kw_only=True)
class Translated:
    """How good translations are."""

    errors: Counted
    """Words that differ from the reference translation's."""
    bleu: float
    """Of all together, 0 to 100."""

    @staticmethod
    def of(references: Sequence[str], outputs: Sequence[str], said: Sequence[str] = ()) -> Translated:
        """Score some; `said` names the sentence of each, where several may be of one."""
        return Translated(errors=word_errors(references, outputs).of(said), bleu=bleu(references, outputs))


Pairs = Sequence[tuple[int, int]]
"""(row that is given, row of its translation)."""


def translating(run: Evaluation, pairs: Pairs, kind: str) -> list[SequenceSpec]:
    """Prompts for the translation of each pair's first row, of its `text` (mt) or of its `units` (s2tt)."""
    task = "mt" if kind == "text" else "s2tt"
    return [SequenceSpec(task, run.lang(a), run.lang(b), conditions=(run.span(kind, a),)) for a, b in pairs]


def translated(run: Evaluation, pairs: Pairs, kind: str) -> Translated:
    """Translations of each pair's first row against its second."""
    found = answers(run, translating(run, pairs, kind))
    return Translated.of([run.text(b) for _, b in pairs], found, sentences_of(run, [a for a, _ in pairs]))


def spoken_translations(run: Evaluation, pairs: Pairs, ear: OracleEar, flags: tuple[str, ...]) -> Translated:
    """What the oracle reads in spoken translations, direct or through both texts as the flags say."""
    specs = [SequenceSpec("s2st", run.lang(a), run.lang(b), flags, (run.span("units", a),)) for a, b in pairs]
    found = ear.read(said(run, specs), [run.lang(b) for _, b in pairs])
    return Translated.of([run.text(b) for _, b in pairs], found, sentences_of(run, [a for a, _ in pairs]))


def spoken(run: Evaluation, rows: Sequence[int], ear: OracleEar) -> Counted:
    """Word errors that the oracle hears in what a model says of each row's text."""
    specs = [
        SequenceSpec("tts", run.lang(row), None, (OUT_UNITS,), (run.model.text_span(run.text(row)),)) for row in rows
    ]
    found = ear.errors(said(run, specs), [run.text(row) for row in rows], [run.lang(row) for row in rows])
    return found.of(sentences_of(run, rows))


def said(run: Evaluation, specs: Sequence[SequenceSpec]) -> list[np.ndarray]:
    """(S,) of each spec that is answered in units, by one voice."""
    requests = seeded([PromptRequest(plan=spec, voice=VOICE, speak=True) for spec in specs], run.seed)
    found = run.model.run(requests, sampling=run.model_sampling("units"))
    return [np.zeros(0, np.float32) if one.audio is None else one.audio for one in found]


# -- choices ----------------------------------------------------------------------------------------------------


def in_order(run: Evaluation, rows: Sequence[int]) -> Counted:
    """Whether each row's units are likelier by the id than those of the same words in another order.

    Rows of fewer than four words do not count.
    """
    random = np.random.default_rng(run.seed)
    specs: list[SequenceSpec] = []
    for row in rows:
        pieces = word_units(run, row)
        order = random.permutation(len(pieces))
        if len(pieces) < 4 or (order == np.arange(len(pieces))).all():
            continue
        units = joined([pieces[place] for place in order])
        specs += continued(run, "slm", "units", [row])
        specs.append(SequenceSpec("slm", run.lang(row), outputs=(Span("units", units),)))
    means = [float(one.mean()) for one in log_probabilities(run, specs)]
    right = np.array([one > other for one, other in zip(means[::2], means[1::2])], np.float64)
    return Counted(counts=right, sizes=np.ones(len(right)))


def joined(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Deduplicated units of words one after another: equal neighbors are one."""
    units = np.concatenate(pieces)
    found: np.ndarray = units[np.insert(np.diff(units) != 0, 0, True)]
    return found


@dataclass(frozen=True, kw_only=True)
class Half:
    """A sentence in two halves."""

    row: int
    """Where it stands."""
    topic: int
    """What it is about."""
    first: Span
    """Its first half, in one stream."""
    second: Span
    """Its second half, in another one."""


def halves(run: Evaluation, rows: Sequence[int], *, first: str, second: str, topics: int) -> list[Half]:
    """Rows of four words or more, the first half as `text` or `units`, the second as the other."""
    found = []
    for row in rows:
        words, pieces = [word for word, _, _ in run.shards.row(row)["words"]], word_units(run, row)
        if len(words) < 4 or len(pieces) != len(words):
            continue
        middle = len(words) // 2
        parts = {
            ("text", 0): words[:middle], ("text", 1): words[middle:],
            ("units", 0): pieces[:middle], ("units", 1): pieces[middle:],
        }  # fmt: skip
        spans = [
            run.model.text_span(" ".join(parts[kind, place])) if kind == "text"
            else Span("units", joined(parts[kind, place]))
            for place, kind in enumerate((first, second))
        ]  # fmt: skip
        topic = topic_of(understand(run.text(row), run.lang(row)), topics)
        found.append(Half(row=row, topic=topic, first=spans[0], second=spans[1]))
    return found


def topic_cloze(run: Evaluation, found: Sequence[Half], *, foils: int) -> Counted:
    """Right choices of each sentence: is its own second half likelier by the id than one about something else?

    Every second half stands behind first halves that fit and that do not, so that nothing is won by how likely it is
    alone: half of the choices are right by chance.
    """
    random = np.random.default_rng([run.seed, len(found)])
    specs = []
    for one in found:
        others = [peer for peer in found if peer.topic != one.topic and run.lang(peer.row) == run.lang(one.row)]
        if not others:
            raise InputError("held-out sentences are all about the same: raise --test-sentences")
        for pick in random.integers(len(others), size=foils).tolist():
            specs += [
                SequenceSpec("ilm", run.lang(one.row), outputs=(one.first, second))
                for second in (one.second, others[pick].second)
            ]
    means = [float(each.mean()) for each in log_probabilities(run, specs)]
    right = np.array([one > other for one, other in zip(means[::2], means[1::2])], np.float64)
    return Counted(counts=right.reshape(len(found), foils).sum(1), sizes=np.full(len(found), float(foils)))
