"""Does a model go on in the class of prosody in which it was begun, as a judge of pitch tells it.

The judge sees the pitch ids of a continuation and nothing else, and must first tell the classes of recordings' own.

T ids of an utterance, M ids of pitch, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.corpora.toy import CONTOURS
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.scoring import behind, log_probabilities
from unitok_training.systems.base.intervals import Counted, Figures, over_seeds
from unitok_training.systems.base.prosody_bench import LABEL, TRIALS, ProsodyBench, middle
from unitok_training.systems.base.prosody_streams import PITCH, PLACES, UNITS, Alphabet
from unitok_training.systems.base.system import Target

FEWEST_PITCHES = 3
"""Ids of a voiced pitch that a continuation needs to have a class."""
RIDGE = 0.1
"""Variance, in levels of pitch squared, that the judge adds to what it has seen: ids are rounded."""
JUDGES = 0.95
"""Share of recordings' own continuations whose class the judge must tell before it judges others'."""
CHANCE = 1 / len(CONTOURS)
SLACK = 0.05
"""How far above chance a rate may be that is at chance."""
KEEPS = 0.8
"""Share of continuations in the class of what was given from which on a class is kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """A sentence in a class of prosody, cut before its middle word."""

    group: str
    """The sentence."""
    lang: str
    """Its language."""
    label: str
    """The class."""
    begin: np.ndarray
    """(T,) ids that are given."""
    then: np.ndarray
    """(T,) ids of the recording behind them."""


def trials(shards: Shards, split: str = TRIALS) -> list[Trial]:
    """Rows of a split that have a class, in their order."""
    found = []
    for row in np.flatnonzero(shards.split == split).tolist():
        values, ids = shards.row(row), shards.cell(UNITS, row)
        if LABEL not in values["extras"] or not len(ids):
            continue
        cut = round(values["words"][middle(values["words"])][1] * float(PLACES))
        found.append(
            Trial(
                group=str(shards.group[row]), lang=str(shards.lang[row]), label=str(values["extras"][LABEL]),
                begin=ids[:cut], then=ids[cut:],
            )
        )  # fmt: skip
    return found


# -- the judge ----------------------------------------------------------------------------------------------------


