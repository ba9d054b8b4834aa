"""AudioLM (Borsos et al. 2022): what is heard goes on as units first and as codes then, beside codes alone.

unitok systems run audio_lm -o runs/audio_lm

One decoder has all stages of the first arm: `slm` goes on with units, `vc` says all of them in codes and goes on where
the codes of the prompt end, coarse ones of all frames before fine ones. The other arm goes on with codes alone. Both
begin with the first words of held-out sentences, by voices of the training.

A continuation has no reference: its words are compared with the sentence of the toy grammar that is nearest to them.

F frames, Q codebooks, N units, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import ClassVar

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.results import Result
from unitok_tokenizers.corpora.toy import OPTIONAL, ORDERS, lexicon
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.asr_scorer import SpeakerClassifier
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import CodeBench, CodeBenchConfig, CodeParts, written
from unitok_training.systems.base.intervals import Counted, over_seeds, seeds_and_rates
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import READS, Build, oracle_target, settings_of
from unitok_training.trainer.config import TrainConfig

SEMANTIC, ACOUSTIC = "semantic", "acoustic"
TASKS: Mapping[str, Mapping[str, float]] = {SEMANTIC: {"slm": 3.0, "vc": 1.0}, ACOUSTIC: {"vtts": 1.0}}
"""Arm → its tasks. An example of units has an eighth of the ids of one of codes: it comes oftener, to be learned."""
LEFT_OUT: Mapping[str, str] = {SEMANTIC: "voice", ACOUSTIC: "text"}
"""Arm → the condition of its tasks that no example has: voices come from what is continued, and no text is given."""
LEAST_SECONDS = 0.1
"""Of sound whose voice can be told."""
FEWEST_WORDS = 3
"""Of a sentence: two nouns and a verb."""


@dataclass(frozen=True, kw_only=True)
class AudioLmConfig(CodeBenchConfig):
    """What the check depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""

    spoken: int = 1200
    """Training sentences beside the corpus, spoken: the corpus alone is learned by heart."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=300, pack_size=2048))
    """Training of an arm; the seed is that of the arm."""
    coarse: int = 2
    """Codebooks of the coarse stage."""
    prompt_words: int = 2
    """Words that are heard before a model goes on."""
    voices: int = 240
    """Training recordings that the judge of voices learns from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.prompt_words < FEWEST_WORDS:
            raise InputError(
                f"prompt_words is {self.prompt_words}: a sentence may have {FEWEST_WORDS} words; hear 1 or 2"
            )
        if self.voices < 2:
            raise InputError(f"voices is {self.voices}: a judge of voices needs two recordings or more")


# -- what is said -------------------------------------------------------------------------------------------------


def patterns(lang: str, topics: int) -> Iterator[tuple[frozenset[str], ...]]:
    """The words that may stand at each place of a sentence, for every kind of sentence of a corpus with topics."""
    words = lexicon(lang)
    for topic, said in product(range(topics), product((True, False), repeat=len(OPTIONAL))):
        absent = {role for role, there in zip(OPTIONAL, said) if not there}
        yield tuple(
            frozenset(words[role.rstrip("12")][topic::topics]) for role in ORDERS[lang] if role not in absent
        )  # fmt: skip


def pattern_errors(words: Sequence[str], pattern: Sequence[frozenset[str]]) -> int:
    """Least words that must change, go or come for these to be a sentence of a pattern."""
    costs = list(range(len(pattern) + 1))
    for place, word in enumerate(words, 1):
        before, costs[0] = costs[0], place
        for number, allowed in enumerate(pattern, 1):
            both = before + (word not in allowed)
            before = costs[number]
            costs[number] = min(both, before + 1, costs[number - 1] + 1)
    return costs[-1]


def sentence_errors(texts: Sequence[str], langs: Sequence[str], topics: int) -> Counted:
    """Word errors of each text against the sentence that is nearest to it, the longest one of several."""
    found = [
        min((pattern_errors(text.split(), one), -len(one)) for one in patterns(lang, topics))
        for text, lang in zip(texts, langs, strict=True)
    ]
    return Counted(
        counts=np.array([errors for errors, _ in found], np.float64),
        sizes=np.array([-length for _, length in found], np.float64),
    )


# -- what is heard, and how it goes on ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What is heard of a sentence before a model goes on."""

    lang: str
    """Its language."""
    speaker: str
    """Who speaks."""
    units: np.ndarray
    """(N,) its units."""
    codes: np.ndarray
    """(F, Q) its codes."""
    rest: np.ndarray
    """(F', Q) codes of what the speaker goes on with."""


