"""VoxtLM (Maiti et al. 2023): recognition, synthesis and both kinds of continuation by one model, beside single tasks.

unitok systems run voxtlm -o runs/voxtlm
unitok systems run voxtlm -o runs/voxtlm_singles --set 'singles=[tts.units, asr, lm, slm]'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_parts import PartsConfig
from unitok_training.systems.base.token_scores import continued, in_order, nats, recognized, spoken
from unitok_training.trainer.config import TrainConfig

TASKS: Mapping[str, float] = {"asr": 1.0, "tts.units": 1.0, "lm": 1.0, "slm": 1.0}
"""The four tasks, each as often as the others."""


@dataclass(frozen=True, kw_only=True)
class VoxtlmConfig(TokenBenchConfig):
    """What the check depends on."""

    transcribed: int = 200
    """Spoken training sentences whose text the decoder is shown: speech with its text is the rarest."""
    spoken: int = 1200
    """Training sentences beside the corpus, spoken."""
    texts: int = 1000
    """Training sentences beside all spoken ones, as text alone."""
    train: TrainConfig = field(
        default_factory=lambda: replace(TokenBenchConfig().train, steps=400, label_smoothing=0.1)
    )
    """Training of an arm; the seed is that of the arm."""
    singles: tuple[str, ...] = ("tts.units",)
    """Tasks that are also trained alone, each for as many decoder tokens as all four together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [one for one in self.singles if one not in TASKS]:
            raise InputError(f"singles holds {unknown[0]!r}; choose from {', '.join(TASKS)}")


def check_voxtlm(given: Bench) -> Figures:
    """Four scores of one checkpoint, and those of models of one task each."""
    config = settings_of(given, VoxtlmConfig)
    bench = TokenBench(given, config)

    def scored(tasks: Mapping[str, float]) -> dict[str, list[Counted]]:
        """Task → a score for each seed, of a model of these tasks."""

        def one_seed(run: Evaluation) -> dict[str, Counted]:
            some, every = bench.some(run, "units", "text_ids"), run.rows(run.split, "units", "text_ids")
            found: dict[str, Counted] = {}
            if "asr" in tasks:
                found["asr.wer"] = recognized(run, some)
            if "tts.units" in tasks:
                found["tts.wer"] = spoken(run, some, bench.parts.oracle)
            if "lm" in tasks:
                found["lm.nats"] = nats(run, continued(run, "lm", "text", every))
            if "slm" in tasks:
                found["slm.nats"] = nats(run, continued(run, "slm", "units", every))
                found["slm.order.accuracy"] = in_order(run, every)
            return found

        arm = "together" if len(tasks) > 1 else next(iter(tasks)).partition(".")[0]
        by_seed = bench.over_seeds(arm, tasks, one_seed)
        return {key: [one[key] for one in by_seed] for key in by_seed[0]}

    figures, together = bench.oracle_figures("c18"), scored(TASKS)
    for key, parts in together.items():
        figures |= figures_of(f"c18.together.{key}", parts)
    for task in config.singles:
        for key, parts in scored({task: 1.0}).items():
            figures |= figures_of(f"c18.alone.{key}", parts)
            figures |= bench.compared(f"c18.over_alone.{key}", together[key], parts)
    return figures


def figures_of(key: str, parts: list[Counted]) -> Figures:
    """Mean and interval over seeds; of nats the perplexity."""
    if key.endswith(".nats"):
        return over_seeds(f"{key.removesuffix('nats')}ppl", [float(np.exp(one.rate)) for one in parts])
    return over_seeds(key, [one.rate for one in parts])


FOUR = {"asr.wer": 1.0, "tts.wer": 1.0, "lm.ppl": 26.0, "slm.ppl": float(PartsConfig().clusters)}
"""A score for each task → what it is where nothing is learned: as many errors as words, all letters or units alike."""

SYSTEM = System(
    name="voxtlm",
    title="VoxtLM",
    row="C18, D17",
    sentences=600,
    test_sentences=100,
    settings=VoxtlmConfig,
    check=check_voxtlm,
    differs="from scratch, without a text model or unit-BPE; control tokens of ours, one for each of its four",
    measures="word errors of recognition and of synthesis, the latter heard by the oracle, perplexity of text and of "
    "units from one checkpoint; the same of models of one task, with as many decoder tokens in all",
    targets=(
        oracle_target("c18"),
        Target(
            "four tasks of one checkpoint: fewer errors than words, perplexities below the number of ids",
            lambda f: all(f[f"c18.together.{key}"] < most for key, most in FOUR.items()),
        ),
        Target("synthesis errs less than alone", lambda f: f["c18.together.tts.wer"] < f["c18.alone.tts.wer"]),
        Target("… on these sentences, not by chance", lambda f: f["c18.over_alone.tts.wer.high"] < 0),
    ),
    measured=(
        Measured(
            "unitok systems run voxtlm",
            {
                "c18.alone.tts.wer": 0.805,
                "c18.alone.tts.wer.interval": 0.115,
                "c18.oracle.accuracy": 0.994,
                "c18.over_alone.tts.wer": -0.0965,
                "c18.over_alone.tts.wer.high": -0.0282,
                "c18.over_alone.tts.wer.low": -0.165,
                "c18.together.asr.wer": 0.364,
                "c18.together.asr.wer.interval": 0.067,
                "c18.together.lm.ppl": 2.25,
                "c18.together.lm.ppl.interval": 0.0255,
                "c18.together.slm.order.accuracy": 1.0,
                "c18.together.slm.order.accuracy.interval": 0.0,
                "c18.together.slm.ppl": 3.66,
                "c18.together.slm.ppl.interval": 0.0269,
                "c18.together.tts.wer": 0.709,
                "c18.together.tts.wer.interval": 0.145,
            },
            "f0e0442",
        ),
    ),
)
