"""Evaluation of what a model knows of language: perplexity, the order of spoken words, how a sentence goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from unitok.generation.generate import score
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.ngram import NgramModel
from unitok_training.evaluation.run import Evaluation

FRAME = 8
"""Ids around the content of a sequence, at most: its opener, task, languages, marks and end."""


def evaluate_text_lm(run: Evaluation) -> None:
    """Perplexity per text id of held-out sentences, against a 5-gram of the training text."""
    test = [row for row in run.rows(run.split, "text_ids") if fits(run, len(run.cell("text_ids", row)))]
    train = run.rows_of_training("text_ids")
    if not test or not train:
        return
    size = run.model.tokenizers.text.size
    nats, count = 0.0, 0
    for lang in sorted({run.lang(row) for row in test}):
        ngram = NgramModel.fit(
            [_ended(run, row, size) for row in train if run.lang(row) == lang], order=5, size=size + 1
        )
        sequences = [_ended(run, row, size) for row in test if run.lang(row) == lang]
        length = sum(map(len, sequences))
        nats, count = nats + math.log(ngram.perplexity(sequences)) * length, count + length
    run.put("lm.five_gram_ppl", math.exp(nats / count))
    total, count = 0.0, 0
    for logprobs in _scores(
        run, [SequenceSpec("lm", run.lang(row), outputs=(Span("text", run.cell("text_ids", row)),)) for row in test]
    ):
        total -= float(logprobs[:-1].sum())  # the closer counts as the end, the end of sequence does not
        count += len(logprobs) - 1
    run.put("lm.ppl", float(np.exp(total / count)))


def _ended(run: Evaluation, row: int, end: int) -> list[int]:
    """Text ids and the end: both models are told the language and predict the end."""
    return [*run.cell("text_ids", row).tolist(), end]


def _scores(run: Evaluation, plans: Sequence[SequenceSpec]) -> list[np.ndarray]:
    """Teacher-forced log-probabilities of what follows each plan's prompt."""
    prompts = [
        render_prompt(SequenceSpec(p.task, p.source, p.target, p.flags, p.conditions), run.model.vocabulary)
        for p in plans
    ]
    rest = [render(plan, run.model.vocabulary).ids[len(prompt) :] for plan, prompt in zip(plans, prompts)]
    found: list[np.ndarray] = []
    for start in range(0, len(plans), 64):
        found += score(run.model.decoder, prompts[start : start + 64], rest[start : start + 64])
    return found


def evaluate_speech_lm(run: Evaluation) -> None:
    """How many units a speech model expects, and does it prefer real sentences to the same words in another order?"""
    rows = [row for row in run.rows(run.split, "units", "units_durations") if fits(run, len(run.cell("units", row)))]
    _put_unit_perplexity(run, rows)
    random = np.random.default_rng(run.seed)
    real, scrambled = [], []
    for row in rows:
        pieces = word_units(run, row)
        if len(pieces) < 4:
            continue
        order = random.permutation(len(pieces))
        if (order == np.arange(len(pieces))).all():
            continue
        units = joined_units(run, [pieces[index] for index in order])
        real.append(SequenceSpec("slm", run.lang(row), outputs=(Span("units", run.cell("units", row)),)))
        scrambled.append(SequenceSpec("slm", run.lang(row), outputs=(Span("units", units),)))
    if not real:
        return
    better = [a.mean() > b.mean() for a, b in zip(_scores(run, real), _scores(run, scrambled))]
    run.put("slm.order_accuracy", float(np.mean(better)))
    run.put("slm.count", len(better))


def fits(run: Evaluation, ids: int) -> bool:
    """Whether a sequence with so many ids of content is within the model's positions."""
    return ids <= run.model.decoder.config.max_positions - FRAME


def _put_unit_perplexity(run: Evaluation, rows: Sequence[int]) -> None:
    """Put the perplexity of an id, and bits a second of speech: of streams with other ids only the latter compare."""
    if not rows:
        return
    scores = _scores(
        run, [SequenceSpec("slm", run.lang(row), outputs=(Span("units", run.cell("units", row)),)) for row in rows]
    )
    nats = -sum(float(one[:-1].sum()) for one in scores)  # the closer counts as the end, the end of sequence does not
    count = sum(len(one) - 1 for one in scores)
    run.put("slm.ppl", math.exp(nats / count))
    stream = run.stream("units")
    if stream is not None and stream.frame_rate is not None:
        seconds = sum(int(run.cell("units_durations", row).sum()) for row in rows) / float(stream.frame_rate)
        run.put("slm.bits_per_second", nats / math.log(2) / seconds)
        run.put("slm.ids_per_second", sum(len(run.cell("units", row)) for row in rows) / seconds)


