"""VALL-E 2 (Chen et al. 2024): sampling that leaves loops, and two frames a step.

unitok systems run valle2 -o runs/valle2

Two small models of made-up units say what the sampling does: `looping` has learned that a unit is likeliest to come
again, `walking` that the one behind it is likeliest to come. By nucleus sampling the first stays where it is for ever;
in what the second says nothing comes twice within the window, so that there is nothing to draw again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.sequence import SequenceSpec
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.code_bench import (
    CodeBench,
    CodeBenchConfig,
    sounds,
    text_prompts,
    written,
)
from unitok_training.systems.base.intervals import Counted, over_seeds
from unitok_training.systems.base.system import Measured, System, Target
from unitok_training.systems.base.token_bench import Build, oracle_target, settings_of
from unitok_training.train import train_model
from unitok_training.trainer.config import TrainConfig

PLAIN = ExampleOptions(voice_share=0.0)
CHAINS: Mapping[str, int] = {"looping": 0, "walking": 1}
"""Model → how far the likeliest next unit is from the last one."""
UNITS = 64
"""Of the made-up stream."""
CHAIN_PACK = 1024
"""Positions of a pack of it."""
MADE_UP = StreamInfo("units", "units", "made up", Fraction(25), (UNITS,))


@dataclass(frozen=True, kw_only=True)
class Valle2Config(CodeBenchConfig):
    """What the check depends on."""

    train: TrainConfig = field(default_factory=lambda: replace(CodeBenchConfig().train, steps=400, pack_size=2048))
    """Training of an arm, were its codes in a flat stream; the seed is that of the arm."""
    chain_decoder: Shape = field(default_factory=lambda: Shape(width=64, layers=1, heads=2, kv_heads=1))
    """The models of made-up units."""
    chain_steps: int = 150
    """Updates of these."""
    likeliest: float = 0.25
    """Share of the likeliest next unit in what `looping` learns; any other is as likely as another."""
    walks: float = 0.9
    """The same of `walking`."""
    top_p: float = 0.15
    """Of the nucleus: less than that share, so that nothing else is ever drawn."""
    window: int = 10
    """Units that repetition-aware sampling looks back at."""
    share: float = 0.1
    """Of the window that a unit may fill."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.top_p < self.likeliest < 1 or not self.top_p < self.walks < 1:
            raise InputError(
                f"top_p is {self.top_p}, likeliest {self.likeliest}, walks {self.walks}: a nucleus holds the likeliest "
                "unit alone where it is smaller than that unit's share"
            )
        if self.chain_steps < 1 or self.window < 1:
            raise InputError(f"chain_steps is {self.chain_steps}, window {self.window}: both must be 1 or more")


# -- sampling -----------------------------------------------------------------------------------------------------


def chain(distance: int, likeliest: float, length: int, random: np.random.Generator) -> np.ndarray:
    """(length,) units, each of them, with a probability, so far from the last one; else any."""
    found = random.integers(UNITS, size=length)
    for place in np.flatnonzero(random.random(length - 1) < likeliest) + 1:
        found[place] = (found[place - 1] + distance) % UNITS
    return found


def chain_model(bench: CodeBench, name: str, config: Valle2Config) -> Model:
    """A model of made-up units, which is trained unless it is there."""
    run = bench.run / name
    if not (run / "model" / "unitok.json").exists():
        random = np.random.default_rng([config.seed, CHAINS[name]])
        lang, share = config.parts.languages[0], config.walks if CHAINS[name] else config.likeliest
        rows = [
            Row(
                id=f"{name}-{number}", group=str(number), lang=lang,
                tokens={"units": chain(CHAINS[name], share, int(random.integers(40, 80)), random)},
            )
            for number in range(config.parts.sentences)
        ]  # fmt: skip
        text = TokenizerSet.of(bench.parts.tokenizers.text)
        if not (run / "tokenizers").exists():
            text.save(run / "tokenizers")
        shards = prepare_shards(rows, text, run / "shards", external={"units": MADE_UP})
        bench.report(f"{name}: {config.chain_steps} steps")
        recipe = DecoderRecipe(
            name=name, decoder=config.chain_decoder, mixture=Mixture(tasks={"slm": 1.0}),
            train=replace(config.train, seed=config.seed, steps=config.chain_steps, pack_size=CHAIN_PACK),
        )  # fmt: skip
        train_model(recipe, shards=shards.folder, tokenizers=run / "tokenizers", out=run)
    return Model.load(run / "model")


def made_up(model: Model, count: int, sampling: Sampling, seed: int) -> list[np.ndarray]:
    """(N,) units of so many utterances that a model makes up."""
    request = PromptRequest(plan=SequenceSpec("slm", model.languages[0], None, (OUT_UNITS,)))
    found = model.run(seeded([request] * count, seed), sampling=sampling)
    return [np.concatenate([np.zeros(0, np.int64), *(span.content for span in one.outputs)]) for one in found]


def longest_run(units: np.ndarray) -> int:
    """Length of the longest stretch of one unit."""
    if not len(units):
        return 0
    edges = np.flatnonzero(np.diff(units)) + 1
    return int(np.diff(np.concatenate([[0], edges, [len(units)]])).max())


