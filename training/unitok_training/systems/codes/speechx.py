"""SpeechX (Wang et al. 2023): noise taken away, one of two talkers, a word said anew, a prompted voice, by one model.

unitok systems run speechx -o runs/speechx

Everything is P(codes | text, codes) with a token of the task before it. What is scored is what held-out sentences sound
like, beside what was given and beside the right answer, both through the codec alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from unitok.generation.sampling import Sampling
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.mixing import MANIFEST, MixConfig, write_mixed
from unitok_tokenizers.files import atomic_directory, fingerprint
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.evaluate import kept_share, remade_items
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import CodeBench, CodeBenchConfig, sounds, written
from unitok_training.systems.base.intervals import over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import READS, Build, oracle_target, settings_of
from unitok_training.systems.codes.remade_speech import Edited, Heard, Wanted, edited, heard, word_edits
from unitok_training.trainer.config import TrainConfig

TASKS: Mapping[str, float] = {"vtts.voice": 1.0, "se": 1.0, "se.text": 1.0, "tse": 1.0, "tse.text": 1.0, "edit": 1.0}
"""What the one model learns."""
SCORED = ("vtts.voice", "se", "se.text", "tse", "tse.text")
"""Those whose answers are whole recordings."""
GIVEN = ("se", "se.text", "tse", "tse.text")
"""Those that are given speech to change; each draws sentences of its own."""
SPLIT = "test_seen"
"""Held-out sentences by the voices of the training: the judge knows no others."""
OPTIONS = ExampleOptions(voice_share=1.0, split=SPLIT)


@dataclass(frozen=True, kw_only=True)
class SpeechXConfig(CodeBenchConfig):
    """What the check depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test",)
    """It scores fixed ones, which `dev` is none of."""

    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=6, heads=4, kv_heads=2))
    """The decoder, which gives `depth_layers` of its blocks to codebooks."""
    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=400, pack_size=1024))
    """Training; the seed is that of the arm."""
    snr_db: tuple[float, float] = (0.0, 10.0)
    """Least and greatest level of speech above the noise, in dB."""
    talker_db: tuple[float, float] = (0.0, 5.0)
    """Least and greatest level of the wanted talker above the other, in dB."""

    @property
    def mix(self) -> MixConfig:
        """Which mixtures are made of the corpus."""
        return MixConfig(talkers=True, snr_db=self.snr_db, talker_db=self.talker_db, seed=self.seed)


# -- data ---------------------------------------------------------------------------------------------------------


def mixtures(bench: CodeBench, config: MixConfig) -> list[Row]:
    """Mixtures of the corpus's recordings, which are made unless they are there."""
    folder = bench.parts.folder / f"mixed-{fingerprint(asdict(config))}"
    if not folder.exists():
        rows = [row for row in bench.parts.rows if row.split in ("train", SPLIT)]
        bench.report(f"mixtures of {len(rows)} recordings")
        with atomic_directory(folder) as draft:
            write_mixed(rows, Path(draft), config)
    return [row for row in read_manifest(folder / MANIFEST) if row.split.endswith("_mixed")]


def build(config: CodeBenchConfig) -> Build:
    """A decoder over frames and a small one over the codebooks of each, as many blocks in all as the settings say."""
    return Build(decoder=config.core, model=config.depth)


# -- what is heard ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What one model's answers are worth."""

    remade: Mapping[str, Heard]
    """Task variant → its answers."""
    edited: Edited
    """Words of the edits."""
    kept: float
    """Share of the frames around edits that are as they were."""


def wanted(run: Evaluation, rows: Sequence[int]) -> list[tuple[str, str, str]]:
    """What is to be said of each row, in which language, by whom."""
    return [(run.text(row), run.lang(row), str(run.shards.speaker[row])) for row in rows]


def scored(bench: CodeBench, run: Evaluation, sampling: Sampling) -> Scores:
    """Have held-out recordings changed, and hear what came of it."""
    ear, remade = bench.parts.oracle, dict[str, Heard]()
    run = replace(run, split=SPLIT, limit=bench.config.limit)
    for key in SCORED:
        rows, plans = remade_items(run, key, OPTIONS)
        answers = written(run, [replace(plan, outputs=()) for plan in plans], sampling)
        remade[key] = heard(ear, sounds(answers), wanted(run, rows))
    some = word_edits(run, run.rows(SPLIT, "codes", "text_ids"), bench.parts.config.topics)
    answers = written(run, [one.plan for one in some], sampling)
    frames = [sum(len(span) for span in one.outputs) for one in answers]
    found = ear.hear(sounds(answers), [one.plan.source for one in some])
    kept = [kept_share(one.outputs[0], edit.plan) if one.outputs else 0.0 for one, edit in zip(answers, some)]
    words = edited(some, found, frames, frame_rate(bench))
    return Scores(remade=remade, edited=words, kept=float(np.mean(kept)))