def beginning(run: Evaluation, row: int, words: int) -> Beginning:
    """The first words of a row. The codec's first codebook is the units."""
    stream = run.stream("codes")
    assert stream is not None and stream.frame_rate is not None, "the codec says its rate"
    codes, (_, _, end) = run.codes(row), run.shards.row(row)["words"][words - 1]
    frames = min(max(1, round(end * float(stream.frame_rate))), len(codes) - 1)
    return Beginning(
        lang=run.lang(row), speaker=str(run.shards.speaker[row]), units=deduplicate(codes[:frames, 0])[0],
        codes=codes[:frames], rest=codes[frames:],
    )  # fmt: skip


def _content(result: Result, like: np.ndarray) -> np.ndarray:
    """What an answer says, be it nothing."""
    return result.outputs[-1].content if result.outputs else like[:0]


def by_units(run: Evaluation, heard: Sequence[Beginning], sampling: Sampling) -> list[np.ndarray]:
    """(F', Q) codes of each continuation: units go on, and all of them are said behind the codes of the prompt."""
    asked = [SequenceSpec("slm", one.lang, outputs=(Span("units", one.units),), forced=len(one.units)) for one in heard]
    more = written(run, asked, sampling, speak=False)
    asked = [
        SequenceSpec(
            "vc", one.lang, conditions=(Span("units", np.concatenate([one.units, _content(result, one.units)])),),
            outputs=(Span("codes", one.codes),), forced=len(one.codes),
        )
        for one, result in zip(heard, more)
    ]  # fmt: skip
    return [_content(result, one.codes) for one, result in zip(heard, written(run, asked, sampling, speak=False))]


def by_codes(run: Evaluation, heard: Sequence[Beginning], sampling: Sampling) -> list[np.ndarray]:
    """(F', Q) codes of each continuation in codes alone."""
    asked = [
        SequenceSpec("vtts", one.lang, outputs=(Span("codes", one.codes),), forced=len(one.codes)) for one in heard
    ]
    return [_content(result, one.codes) for one, result in zip(heard, written(run, asked, sampling, speak=False))]


@dataclass(frozen=True, kw_only=True)
class Continued:
    """How sentences went on."""

    errors: Counted
    """Word errors of the whole against the nearest sentence."""
    kept: Counted
    """Whether what came behind the prompt is in the prompt's voice."""
    seconds: float
    """Mean length of what came behind it."""


class Judge:
    """Reads continuations, and names their voices.

    The judge of voices has learned from training recordings that went through codes and back.
    """

    def __init__(self, parts: CodeParts, count: int) -> None:
        self.parts = parts
        rows = [row for row in parts.rows if row.split == "train"][:count]
        self.voices = SpeakerClassifier.train([parts.resynthesized(row) for row in rows], [row.speaker for row in rows])

    def continued(self, heard: Sequence[Beginning], more: Sequence[np.ndarray]) -> Continued:
        """What became of each beginning, codes (F', Q) having come behind it."""
        codec, texts, kept, seconds = self.parts.codec, list[str](), list[float](), list[float]()
        for one, codes in zip(heard, more, strict=True):
            sound = self.parts.vocoder.from_codes(np.concatenate([one.codes, codes]), codec)
            begin = round(len(one.codes) / float(codec.frame_rate) * codec.sample_rate)
            texts += self.parts.oracle.read([sound], [one.lang])
            seconds.append(len(codes) / float(codec.frame_rate))
            told = seconds[-1] >= LEAST_SECONDS and self.voices.predict([sound[begin:]]) == [one.speaker]
            kept.append(float(told))
        return Continued(
            errors=sentence_errors(texts, [one.lang for one in heard], self.parts.config.topics),
            kept=Counted(counts=np.array(kept), sizes=np.ones(len(kept))),
            seconds=float(np.mean(seconds)),
        )


