"""Spirit-LM Base (Nguyen et al. 2024): text and units that take turns at words, beside whole sentences and no turns.

unitok systems run spirit_lm -o runs/spirit_lm

Three arms of equal steps from one text model: `words` sees text, speech and both in turn, changing at words; `pairs`
sees speech with its text as recognition and synthesis instead, and the turns of whole sentences, so that it too knows
the marks; `apart` sees text and speech, never together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_training.data.example_options import ExampleOptions
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, Sampled, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_scores import continued, halves, nats, topic_cloze
from unitok_training.trainer.config import TrainConfig

ARMS: Mapping[str, Mapping[str, float]] = {
    "words": {"lm": 1.0, "slm": 1.0, "ilm": 1.0},
    "pairs": {"lm": 1.0, "slm": 1.0, "asr": 0.4, "tts.units": 0.4, "ilm": 0.2},
    "apart": {"lm": 1.0, "slm": 1.0},
}
"""Arm → tasks. A third each of text, of speech and of what joins them, where something does."""
WAYS = (("text", "units"), ("units", "text"))
"""What is given in a cloze, and what is chosen."""


@dataclass(frozen=True, kw_only=True)
class SpiritConfig(TokenBenchConfig):
    """What the check depends on."""

    spoken: int = 1200
    """Training sentences beside the corpus, spoken."""
    texts: int = 2000
    """Training sentences beside all spoken ones, as text alone."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, steps=300))
    """Training of an arm; the seed is that of the arm."""
    interleave_words: float = 2.0
    """Mean length of a stretch of one modality, in words: sentences are of three to six."""
    foils: int = 4
    """Second halves about something else that each right one is compared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.foils < 1:
            raise InputError(f"foils is {self.foils}: compare each half with 1 or more")
        if self.parts.topics < 2:
            raise InputError("parts.topics is 1: halves about something else need two topics or more")


def check_spirit_lm(given: Bench) -> Figures:
    """Second halves that fit what the first was about, across modalities; perplexity of text before and after."""
    config = settings_of(given, SpiritConfig)
    bench = TokenBench(given, config)
    figures = bench.oracle_figures("c27")

    def text_nats(run: Evaluation) -> Counted:
        return nats(run, continued(run, "lm", "text", run.rows(run.split, "text_ids")))

    def scored(run: Evaluation) -> dict[str, Counted]:
        rows, found = run.rows(run.split, "units", "text_ids"), {"text": text_nats(run)}
        for first, second in WAYS:
            sentences = halves(run, rows, first=first, second=second, topics=config.parts.topics)
            found[f"{first}_to_{second}"] = topic_cloze(run, sentences, foils=config.foils)
        return found

    start = bench.start({"lm": 1.0})
    before = text_nats(bench.evaluation(bench.train("start", {"lm": 1.0}, seed=config.seed, steps=config.start_steps)))
    figures["c27.before.text.ppl"] = float(np.exp(before.rate))
    options = ExampleOptions(interleave_words=config.interleave_words)
    whole = bench.shards_of("shards_of_sentences", aligned=False)
    found = {
        arm: bench.over_seeds(
            arm, tasks, scored, start=start, options=options, shards=whole if arm == "pairs" else None
        )
        for arm, tasks in ARMS.items()
    }
    for arm, parts in found.items():
        figures |= over_seeds(f"c27.{arm}.text.ppl", [float(np.exp(one["text"].rate)) for one in parts])
        for way in ("text_to_units", "units_to_text"):
            figures |= over_seeds(f"c27.{arm}.{way}.accuracy", [one[way].rate for one in parts])
            if arm != "words":
                pair = ([one[way] for one in found["words"]], [one[way] for one in parts])
                figures |= bench.compared(f"c27.over_{arm}.{way}", *pair)
    words = found["words"]
    figures |= bench.compared("c27.text_nats_over_before", [one["text"] for one in words], [before] * len(words))
    return figures | {"c27.chance": 0.5, "c27.cloze.sentences": float(len(words[0]["text_to_units"].counts))}


SYSTEM = System(
    name="spirit_lm",
    title="Spirit-LM Base",
    row="C27",
    sentences=600,
    test_sentences=100,
    settings=SpiritConfig,
    check=check_spirit_lm,
    differs="a text model of letters, trained here; stretches of two words; a toy corpus of two topics: a story is a "
    "sentence, and its cloze has two choices",
    measures="choices of the second half of a sentence, given the first in the other modality, by arms of equal steps "
    "from one text model: turns at words, sentences with their text, both kinds apart; perplexity of text before and "
    "after",
    targets=(
        oracle_target("c27"),
        Target("turns at words above sentences with their text", lambda f: f["c27.over_pairs.text_to_units.low"] > 0),
        Target("… and from speech to text", lambda f: f["c27.over_pairs.units_to_text.low"] > 0),
        Target("turns at words above both kinds apart", lambda f: f["c27.over_apart.text_to_units.low"] > 0),
        Target("… from speech to text too", lambda f: f["c27.over_apart.units_to_text.low"] > 0),
    ),
    measured=(
        Measured(
            "unitok systems run spirit_lm",
            {
                "c27.apart.text.ppl": 1.9,
                "c27.apart.text.ppl.interval": 0.01,
                "c27.apart.text_to_units.accuracy": 0.509,
                "c27.apart.text_to_units.accuracy.interval": 0.0596,
                "c27.apart.units_to_text.accuracy": 0.493,
                "c27.apart.units_to_text.accuracy.interval": 0.0534,
                "c27.before.text.ppl": 1.91,
                "c27.chance": 0.5,
                "c27.cloze.sentences": 94.0,
                "c27.oracle.accuracy": 0.994,
                "c27.over_apart.text_to_units": 0.24,
                "c27.over_apart.text_to_units.high": 0.293,
                "c27.over_apart.text_to_units.low": 0.185,
                "c27.over_apart.units_to_text": 0.186,
                "c27.over_apart.units_to_text.high": 0.244,
                "c27.over_apart.units_to_text.low": 0.127,
                "c27.over_pairs.text_to_units": 0.223,
                "c27.over_pairs.text_to_units.high": 0.274,
                "c27.over_pairs.text_to_units.low": 0.17,
                "c27.over_pairs.units_to_text": 0.192,
                "c27.over_pairs.units_to_text.high": 0.255,
                "c27.over_pairs.units_to_text.low": 0.125,
                "c27.pairs.text.ppl": 1.91,
                "c27.pairs.text.ppl.interval": 0.0131,
                "c27.pairs.text_to_units.accuracy": 0.526,
                "c27.pairs.text_to_units.accuracy.interval": 0.0628,
                "c27.pairs.units_to_text.accuracy": 0.487,
                "c27.pairs.units_to_text.accuracy.interval": 0.0288,
                "c27.text_nats_over_before": -0.000765,
                "c27.text_nats_over_before.high": 0.00464,
                "c27.text_nats_over_before.low": -0.00625,
                "c27.words.text.ppl": 1.91,
                "c27.words.text.ppl.interval": 0.00719,
                "c27.words.text_to_units.accuracy": 0.749,
                "c27.words.text_to_units.accuracy.interval": 0.0387,
                "c27.words.units_to_text.accuracy": 0.679,
                "c27.words.units_to_text.accuracy.interval": 0.134,
            },
            "fbadfe9",
        ),
    ),
    sampled=(
        Sampled(
            arm="words",
            task="lm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.0,
            eos_share=1.0,
            commit="4c63b0b",
        ),
        Sampled(
            arm="words",
            task="slm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.0,
            eos_share=1.0,
            commit="4c63b0b",
        ),
        Sampled(
            arm="words",
            task="ilm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.001,
            eos_share=1.0,
            commit="4c63b0b",
        ),
    ),  # fmt: skip
)