def joined_units(run: Evaluation, pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Ids of stretches of units one after another, as if they had been said so: equal neighbors are one."""
    stream, units = run.stream("units"), np.concatenate(pieces)
    if stream is not None and stream.merged_from is not None:
        assert run.model.unit_tokenizer is not None
        return run.model.unit_tokenizer.stored(run.model.units_in(units)).ids
    if stream is not None and stream.deduplicated:
        units = units[np.insert(np.diff(units) != 0, 0, True)]
    return units


def word_units(run: Evaluation, row: int) -> list[np.ndarray]:
    """Units of each word, by the row's alignment; empty where there is none, or no frame rate."""
    words = run.shards.row(row)["words"]
    units, durations = run.cell("units", row), run.cell("units_durations", row)
    stream = run.stream("units")
    if stream is None or stream.frame_rate is None:
        return []
    middles = (np.cumsum(durations) - durations / 2) / float(stream.frame_rate)
    starts = [start for _, start, _ in words]
    index = np.searchsorted(starts, middles, side="right") - 1
    return [units[np.maximum(index, 0) == word] for word in range(len(words)) if (np.maximum(index, 0) == word).any()]


def evaluate_interleaved(run: Evaluation, choices: int = 4) -> None:
    """Text of a sentence's first half, then units: is the true second half more probable than other sentences'?"""
    units = run.stream("units")
    if units is None or units.frame_rate is None:
        return  # without its rate, seconds of words say nothing of units
    rows = [
        row
        for row in run.rows(run.split, "units", "units_durations", "text_ids")
        if len(words := run.shards.row(row)["words"]) > 5
        and len(word_units(run, row)) == len(words)
        and fits(run, len(run.cell("units", row)) + len(run.cell("text_ids", row)))
    ]
    random = np.random.default_rng(run.seed)
    others = {row: foils(run, row, rows, choices - 1, random) for row in rows}
    rows = [row for row in rows if len(others[row]) == choices - 1]  # the others have too few to choose from
    if not rows:
        return
    halves = {row: _halves(run, row) for row in rows}
    plans = []
    for row in rows:
        picks = [row, *others[row]]
        text = Span("text", halves[row][0])
        plans += [SequenceSpec("ilm", run.lang(row), outputs=(text, Span("units", halves[pick][1]))) for pick in picks]
    values = []
    for plan in plans:
        prompt = render_prompt(SequenceSpec(plan.task, plan.source, outputs=plan.outputs[:1]), run.model.vocabulary)
        values.append((prompt, render(plan, run.model.vocabulary).ids[len(prompt) : -1]))
    scores: list[float] = []
    for start in range(0, len(values), 64):
        part = values[start : start + 64]
        prompts = [prompt for prompt, _ in part]
        given = [parse(prompt, run.model.vocabulary).start or 0 for prompt in prompts]
        scores += [float(one.mean()) for one in score(run.model.decoder, prompts, [r for _, r in part], given=given)]
    table = np.asarray(scores).reshape(-1, choices)
    run.put("ilm.cloze_accuracy", float((table.argmax(1) == 0).mean()))
    run.put("ilm.cloze_chance", 1.0 / choices)
    run.put("ilm.count", len(table))


def foils(run: Evaluation, row: int, rows: Sequence[int], count: int, random: np.random.Generator) -> list[int]:
    """So many rows, drawn, in the language of one that say something else than it and each other; fewer where there are
    no more. Several voices may read one sentence."""
    groups, found = run.shards.group, dict[str, int]()
    for other in random.permutation(np.asarray(rows)).tolist():
        unfit = run.lang(other) != run.lang(row) or groups[other] == groups[row] or run.text(other) == run.text(row)
        if not unfit:
            found.setdefault(run.text(other), other)
        if len(found) == count:
            break
    return list(found.values())


def _halves(run: Evaluation, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Text ids of the first half of the words, and units of the second."""
    words = run.shards.row(row)["words"]
    middle = len(words) // 2
    text = " ".join(word for word, _, _ in words[:middle])
    pieces = word_units(run, row)
    return np.asarray(run.model.tokenizers.text.encode(text)), np.concatenate(pieces[len(pieces) // 2 :])