def frame_rate(bench: CodeBench) -> float:
    """Frames of codes a second."""
    return float(bench.parts.codec.frame_rate)


def through_codec(run: Evaluation, spans: Sequence[Span]) -> list[np.ndarray]:
    """(S,) of each span of codes."""
    found = [run.model.speak((span,)) for span in spans]
    return [np.zeros(0, np.float32) if one is None else one for one in found]


def codes_given(plan: SequenceSpec) -> Span:
    """The codes that a plan is given to change."""
    return next(span for span in plan.conditions if span.kind == "codes")


def references(bench: CodeBench, run: Evaluation) -> tuple[dict[str, Heard], dict[str, Heard], Edited]:
    """What is given, and the right answers, through the codec alone; and recordings before they are edited."""
    ear, given, right = bench.parts.oracle, dict[str, Heard](), dict[str, Heard]()
    run = replace(run, split=SPLIT, limit=bench.config.limit)
    for key in GIVEN:
        rows, plans = remade_items(run, key, OPTIONS)
        asked: Wanted = wanted(run, rows)
        given[key] = heard(ear, through_codec(run, [codes_given(plan) for plan in plans]), asked)
        right[key] = heard(ear, through_codec(run, [plan.outputs[-1] for plan in plans]), asked)
    rows = run.rows(SPLIT, "codes", "text_ids")
    some = word_edits(run, rows, bench.parts.config.topics)
    kept = [row for row in rows if len(run.shards.row(row)["words"]) > 2]
    whole = [run.span("codes", row) for row in kept]
    found = ear.hear(through_codec(run, whole), [one.plan.source for one in some])
    return given, right, edited(some, found, [len(span) for span in whole], frame_rate(bench))


# -- the check ----------------------------------------------------------------------------------------------------


def put_heard(figures: Figures, key: str, found: Sequence[Heard]) -> None:
    """Figures of one or more models' answers."""
    figures |= over_seeds(f"{key}.noise_db", [one.noise.rate for one in found])
    figures |= over_seeds(f"{key}.wer", [one.errors.rate for one in found])
    figures |= over_seeds(f"{key}.voice", [one.voices.rate for one in found])


def check_speechx(given: Bench) -> Figures:
    """Noise, words and voices of what one model makes of speech in noise, of two talkers, and of words to change."""
    config = settings_of(given, SpeechXConfig)
    bench = CodeBench(given, config)
    bench.further = mixtures(bench, config.mix)
    figures = bench.oracle_figures("c30")
    sampling = Sampling(temperature=config.temperature)

    def each(run: Evaluation) -> Scores:
        return scored(bench, run, sampling)

    found = bench.over_seeds("speechx", TASKS, each, options=replace(OPTIONS, split="train"), build=build(config))
    run = bench.evaluation(bench.train(f"speechx-{config.seed}", TASKS, seed=config.seed))  # which is there by now
    before, right, unchanged = references(bench, run)
    figures["c30.judge.accuracy"] = right["se"].voices.rate
    for key in GIVEN:
        put_heard(figures, f"c30.given.{key}", [before[key]])
        put_heard(figures, f"c30.codec.{key}", [right[key]])
    for key in SCORED:
        put_heard(figures, f"c30.{key}", [one.remade[key] for one in found])
    for key in GIVEN:
        source = [before[key]] * len(found)
        made = [one.remade[key] for one in found]
        for name in ("noise", "errors"):
            parts = ([getattr(one, name) for one in some] for some in (made, source))
            figures |= bench.compared(f"c30.{key}.{name}_over_given", *parts)
    figures |= over_seeds("c30.edit.wer_inside", [one.edited.inside.rate for one in found])
    figures |= over_seeds("c30.edit.wer_outside", [one.edited.outside.rate for one in found])
    figures["c30.edit.kept_share"] = min(one.kept for one in found)
    figures["c30.unchanged.wer_inside"] = unchanged.inside.rate
    figures["c30.unchanged.wer_outside"] = unchanged.outside.rate
    return figures


