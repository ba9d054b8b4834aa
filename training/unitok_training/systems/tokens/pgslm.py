"""pGSLM (Kharitonov et al. 2022): a language model of units, of how long they last and of how high they are.

unitok systems run pgslm -o runs/pgslm

Each unit is followed by its duration and its pitch, in one flat stream. Two arms of equal steps go on from the first
half of a sentence: `triples` is given all three, `units` is given units alone, and says durations and pitch of its own,
as whatever speaks the units of a language model does.

N units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.base import ProsodySource
from unitok_tokenizers.prosody.durations import DurationTokenizer
from unitok_tokenizers.prosody.pitch import PitchTokenizer
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.prosody_bench import ProsodyBench, ProsodyBenchConfig
from unitok_training.systems.base.prosody_scores import (
    Kept,
    judge_figures,
    judge_of,
    kept,
    kept_figures,
    kept_targets,
    trials,
)
from unitok_training.systems.base.prosody_streams import MARK, PITCH, UNITS, Alphabet, Flat, FlatStream, Heard, nearest
from unitok_training.systems.base.system import Measured, Sampled, System
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.trainer.config import TrainConfig

DURATIONS = "durations"
TASKS = {"slm": 1.0}


@dataclass(frozen=True, kw_only=True)
class PgslmConfig(ProsodyBenchConfig):
    """What the check depends on."""

    train: TrainConfig = field(default_factory=lambda: replace(ProsodyBenchConfig().train, steps=400))
    """Training of an arm; the seed is that of the arm."""
    durations: int = 8
    """Levels of duration, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.durations < 2:
            raise InputError(f"durations is {self.durations}: give 2 levels or more")


class Triples(FlatStream):
    """`unit duration pitch` of each unit.

    Args:
        units: stream of the units.
        durations: levels of duration.
        pitch: levels of pitch.
    """

    def __init__(self, units: StreamInfo, durations: DurationTokenizer, pitch: PitchTokenizer) -> None:
        self.durations, self.pitch = durations, pitch
        sizes = {UNITS: units.cardinalities[0], DURATIONS: durations.cardinality, PITCH: pitch.cardinality, MARK: 1}
        self.alphabet = Alphabet(
            sizes=sizes, origin="".join((units.fingerprint, durations.fingerprint, pitch.fingerprint))
        )

    @classmethod
    def fit(cls, heard: Sequence[Heard], units: StreamInfo, config: PgslmConfig) -> Triples:
        """Of training recordings."""
        source = ProsodySource(contours=[one.contour for one in heard], units=units, seed=config.parts.seed)
        return cls(
            units, DurationTokenizer.fit(source, config.durations), PitchTokenizer.fit(source, config.pitches)
        )  # fmt: skip

    def flat(self, heard: Heard) -> Flat:
        """See `FlatStream.flat`: what is told of a unit is over when it ends."""
        levels = nearest(self.pitch.levels, heard.unit_pitch())  # (N,)
        blocks = {UNITS: heard.units, DURATIONS: self.durations.encode(heard.durations), PITCH: levels}
        ids = np.stack([self.alphabet.ids(block, local) for block, local in blocks.items()], axis=1)
        return Flat(ids=ids.reshape(-1), times=np.repeat(heard.edges[1:], ids.shape[1]))


def check_pgslm(given: Bench) -> Figures:
    """The class of prosody of continuations, where prosody is given and where it is not."""
    config = settings_of(given, PgslmConfig)
    bench = ProsodyBench(given, config, lambda heard, units: Triples.fit(heard, units, config))
    judge = judge_of(bench)

    def arm(name: str, shards: Shards) -> list[Kept]:
        asked = trials(shards)
        return bench.over_seeds(
            name, TASKS, lambda run: kept(run, judge, asked, config.temperature), shards=shards
        )  # fmt: skip

    figures = judge_figures("c16", judge, trials(bench.shards))
    arms = {"triples": arm("triples", bench.shards), "units": arm("units", bench.untold)}
    return figures | kept_figures("c16", bench, arms)


SYSTEM = System(
    name="pgslm",
    title="pGSLM",
    row="C16",
    sentences=600,
    test_sentences=100,
    settings=PgslmConfig,
    check=check_pgslm,
    differs="flat triples, not streams with a delay; units of a small recognizer of letters; three contours of the toy "
    "corpus, which move evenly over a sentence: its first half is given, its second half is judged; units alone are "
    "spoken by a model that was not given durations and pitch, not by a synthesizer",
    measures="the class of prosody (flat, rise, fall) of continuations, given units with durations and pitch or units "
    "alone, by a judge of pitch ids; and of the same words in all classes the likeliest",
    targets=kept_targets("c16", "triples", "units"),
    measured=(
        Measured(
            "unitok systems run pgslm",
            {
                "c16.chance": 0.333,
                "c16.judge.accuracy": 0.967,
                "c16.match_over_untold": 0.667,
                "c16.match_over_untold.high": 0.725,
                "c16.match_over_untold.low": 0.614,
                "c16.sentences": 40.0,
                "c16.triples.choice": 0.936,
                "c16.triples.choice.interval": 0.012,
                "c16.triples.judged": 0.992,
                "c16.triples.match": 0.967,
                "c16.triples.match.interval": 0.0207,
                "c16.units.choice": 0.333,
                "c16.units.choice.interval": 0.0,
                "c16.units.judged": 1.0,
                "c16.units.match": 0.3,
                "c16.units.match.interval": 0.0746,
            },
            "f0f5290",
        ),
    ),
    sampled=(
        Sampled(
            arm="triples",
            task="slm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.0,
            eos_share=0.734,
            commit="4c63b0b",
        ),
    ),  # fmt: skip
)