def check_audio_lm(given: Bench) -> Figures:
    """Word errors and voices of what is continued as units first, and of what is continued as codes alone."""
    config = settings_of(given, AudioLmConfig)
    bench = CodeBench(given, config)
    books = len(bench.parts.codec.cardinalities)
    if not 1 <= config.coarse < books:
        raise InputError(f"coarse is {config.coarse}: of {books} codebooks the coarse stage has one at least, not all")
    build = Build(model=ModelChoice(layout="coarse_fine", coarse=config.coarse))
    judge, sampling = Judge(bench.parts, config.voices), Sampling(temperature=config.temperature)
    figures, arms, true = bench.oracle_figures("c19"), dict[str, list[Continued]](), list[Continued]()

    def heard(run: Evaluation) -> list[Beginning]:
        seen = replace(run, split=run.seen_split)
        return [beginning(seen, row, config.prompt_words) for row in bench.some(seen, "codes")]

    def scored(run: Evaluation, arm: str) -> Continued:
        known = heard(run)
        if not true:  # the recordings are the same for all
            true.append(judge.continued(known, [one.rest for one in known]))
        return judge.continued(known, (by_units if arm == SEMANTIC else by_codes)(run, known, sampling))

    for arm, tasks in TASKS.items():
        options = ExampleOptions(voice_share=0.0, condition_dropout=1.0, dropped_conditions=(LEFT_OUT[arm],))

        def score(run: Evaluation, arm: str = arm) -> Continued:
            return scored(run, arm)

        arms[arm] = bench.over_seeds(arm, tasks, score, options=options, build=build)
        figures |= over_seeds(f"c19.{arm}.seconds", [one.seconds for one in arms[arm]])
    errors = {arm: [one.errors for one in found] for arm, found in arms.items()}
    kept = {arm: [one.kept for one in found] for arm, found in arms.items()}
    figures |= {f"c19.{key}": value for key, value in seeds_and_rates(errors, "wer").items()}
    figures |= {f"c19.{key}": value for key, value in seeds_and_rates(kept, "voice_kept").items()}
    figures |= {
        "c19.recordings.wer": true[0].errors.rate,
        "c19.recordings.seconds": true[0].seconds,
        "c19.voices.accuracy": true[0].kept.rate,
    }
    return figures | bench.compared("c19.wer_over_acoustic", errors[SEMANTIC], errors[ACOUSTIC])


SYSTEM = System(
    name="audio_lm",
    title="AudioLM",
    row="C19",
    sentences=600,
    test_sentences=100,
    settings=AudioLmConfig,
    check=check_audio_lm,
    differs="one decoder for all stages instead of three; units of a small recognizer of letters; the codec's first "
    "codebook is the units too, so that codes alone hold the words as well; fine codes of a whole utterance at once, "
    "those of the prompt said anew; voices of the training, as six teach nobody a seventh",
    measures="what goes on behind two words as units and then codes, and as codes alone: word errors of all that the "
    "oracle reads against the nearest sentence of the toy grammar (a continuation has no reference), and whether a "
    "classifier of voices hears the prompt's in what came behind it; recordings themselves are scored alike",
    targets=(
        oracle_target("c19"),
        Target("resynthesized recordings are sentences", lambda f: f["c19.recordings.wer"] <= 1 - READS),
        Target("the judge of voices names those of recordings", lambda f: f["c19.voices.accuracy"] >= READS),
        Target("units first, fewer words are wrong", lambda f: f["c19.wer_over_acoustic"] < 0),
        Target("… not by chance", lambda f: f["c19.wer_over_acoustic.high"] < 0),
        Target("nine of ten continuations keep the voice", lambda f: f["c19.semantic.voice_kept"] >= 0.9),
    ),
    measured=(
        Measured(
            "unitok systems run audio_lm",
            {
                "c19.acoustic.seconds": 0.975,
                "c19.acoustic.seconds.interval": 0.0621,
                "c19.acoustic.voice_kept": 0.967,
                "c19.acoustic.voice_kept.interval": 0.0359,
                "c19.acoustic.wer": 0.502,
                "c19.acoustic.wer.interval": 0.163,
                "c19.oracle.accuracy": 0.967,
                "c19.recordings.seconds": 0.859,
                "c19.recordings.wer": 0.038,
                "c19.semantic.seconds": 1.01,
                "c19.semantic.seconds.interval": 0.124,
                "c19.semantic.voice_kept": 0.933,
                "c19.semantic.voice_kept.interval": 0.129,
                "c19.semantic.wer": 0.319,
                "c19.semantic.wer.interval": 0.0825,
                "c19.voices.accuracy": 0.95,
                "c19.wer_over_acoustic": -0.185,
                "c19.wer_over_acoustic.high": -0.136,
                "c19.wer_over_acoustic.low": -0.23,
            },
            "5c2c526",
        ),
    ),
)