SYSTEM = System(
    name="speechx",
    title="SpeechX",
    row="C30",
    sentences=600,
    test_sentences=100,
    settings=SpeechXConfig,
    check=check_speechx,
    differs="a decoder over frames with a small one over their codebooks, not a first codebook with a second pass; no "
    "stage of synthesis alone before; an edit says the stretch that changes, between what stands around it, not the "
    "whole recording; voices of prompts are those of the training, in other recordings; noise that is made here",
    measures="noise, words and voices that the oracle hears in held-out sentences: speech in noise before and after, "
    "the wanted one of two talkers, with a text and without; words of edits in the stretch and around it; a text in "
    "the voice of a prompt; the right answers through the codec alone beside them",
    targets=(
        oracle_target("c30"),
        Target("the judge names the voices of resynthesized speech", lambda f: f["c30.judge.accuracy"] >= READS),
        Target("noise falls, not by chance", lambda f: f["c30.se.noise_over_given.high"] < 0),
        Target("… and no more words are wrong", lambda f: f["c30.se.errors_over_given"] <= 0),
        Target("… nor with the text given", lambda f: f["c30.se.text.errors_over_given"] <= 0),
        Target("of two talkers the enrolled one is heard, nine times of ten", lambda f: f["c30.tse.voice"] >= 0.9),
        Target("… and with the text given", lambda f: f["c30.tse.text.voice"] >= 0.9),
        Target(
            "words around an edit are heard as before",
            lambda f: f["c30.edit.wer_outside"] <= f["c30.unchanged.wer_outside"] + 0.02,
        ),
        Target("nine words of ten that were asked for are heard", lambda f: f["c30.edit.wer_inside"] <= 0.1),
    ),
    measured=(
        Measured(
            "unitok systems run speechx",
            {
                "c30.codec.se.noise_db": -18.9,
                "c30.codec.se.voice": 0.975,
                "c30.codec.se.wer": 0.0225,
                "c30.codec.tse.noise_db": -20.1,
                "c30.codec.tse.voice": 0.975,
                "c30.codec.tse.wer": 0.0267,
                "c30.edit.kept_share": 1.0,
                "c30.edit.wer_inside": 2.44,
                "c30.edit.wer_inside.interval": 0.498,
                "c30.edit.wer_outside": 0.0443,
                "c30.edit.wer_outside.interval": 0.0437,
                "c30.given.se.noise_db": -11.7,
                "c30.given.se.voice": 0.2,
                "c30.given.se.wer": 1.14,
                "c30.given.tse.noise_db": -11.7,
                "c30.given.tse.voice": 0.425,
                "c30.given.tse.wer": 1.61,
                "c30.judge.accuracy": 0.975,
                "c30.oracle.accuracy": 0.967,
                "c30.se.errors_over_given": 0.139,
                "c30.se.errors_over_given.high": 0.374,
                "c30.se.errors_over_given.low": -0.109,
                "c30.se.noise_db": -19.9,
                "c30.se.noise_db.interval": 2.92,
                "c30.se.noise_over_given": -8.16,
                "c30.se.noise_over_given.high": -7.03,
                "c30.se.noise_over_given.low": -9.22,
                "c30.se.text.noise_db": -20.3,
                "c30.se.text.noise_db.interval": 0.315,
                "c30.se.text.voice": 0.192,
                "c30.se.text.voice.interval": 0.2,
                "c30.se.text.wer": 1.24,
                "c30.se.text.wer.interval": 0.16,
                "c30.se.voice": 0.283,
                "c30.se.voice.interval": 0.0949,
                "c30.se.wer": 1.28,
                "c30.se.wer.interval": 0.0403,
                "c30.tse.errors_over_given": -0.33,
                "c30.tse.errors_over_given.high": -0.177,
                "c30.tse.errors_over_given.low": -0.483,
                "c30.tse.noise_db": -20.5,
                "c30.tse.noise_db.interval": 1.62,
                "c30.tse.noise_over_given": -8.81,
                "c30.tse.noise_over_given.high": -7.75,
                "c30.tse.noise_over_given.low": -9.92,
                "c30.tse.text.noise_db": -20.0,
                "c30.tse.text.noise_db.interval": 1.21,
                "c30.tse.text.voice": 0.8,
                "c30.tse.text.voice.interval": 0.0621,
                "c30.tse.text.wer": 1.3,
                "c30.tse.text.wer.interval": 0.0622,
                "c30.tse.voice": 0.858,
                "c30.tse.voice.interval": 0.156,
                "c30.tse.wer": 1.28,
                "c30.tse.wer.interval": 0.192,
                "c30.unchanged.wer_inside": 1.02,
                "c30.unchanged.wer_outside": 0.035,
                "c30.vtts.voice.noise_db": -19.5,
                "c30.vtts.voice.noise_db.interval": 1.18,
                "c30.vtts.voice.voice": 0.792,
                "c30.vtts.voice.voice.interval": 0.235,
                "c30.vtts.voice.wer": 1.23,
                "c30.vtts.voice.wer.interval": 0.0774,
            },
            "5c2c526",
        ),
    ),
)
