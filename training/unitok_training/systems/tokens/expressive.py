"""Spirit-LM Expressive (Nguyen et al. 2024): text and speech in turn, with pitch and style among the units.

unitok systems run expressive -o runs/expressive

Ids of units, of pitch (12.5 a second) and of style (one a second) are merged by time into one flat stream, which takes
turns with text at words. Two arms of equal steps from one text model: `expressive` is given all of it, `base` is given
units alone in the first half of a sentence, and says pitch and style of its own behind it.

N units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.prosody.base import ProsodySource
from unitok_tokenizers.prosody.contour import RATE
from unitok_tokenizers.prosody.pitch import FRAMES, PitchTokenizer
from unitok_tokenizers.prosody.style import StyleTokenizer
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
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
from unitok_training.systems.base.prosody_streams import MARK, PITCH, UNITS, Alphabet, Flat, FlatStream, Heard
from unitok_training.systems.base.system import Measured, System
from unitok_training.systems.base.token_bench import settings_of
from unitok_training.systems.base.token_scores import continued, nats
from unitok_training.trainer.config import TrainConfig

STYLE = "style"
TEXT: Mapping[str, float] = {"lm": 1.0}
TASKS: Mapping[str, float] = {"lm": 1.0, "slm": 1.0, "ilm": 1.0}
"""A third each of text, of speech, and of both in turn."""


@dataclass(frozen=True, kw_only=True)
class ExpressiveConfig(ProsodyBenchConfig):
    """What the check depends on."""

    texts: int = 2000
    """Training sentences beside all spoken ones, as text alone."""
    train: TrainConfig = field(default_factory=lambda: replace(ProsodyBenchConfig().train, steps=400))
    """Training of an arm; the seed is that of the arm."""
    styles: int = 16
    """Clusters of style, at most."""
    interleave_words: float = 2.0
    """Mean length of a stretch of one modality, in words: sentences are of three to six."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.styles < 2:
            raise InputError(f"styles is {self.styles}: give 2 clusters or more")


class Merged(FlatStream):
    """Units at their middles, pitch and style at the ends of their windows, one after another by time.

    Args:
        units: stream of the units.
        pitch: levels of pitch.
        style: clusters of style.
    """

    def __init__(self, units: StreamInfo, pitch: PitchTokenizer, style: StyleTokenizer) -> None:
        self.pitch, self.style = pitch, style
        sizes = {UNITS: units.cardinalities[0], PITCH: pitch.cardinality, STYLE: style.cardinality, MARK: 1}
        self.alphabet = Alphabet(sizes=sizes, origin="".join((units.fingerprint, pitch.fingerprint, style.fingerprint)))

    @classmethod
    def fit(cls, heard: Sequence[Heard], units: StreamInfo, config: ExpressiveConfig) -> Merged:
        """Of training recordings."""
        source = ProsodySource(contours=[one.contour for one in heard], units=units, seed=config.parts.seed)
        return cls(units, PitchTokenizer.fit(source, config.pitches), StyleTokenizer.fit(source, config.styles))

    def flat(self, heard: Heard) -> Flat:
        """See `FlatStream.flat`: a window says nothing before it is over."""
        seconds, edges = len(heard.contour) / RATE, heard.edges
        pitch, style = self.pitch.tokens(heard.contour), self.style.tokens(heard.contour)
        ends = [np.arange(1, len(ids) + 1) * span for ids, span in ((pitch, FRAMES / RATE), (style, 1.0))]
        for found in ends:
            found[-1] = seconds
        times = np.concatenate([(edges[1:] + edges[:-1]) / 2, *ends])
        blocks = {UNITS: heard.units, PITCH: pitch, STYLE: style}
        ids = np.concatenate([self.alphabet.ids(block, local) for block, local in blocks.items()])
        order = np.argsort(times, kind="stable")
        return Flat(ids=ids[order], times=times[order])


