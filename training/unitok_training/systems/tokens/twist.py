"""TWIST (Hassid et al. 2023): a speech language model that begins as one of text, beside one from scratch (C22).

unitok systems run twist -o runs/twist
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, Sampled, System, Target
from unitok_training.systems.base.token_bench import TokenBench, TokenBenchConfig, oracle_target, settings_of
from unitok_training.systems.base.token_scores import continued, in_order, nats
from unitok_training.trainer.config import TrainConfig

VALIDATIONS = 40
"""Validations of a training: the step at which a loss is reached is known to so many parts of it."""


@dataclass(frozen=True, kw_only=True)
class TwistConfig(TokenBenchConfig):
    """What the check depends on."""

    idle: ClassVar[Mapping[str, str]] = {
        "train.eval_every": f"every training is validated {VALIDATIONS} times",
        "train.take_best": "the best of the validations is always taken",
    }

    texts: int = 4000
    """Training sentences beside all spoken ones, as text alone: there is more text than speech."""
    start_steps: int = 400
    """Updates on text alone of what arms start from."""
    train: TrainConfig = field(default_factory=lambda: replace(TokenBenchConfig().train, eval_batches=4))
    """Training of an arm; the seed is that of the arm."""


@dataclass(frozen=True, kw_only=True)
class Reached:
    """When one training reaches the best loss of another."""

    share: float
    """Steps that it takes ÷ steps of the other; where it does not get there, all of its steps count."""
    there: bool
    """Whether it gets there."""


def reached(warm: Sequence[Mapping[str, Any]], cold: Sequence[Mapping[str, Any]]) -> Reached:
    """By rows of validations, each with its `step` and `loss`."""
    best = min(cold, key=lambda row: row["loss"])
    for row in warm:
        if row["loss"] <= best["loss"]:
            return Reached(share=row["step"] / best["step"], there=True)
    return Reached(share=max(1.0, warm[-1]["step"] / best["step"]), there=False)


def check_twist(given: Bench) -> Figures:
    """Steps to the cold start's best loss, and what both know of units in the end."""
    config = settings_of(given, TwistConfig)
    every = max(1, config.train.steps // VALIDATIONS)
    config = replace(config, train=replace(config.train, eval_every=every, take_best=True))
    bench = TokenBench(given, config)
    figures = bench.oracle_figures("c17")

    def scored(run: Evaluation) -> tuple[Counted, Counted]:
        rows = run.rows(run.split, "units")
        return nats(run, continued(run, "slm", "units", rows)), in_order(run, rows)

    start = bench.start({"lm": 1.0})
    arms = {"warm": bench.over_seeds("warm", {"slm": 1.0}, scored, start=start)}
    arms["cold"] = bench.over_seeds("cold", {"slm": 1.0}, scored)
    for arm, found in arms.items():
        figures |= over_seeds(f"c17.{arm}.ppl", [float(np.exp(one.rate)) for one, _ in found])
        figures |= over_seeds(f"c17.{arm}.order.accuracy", [order.rate for _, order in found])
        best = [min(row["loss"] for row in bench.validations(arm, seed)) for seed in bench.seeds]
        figures |= over_seeds(f"c17.{arm}.best_loss", best)
    figures |= bench.compared("c17.nats_over_cold", *([one for one, _ in arms[arm]] for arm in ("warm", "cold")))
    steps = [reached(bench.validations("warm", seed), bench.validations("cold", seed)) for seed in bench.seeds]
    figures |= over_seeds("c17.steps_share", [one.share for one in steps])
    figures["c17.steps_share.most"] = max(one.share for one in steps)
    return figures | {"c17.reached": float(np.mean([one.there for one in steps])), "c17.seeds": float(config.seeds)}


SYSTEM = System(
    name="twist",
    title="TWIST, and no text first",
    row="C17, C22",
    sentences=600,
    test_sentences=100,
    settings=TwistConfig,
    check=check_twist,
    differs="a text model of letters from a toy corpus, trained here; its rows stay beside those of the units",
    measures="steps that a start from text takes to the best validation loss of a start from nothing, with the same "
    "seeds; perplexity of units and words in order of the best of both",
    targets=(
        oracle_target("c17"),
        Target(
            "from text, the best loss from nothing in half of its steps, with every seed of three",
            lambda f: f["c17.seeds"] >= 3 and f["c17.steps_share.most"] <= 0.5 and f["c17.reached"] == 1,
        ),
        Target("units are less perplexing in the end", lambda f: f["c17.nats_over_cold.high"] < 0),
    ),
    measured=(
        Measured(
            "unitok systems run twist",
            {
                "c17.cold.best_loss": 1.26,
                "c17.cold.best_loss.interval": 0.105,
                "c17.cold.order.accuracy": 1.0,
                "c17.cold.order.accuracy.interval": 0.0,
                "c17.cold.ppl": 3.81,
                "c17.cold.ppl.interval": 0.0437,
                "c17.nats_over_cold": -0.0439,
                "c17.nats_over_cold.high": -0.0268,
                "c17.nats_over_cold.low": -0.0595,
                "c17.oracle.accuracy": 0.994,
                "c17.reached": 0.667,
                "c17.seeds": 3.0,
                "c17.steps_share": 1.57,
                "c17.steps_share.interval": 2.78,
                "c17.steps_share.most": 2.86,
                "c17.warm.best_loss": 1.24,
                "c17.warm.best_loss.interval": 0.0793,
                "c17.warm.order.accuracy": 1.0,
                "c17.warm.order.accuracy.interval": 0.0,
                "c17.warm.ppl": 3.64,
                "c17.warm.ppl.interval": 0.0757,
            },
            "193ca92",
        ),
    ),
    sampled=(
        Sampled(
            arm="warm",
            task="lm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.0,
            eos_share=0.582,
            commit="4c63b0b",
        ),
        Sampled(
            arm="warm",
            task="slm",
            endless_loops=0,
            loops_cut=0,
            runaway=0,
            empty_share=0.0,
            eos_share=1.0,
            commit="4c63b0b",
        ),
    ),  # fmt: skip
)