def movement(pitches: np.ndarray) -> np.ndarray:
    """(D,) float64 of voiced levels (M,) in their order: their mean, the means of both ends, and how much they rise."""
    values, third = pitches.astype(np.float64), -(-len(pitches) // 3)
    slope = np.polyfit(np.linspace(0.0, 1.0, len(values)), values, 1)[0]
    return np.array([values.mean(), values[:third].mean(), values[-third:].mean(), slope])


class Judge:
    """Tells the class of prosody from pitch ids; learned from the second halves of training recordings.

    Linear discriminants: the nearest of the classes' means, by the covariance that all classes share. A regression to
    classes would not do: of three that lie in a row the middle one would hardly ever be named.

    Args:
        alphabet: which ids are pitch.
        taught: recordings of known classes.

    Raises:
        InputError: all of one class.
    """

    def __init__(self, alphabet: Alphabet, taught: Sequence[Trial]) -> None:
        self.alphabet = alphabet
        known = [(one.label, voiced) for one in taught if (voiced := self._pitches(one.then)) is not None]
        labels = np.array([label for label, _ in known])
        self.classes: list[str] = sorted(set(labels.tolist()))
        if len(self.classes) < 2:
            raise InputError(
                f"training recordings of one class of prosody ({', '.join(self.classes) or 'none'}) teach no judge; "
                "raise --sentences"
            )
        features = np.stack([movement(voiced) for _, voiced in known])
        self.means = np.stack([features[labels == name].mean(0) for name in self.classes])
        """(C, D)."""
        apart = features - self.means[[self.classes.index(name) for name in labels]]
        covariance = apart.T @ apart / len(features)
        self.precision = np.linalg.inv(covariance + RIDGE * np.eye(len(covariance)))
        """(D, D) inverse of the shared covariance."""

    def _voiced(self, ids: np.ndarray) -> np.ndarray:
        """Levels of pitch (M,) among ids (T,), in their order, those without a voice left out."""
        found = self.alphabet.within(PITCH, ids)
        return found[found > 0]

    def _pitches(self, ids: np.ndarray) -> np.ndarray | None:
        """The same; None where they are too few to have a class."""
        found = self._voiced(ids)
        return found if len(found) >= FEWEST_PITCHES else None

    def tells(self, ids: np.ndarray) -> str | None:
        """The class of ids (T,); None of a continuation that says next to nothing of its pitch."""
        found = self._pitches(ids)
        if found is None:
            return None
        apart = movement(found) - self.means  # (C, D)
        nearest: str = self.classes[int(np.einsum("cd,de,ce->c", apart, self.precision, apart).argmin())]
        return nearest


def matched(judge: Judge, asked: Sequence[Trial], continuations: Sequence[np.ndarray]) -> Counted:
    """How many continuations of each sentence are in the class of what was given; one without a class is not."""
    right = [judge.tells(ids) == one.label for one, ids in zip(asked, continuations, strict=True)]
    return by_sentence(asked, right)


def by_sentence(asked: Sequence[Trial], right: Sequence[bool]) -> Counted:
    """Right answers of each sentence, in the order of the sentences."""
    groups = list(dict.fromkeys(one.group for one in asked))
    places = np.array([groups.index(one.group) for one in asked])
    counts = np.bincount(places, np.asarray(right, np.float64), len(groups))
    return Counted(counts=counts, sizes=np.bincount(places, minlength=len(groups)).astype(np.float64))


# -- models -------------------------------------------------------------------------------------------------------


def continued_speech(run: Evaluation, asked: Sequence[Trial], temperature: float) -> list[np.ndarray]:
    """(T,) ids that a model says behind each beginning."""
    requests = [
        PromptRequest(plan=SequenceSpec("slm", one.lang, outputs=(Span(UNITS, one.begin),))) for one in asked
    ]  # fmt: skip
    found = run.model.run(seeded(requests, run.seed), sampling=Sampling(temperature=temperature))
    return [result.outputs[0].content[len(one.begin) :] for result, one in zip(found, asked, strict=True)]


def preferred(run: Evaluation, asked: Sequence[Trial]) -> Counted:
    """How often a beginning's own class is the likeliest of all, by the id: the same words in every class behind it."""
    by_group: dict[tuple[str, str], list[Trial]] = {}
    for one in asked:
        by_group.setdefault((one.group, one.lang), []).append(one)
    pairs = [(one, other) for one in asked for other in by_group[one.group, one.lang]]
    scored = log_probabilities(
        run.model,
        [
            behind(run.model, "slm", one.lang, Span(UNITS, one.begin), Span(UNITS, other.then))
            for one, other in pairs
        ],
    )  # fmt: skip
    means, right = iter(float(found.mean()) for found in scored), list[bool]()
    for one in asked:
        found = {other.label: next(means) for other in by_group[one.group, one.lang]}
        right.append(max(found, key=lambda label: found[label]) == one.label)
    return by_sentence(asked, right)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a model keeps of the class of prosody."""

    match: Counted
    """Its continuations, as the judge tells."""
    choice: Counted
    """Its likeliest continuation of three."""
    judged: float
    """Share of its continuations that have a class."""


def kept(run: Evaluation, judge: Judge, asked: Sequence[Trial], temperature: float) -> Kept:
    """Have a model go on, and choose."""
    said = continued_speech(run, asked, temperature)
    return Kept(
        match=matched(judge, asked, said),
        choice=preferred(run, asked),
        judged=float(np.mean([judge.tells(ids) is not None for ids in said])),
    )


# -- figures ------------------------------------------------------------------------------------------------------


def judge_of(bench: ProsodyBench) -> Judge:
    """Learned from the training rows of the corpus that have a class."""
    return Judge(bench.stream.alphabet, trials(bench.shards, "train"))


def judge_figures(row: str, judge: Judge, asked: Sequence[Trial]) -> Figures:
    """What the judge is worth here: of held-out recordings' own second halves."""
    own = matched(judge, asked, [one.then for one in asked])
    return {f"{row}.judge.accuracy": own.rate, f"{row}.chance": CHANCE, f"{row}.sentences": float(len(own.counts))}


def kept_figures(row: str, bench: ProsodyBench, arms: Mapping[str, Sequence[Kept]]) -> Figures:
    """Rates of every arm over its seeds, and how much more the first arm keeps than the second."""
    figures: Figures = {}
    for arm, found in arms.items():
        figures |= over_seeds(f"{row}.{arm}.match", [one.match.rate for one in found])
        figures |= over_seeds(f"{row}.{arm}.choice", [one.choice.rate for one in found])
        figures[f"{row}.{arm}.judged"] = float(np.mean([one.judged for one in found]))
    one, other = list(arms.values())[:2]
    figures |= bench.compared(f"{row}.match_over_untold", [part.match for part in one], [part.match for part in other])
    return figures


def kept_targets(row: str, told: str, untold: str) -> tuple[Target, ...]:
    """What the figures of an arm with prosody and of one without must show."""
    return (
        Target("the judge tells the class of recordings' own ids", lambda f: f[f"{row}.judge.accuracy"] >= JUDGES),
        Target("speech goes on in the class of its beginning", lambda f: f[f"{row}.{told}.match"] >= KEEPS),
        Target(
            "units alone leave it to chance", lambda f: f[f"{row}.{untold}.match"] <= f[f"{row}.chance"] + SLACK
        ),
        Target("prosody among units makes the difference", lambda f: f[f"{row}.match_over_untold.low"] > 0),
    )  # fmt: skip