def text_nats(run: Evaluation) -> Counted:
    """Of held-out sentences: exp of the rate is the perplexity of a letter."""
    return nats(run, continued(run, "lm", "text", run.rows(run.split, "text_ids")))


def check_expressive(given: Bench) -> Figures:
    """The class of prosody of continuations, with pitch and style given and without; perplexity of text."""
    config = settings_of(given, ExpressiveConfig)
    bench = ProsodyBench(given, config, lambda heard, units: Merged.fit(heard, units, config))
    judge = judge_of(bench)
    figures = judge_figures("c27", judge, trials(bench.shards))
    start, options = bench.start(TEXT), ExampleOptions(interleave_words=config.interleave_words)
    before = text_nats(bench.evaluation(bench.train("start", TEXT, seed=config.seed, steps=config.start_steps)))
    figures["c27.before.text.ppl"] = float(np.exp(before.rate))

    def arm(name: str, shards: Shards) -> list[Kept]:
        asked = trials(shards)
        found = bench.over_seeds(
            name, TASKS, lambda run: (kept(run, judge, asked, config.temperature), text_nats(run)),
            start=start, options=options, shards=shards,
        )  # fmt: skip
        texts = [text for _, text in found]
        figures.update(over_seeds(f"c27.{name}.text.ppl", [float(np.exp(one.rate)) for one in texts]))
        figures.update(bench.compared(f"c27.{name}.text_nats_over_before", texts, [before] * len(texts)))
        return [one for one, _ in found]

    arms = {"expressive": arm("expressive", bench.shards), "base": arm("base", bench.untold)}
    return figures | kept_figures("c27", bench, arms)


SYSTEM = System(
    name="expressive",
    title="Spirit-LM Expressive",
    row="C27",
    sentences=600,
    test_sentences=100,
    settings=ExpressiveConfig,
    check=check_expressive,
    differs="a text model of letters, trained here; stretches of two words; tokens of prosody stand where what they "
    "tell is over, so that a beginning knows nothing of what follows; three contours of the toy corpus, which move "
    "evenly over a sentence: its first half is given, its second half is judged; units alone are spoken by a model "
    "that was not given pitch and style, not by a vocoder",
    measures="the class of prosody (flat, rise, fall) of continuations, given units with pitch and style or units "
    "alone, by a judge of pitch ids; of the same words in all classes the likeliest; perplexity of text before and "
    "after",
    targets=kept_targets("c27", "expressive", "base"),
    measured=(
        Measured(
            "unitok systems run expressive",
            {
                "c27.base.choice": 0.333,
                "c27.base.choice.interval": 0.0,
                "c27.base.judged": 0.994,
                "c27.base.match": 0.333,
                "c27.base.match.interval": 0.164,
                "c27.base.text.ppl": 1.9,
                "c27.base.text.ppl.interval": 0.00272,
                "c27.base.text_nats_over_before": -0.00479,
                "c27.base.text_nats_over_before.high": 0.000657,
                "c27.base.text_nats_over_before.low": -0.0104,
                "c27.before.text.ppl": 1.9,
                "c27.chance": 0.333,
                "c27.expressive.choice": 0.933,
                "c27.expressive.choice.interval": 0.0207,
                "c27.expressive.judged": 0.992,
                "c27.expressive.match": 0.939,
                "c27.expressive.match.interval": 0.0521,
                "c27.expressive.text.ppl": 1.9,
                "c27.expressive.text.ppl.interval": 0.0187,
                "c27.expressive.text_nats_over_before": -0.000119,
                "c27.expressive.text_nats_over_before.high": 0.0052,
                "c27.expressive.text_nats_over_before.low": -0.00523,
                "c27.judge.accuracy": 0.967,
                "c27.match_over_untold": 0.606,
                "c27.match_over_untold.high": 0.667,
                "c27.match_over_untold.low": 0.547,
                "c27.sentences": 40.0,
            },
            "f0e0442",
        ),
    ),
)