def sampling_figures(bench: CodeBench, config: Valle2Config) -> Figures:
    """How long utterances stay at one unit, and how many the sampling changes, of both models."""
    nucleus = Sampling(temperature=1.0, top_p=config.top_p, loop_guard=False)
    aware = replace(nucleus, repetition_window=config.window, repetition_share=config.share)
    figures: Figures = {}
    for name in CHAINS:
        model = chain_model(bench, name, config)
        said = {
            way: made_up(model, config.limit, sampling, config.seed)
            for way, sampling in (("nucleus", nucleus), ("aware", aware))
        }
        for way, found in said.items():
            runs = np.array([longest_run(one) for one in found])
            figures[f"c24.{name}.{way}.looping"] = float(np.mean(runs > config.window))
            figures[f"c24.{name}.{way}.longest_run"] = float(runs.max())
        same = [np.array_equal(one, other) for one, other in zip(said["nucleus"], said["aware"])]
        figures[f"c24.{name}.changed"] = 1.0 - float(np.mean(same))
    return figures


# -- groups -------------------------------------------------------------------------------------------------------


def builds(bench: CodeBench) -> dict[str, Build]:
    """Arm → what it is built of: one frame a step, and two."""
    grouped = ModelChoice(layout="group", frames=2, refined=False, reads_id=True)
    return {
        "single": Build(model=ModelChoice(layout="parallel", reads_id=True), pack_size=bench.pack_of(1)),
        "grouped": Build(model=grouped, pack_size=bench.pack_of(0.5)),
    }


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model said of some texts."""

    errors: Counted
    """Words that the oracle heard otherwise."""
    steps: float
    """Ids of the decoder, marks included, by frame."""


def said(bench: CodeBench, run: Evaluation, rows: Sequence[int], temperature: float) -> Said:
    """Have some texts said in codes."""
    found = written(run, text_prompts(run, rows), Sampling(temperature=temperature))
    texts, langs = [run.text(row) for row in rows], [run.lang(row) for row in rows]
    frames = sum(len(span) for one in found for span in one.outputs)
    return Said(
        errors=bench.parts.oracle.errors(sounds(found), texts, langs),
        steps=sum(len(one.ids) for one in found) / max(frames, 1),
    )


def check_valle2(given: Bench) -> Figures:
    """Loops with and without repetition-aware sampling; steps and word errors of one frame a step and of two."""
    config = settings_of(given, Valle2Config)
    bench = CodeBench(given, config)
    figures = bench.oracle_figures("c24") | sampling_figures(bench, config)
    errors: dict[str, list[Counted]] = {}
    for arm, build in builds(bench).items():
        found = bench.over_seeds(
            arm, {"vtts": 1.0}, lambda run: said(bench, run, bench.some(run, "codes", "text_ids"), config.temperature),
            options=PLAIN, build=build,
        )  # fmt: skip
        errors[arm] = [one.errors for one in found]
        figures |= over_seeds(f"c24.{arm}.wer", [one.rate for one in errors[arm]])
        figures |= over_seeds(f"c24.{arm}.steps_per_frame", [one.steps for one in found])
    figures["c24.steps_ratio"] = figures["c24.grouped.steps_per_frame"] / figures["c24.single.steps_per_frame"]
    return figures | bench.compared("c24.wer_over_single", errors["grouped"], errors["single"])


SYSTEM = System(
    name="valle2",
    title="VALL-E 2",
    row="C24",
    sentences=600,
    test_sentences=100,
    settings=Valle2Config,
    check=check_valle2,
    differs="the model that loops is one of made-up units, under a nucleus that holds the likeliest unit alone; "
    "codebooks behind the first are predicted by parallel heads of the same step, not by a second pass; no "
    "voice prompt",
    measures="utterances that stay at one unit for longer than the window, by a model made to loop, with nucleus and "
    "with repetition-aware sampling, and what of another model's utterances the latter changes; steps by frame and "
    "word errors heard by the oracle, of one frame a step and of two",
    targets=(
        oracle_target("c24"),
        Target("the model made to loop loops", lambda f: f["c24.looping.nucleus.looping"] >= 0.95),
        Target("repetition-aware sampling leaves no loop", lambda f: f["c24.looping.aware.looping"] == 0),
        Target("what does not repeat itself stays as it is", lambda f: f["c24.walking.changed"] == 0),
        Target("two frames a step halve the steps", lambda f: f["c24.steps_ratio"] <= 0.55),
    ),
    measured=(
        Measured(
            "unitok systems run valle2",
            {
                "c24.grouped.steps_per_frame": 0.565,
                "c24.grouped.steps_per_frame.interval": 0.00282,
                "c24.grouped.wer": 1.23,
                "c24.grouped.wer.interval": 0.267,
                "c24.looping.aware.longest_run": 3.0,
                "c24.looping.aware.looping": 0.0,
                "c24.looping.changed": 0.65,
                "c24.looping.nucleus.longest_run": 50.0,
                "c24.looping.nucleus.looping": 0.4,
                "c24.oracle.accuracy": 0.967,
                "c24.single.steps_per_frame": 1.05,
                "c24.single.steps_per_frame.interval": 0.00281,
                "c24.single.wer": 0.842,
                "c24.single.wer.interval": 0.154,
                "c24.steps_ratio": 0.537,
                "c24.walking.aware.longest_run": 1.0,
                "c24.walking.aware.looping": 0.0,
                "c24.walking.changed": 0.0,
                "c24.walking.nucleus.longest_run": 1.0,
                "c24.walking.nucleus.looping": 0.0,
                "c24.wer_over_single": 0.384,
                "c24.wer_over_single.high": 0.506,
                "c24.wer_over_single.low": 0.26,
            },
            "801c6a5",
        ),
    ),
)
