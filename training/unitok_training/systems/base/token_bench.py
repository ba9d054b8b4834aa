"""The bench of systems that read and write one flat stream of tokens: warm starts, arms that are trained with several
seeds and kept, figures with intervals.

A run that is repeated goes on where it stopped: parts, shards and finished models are kept, a training goes on from its
newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from unitok.model import Model
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import check_seed
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.mixture import Mixture
from unitok_training.evaluation.run import Evaluation
from unitok_training.recipes.base import Shape
from unitok_training.recipes.config import overridden
from unitok_training.recipes.decoder import DecoderRecipe
from unitok_training.recipes.layout import ModelChoice
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.intervals import Counted, compared
from unitok_training.systems.base.system import Target
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts, transcribed
from unitok_training.train import train_model
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.metrics import VALIDATION_FILE, read_metrics
from unitok_training.trainer.optimizer import OptimConfig

MOST_SEEDS = 10
READS = 0.95
"""Share of words that the oracle must read in resynthesized speech before it judges."""
QUICK = (
    "parts.sentences=12", "parts.test_sentences=8", "parts.clusters=12", "parts.encoder.steps=1",
    "parts.synthesizer_steps=2", "decoder.width=32", "decoder.layers=1", "decoder.heads=2", "decoder.kv_heads=1",
    "train.steps=2", "train.pack_size=512", "train.window=16", "train.optim.warmup_steps=1", "start_steps=2", "seeds=2",
    "spoken=3", "texts=20",
    "resamples=20", "limit=2",
)  # fmt: skip
"""Overrides by which a check runs through in seconds: its figures mean nothing."""


@dataclass(frozen=True, kw_only=True)
class TokenBenchConfig:
    """What a check on flat tokens depends on."""

    splits: ClassVar[tuple[str, ...]] = ("test", "dev")
    """Held-out sentences that the check can score."""
    idle: ClassVar[Mapping[str, str]] = {}
    """Settings that this check does not read → what decides instead."""

    parts: PartsConfig = field(default_factory=PartsConfig)
    """Corpus, tokenizers, synthesizer."""
    parts_folder: str = ""
    """Where they are kept, for several runs to share; in the run's own folder where empty."""
    spoken: int = 0
    """Training sentences beside the corpus, which tokenizers are not fitted to, spoken once a language."""
    texts: int = 0
    """Training sentences beside all spoken ones, as text alone."""
    transcribed: int = 0
    """Spoken training sentences whose text the decoder is shown; 0 for all."""
    decoder: Shape = field(default_factory=lambda: Shape(width=128, layers=4, heads=4, kv_heads=2))
    """The decoder."""
    train: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=400, pack_size=1024, packs_per_step=1, window=1024, log_every=50, checkpoint_every=100,
            optim=OptimConfig(name="muon", learning_rate=2e-3, warmup_steps=20, schedule="linear"),
        )
    )  # fmt: skip
    """Training of an arm; the seed is that of the arm."""
    start_steps: int = 200
    """Updates on text alone of what arms start from."""
    seeds: int = 3
    """Trainings of each arm."""
    resamples: int = 1000
    """Draws of a paired bootstrap."""
    limit: int = 40
    """Most held-out sentences that are spoken and read."""
    seed: int = 0
    """First seed of the trainings, and seed of every draw of the scores."""
    split: str = "test"
    """Which held-out sentences are scored, by their voices; `dev` is for trying settings."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"seeds is {self.seeds}: train each arm 1 to {MOST_SEEDS} times")
        if self.split not in self.splits:
            raise InputError(f"split is {self.split!r}: this check scores {' or '.join(self.splits)}")
        for name in ("start_steps", "resamples", "limit"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        for name in ("spoken", "texts", "transcribed"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 or more")


def best_kept() -> TrainConfig:
    """Training of an arm of which the best of ten validations is taken: a little is soon known by heart."""
    return replace(TokenBenchConfig().train, eval_every=40, eval_batches=4, take_best=True)


@dataclass(frozen=True, kw_only=True)
class Build:
    """What an arm is built of, where it is not the settings' decoder over a flat stream."""

    decoder: Shape | None = None
    """The decoder; the settings' where None."""
    model: ModelChoice = field(default_factory=ModelChoice)
    """How codes meet it."""
    pack_size: int = 0
    """Most positions of a pack, in tokens; the settings' where 0."""


Config = TypeVar("Config", bound=TokenBenchConfig)
Scored = TypeVar("Scored")


def settings_of(bench: Bench, make: Callable[[], Config]) -> Config:
    """A check's settings after the run's sizes, seed, precision and overrides."""
    given, config = bench.config, make()
    parts = replace(config.parts, sentences=given.sentences, test_sentences=given.test_sentences, seed=given.seed)
    config = replace(config, parts=parts, seed=given.seed, train=given.precisely(config.train))
    for key in (one.partition("=")[0].strip() for one in given.overrides):
        if key in config.idle:
            raise InputError(f"{key} does nothing in this check: {config.idle[key]}; leave it out")
    return overridden(config, given.overrides)


class TokenBench:
    """A run folder in which flat-token systems are trained and scored."""

    Parts: ClassVar[type[TokenParts]] = TokenParts
    """What makes corpus and tokenizers."""
    parts: TokenParts

    def __init__(self, bench: Bench, config: TokenBenchConfig) -> None:
        self.run, self.config, self.report = bench.run, config, bench.report
        self.further: Sequence[Row] = ()
        """Rows beside the corpus, set before there are shards."""
        root = Path(config.parts_folder) if config.parts_folder else bench.run / "parts"
        self.parts = self.Parts(root, config.parts, precision=bench.config.precision, report=bench.report)

    @property
    def spoken_rows(self) -> list[Row]:
        """All recordings, with the text that the decoder is shown of them."""
        return transcribed([*self.parts.rows, *self.parts.spoken(self.config.spoken)], self.config.transcribed)

    @cached_property
    def shards(self) -> Shards:
        """All rows as tokens: those whose text is shown, those that are heard alone, and further texts."""
        return self.shards_of("shards")

    def shards_of(self, name: str, *, aligned: bool = True) -> Shards:
        """The same rows in a folder of a name; without the times of words in training rows where not `aligned`."""
        rows = self.spoken_rows
        rows += [*self.parts.texts(self.config.spoken, self.config.texts), *self.further]
        if not aligned:
            rows = [replace(row, words=()) if row.split == "train" else row for row in rows]
        return self.prepared(rows, name)

    def prepared(self, rows: Sequence[Row], name: str) -> Shards:
        """Rows as tokens, in a folder of a name."""
        return prepare_shards(rows, self.parts.tokenizers, self.run / name, keep_unreadable=False, trim=False)

    @cached_property
    def seeds(self) -> range:
        """Of the trainings."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def start(self, tasks: Mapping[str, float]) -> Path:
        """A decoder that has been trained on text alone, once for all arms."""
        self.train("start", tasks, seed=self.config.seed, steps=self.config.start_steps)
        return self.run / "start" / "model"

    def train(
        self,
        name: str,
        tasks: Mapping[str, float],
        *,
        seed: int,
        steps: int = 0,
        start: Path | None = None,
        options: ExampleOptions | None = None,
        shards: Shards | None = None,
        build: Build | None = None,
    ) -> Model:
        """The model of one training, which is made unless it is there; `name` is its folder, 0 steps the settings'."""
        out, data, built = self.run / name, shards or self.shards, build or Build()
        if not (out / "model" / "unitok.json").exists():
            train = replace(
                self.config.train, seed=seed, steps=steps or self.config.train.steps,
                pack_size=built.pack_size or self.config.train.pack_size,
            )  # fmt: skip
            self.report(f"{name}: {train.steps} steps")
            recipe = DecoderRecipe(
                name=name.replace("/", "_"), decoder=built.decoder or self.config.decoder, model=built.model,
                mixture=Mixture(tasks=tasks), plans=options or ExampleOptions(), train=train,
            )  # fmt: skip
            tokenizers = None if start is not None else self.parts.folder / "tokenizers"
            train_model(recipe, shards=data.folder, tokenizers=tokenizers, out=out, start=start)
        model = Model.load(out / "model")
        model.vocoder = self.parts.vocoder
        return model

    def over_seeds(
        self,
        arm: str,
        tasks: Mapping[str, float],
        scored: Callable[[Evaluation], Scored],
        *,
        start: Path | None = None,
        options: ExampleOptions | None = None,
        shards: Shards | None = None,
        build: Build | None = None,
    ) -> list[Scored]:
        """An arm trained with every seed, and what a function finds of each; one model is held at a time."""
        found = []
        for seed in self.seeds:
            model = self.train(
                f"{arm}-{seed}", tasks, seed=seed, start=start, options=options, shards=shards, build=build
            )
            found.append(scored(self.evaluation(model)))
        return found

    def evaluation(self, model: Model) -> Evaluation:
        """A model before the held-out rows."""
        return Evaluation(model=model, shards=self.shards, split=self.config.split, seed=self.config.seed)

    def some(self, run: Evaluation, *columns: str) -> list[int]:
        """Held-out rows, at most as many as are spoken and read."""
        return replace(run, limit=self.config.limit).rows(run.split, *columns)

    def validations(self, arm: str, seed: int) -> list[dict[str, Any]]:
        """Rows of an arm's validations."""
        return read_metrics(self.run / f"{arm}-{seed}" / VALIDATION_FILE)

    def compared(self, key: str, one: Sequence[Counted], other: Sequence[Counted]) -> Figures:
        """How much larger one arm's rate is, with the ends of a paired bootstrap over sentences of all seeds."""
        return compared(key, one, other, resamples=self.config.resamples, seed=self.config.seed)

    def oracle_figures(self, row: str) -> Figures:
        """What the oracle is worth as a judge here."""
        return {f"{row}.oracle.accuracy": self.parts.oracle_accuracy(self.config.limit)}


def oracle_target(row: str) -> Target:
    """Before the oracle judges it must read what was resynthesized."""
    return Target("the oracle reads resynthesized speech", lambda f: f[f"{row}.oracle.accuracy"] >= READS)
