"""Compare the three ways in: tokens, latent vectors and a cascade, of one decoder, corpus and budget.

What is shared (corpus, units, judge, synthesizer, a decoder that knows text) is made once; then every approach is
trained with every seed, each training a stage of its own whose finished result is kept. A training that two tables
have in common is done once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import AUTO, check_precision, resolve
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_training.evaluation.ears.find import ears_at_hand
from unitok_training.experiments.compare.recipes import (
    APPROACHES,
    BUDGETS,
    CODES_IN,
    MOST_SEEDS,
    CompareRecipe,
    load_compare_recipe,
)
from unitok_training.experiments.demo.run import DemoConfig, corpus_stage
from unitok_training.recipes.config import lasting
from unitok_training.runs.schedule import Stage
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.runs.stage_progress import Display

SHARED = "unitok_training.experiments.demo.stages"
OWN = "unitok_training.experiments.compare.stages"
KNOWN_AS = {SHARED: "unitok_training.demo_stages", OWN: "unitok_training.compare_stages"}
"""What keys on disk call these modules: it never changes, wherever they move."""
LATENT_FIRST = ("latent", "cascade", "tokens")
"""The longest trainings start first, so that no core waits at the end."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What a comparison is run on."""

    manifest: str | None = None
    """Manifest of somebody's recordings, with translations; None speaks the phrase corpus."""
    languages: tuple[str, ...] = ("en", "de")
    """Languages of the phrase corpus."""
    seeds: int = 3
    """Trainings of each approach."""
    layouts: tuple[str, ...] = ()
    """Layouts of codebooks, each of which becomes an approach that reads and writes codes."""
    full: bool = False
    """All three budgets, not equal decoder tokens alone."""
    threads: int = 2
    """CPU threads in all; a training takes one."""
    precision: str = AUTO
    """Of everything that is trained, where it is not "auto", whatever the recipes say."""
    preset: str = "compare"
    """Preset of the recipe."""
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of the recipe."""
    added: tuple[str, ...] = ()
    """JSON files of other commands whose figures are to stand in the results too."""

    def __post_init__(self) -> None:
        if not 1 <= self.seeds <= MOST_SEEDS:
            raise InputError(f"--seeds is {self.seeds}: give 1 to {MOST_SEEDS}")
        if len(set(self.layouts)) < len(self.layouts):
            raise InputError(f"--layouts names one twice: {' '.join(self.layouts)}; give each once")
        check_precision(self.precision)

    @property
    def recipe_overrides(self) -> tuple[str, ...]:
        """The overrides, and a precision that was asked for in every training."""
        chosen = () if self.precision == AUTO else ("start", "tokens", "codes", "cascade", "latent")
        return (*self.overrides, *(f"{one}.train.precision={self.precision}" for one in chosen))

    @property
    def budgets(self) -> tuple[str, ...]:
        """The tables."""
        return BUDGETS if self.full else BUDGETS[:1]

    @property
    def codes(self) -> tuple[str, ...]:
        """The approaches that read and write codes."""
        return tuple(f"{CODES_IN}{layout}" for layout in self.layouts)

    def approaches(self, budget: str) -> tuple[str, ...]:
        """Those of a table. A layout has parameters of its own, whatever the decoder's width: none is widened."""
        return (*APPROACHES, *(self.codes if budget != "parameters" else ()))


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training of one approach."""

    approach: str
    """One of APPROACHES, or `codes-LAYOUT`."""
    seed: int
    """Of weights, order and augmentation."""
    steps: int = 0
    """Updates; 0 as many as the budget of decoder tokens allows."""
    wide: bool = False
    """Widen the decoder's feed-forward until as many parameters are trained as in the latent approach."""

    @property
    def name(self) -> str:
        """Of its stage and folder."""
        return "-".join([self.approach, str(self.seed), *([f"{self.steps}steps"] if self.steps else []),
                         *(["wide"] if self.wide else [])])  # fmt: skip

    @property
    def start(self) -> str:
        """Stage of the decoder that it starts from."""
        return f"start-{self.seed}" + ("-wide" if self.wide else "")


def training_of(recipe: CompareRecipe, budget: str, approach: str, seed: int) -> Training:
    """What a table needs of an approach; two tables may need the same."""
    if budget == "steps":
        steps = recipe.steps("tokens")
        same = approach != "latent" and recipe.steps(approach) == steps
        return Training(approach=approach, seed=seed, steps=0 if same else steps)
    return Training(approach=approach, seed=seed, wide=budget == "parameters" and approach != "latent")


def trainings(recipe: CompareRecipe, config: CompareConfig) -> list[Training]:
    """All trainings, each once, in the order in which they start."""
    every = [
        training_of(recipe, budget, approach, seed)
        for budget in config.budgets
        for approach in (*LATENT_FIRST, *config.approaches(budget)[len(LATENT_FIRST) :])
        for seed in range(config.seeds)
    ]
    return list(dict.fromkeys(every))


def shared_stages() -> list[Stage]:
    """What is made once: those of the demo without acoustic codes."""
    return [
        corpus_stage(),
        Stage(name="units", function=f"{SHARED}:units", needs=("corpus",), settings=("clusters", "encoder_steps")),
        Stage(name="judge", function=f"{SHARED}:judge", needs=("corpus",), settings=("judge_steps",)),
        Stage(name="unit_mel", function=f"{SHARED}:unit_mel", needs=("units",), settings=("unit_mel_steps",)),
        Stage(name="prepare", function=f"{OWN}:prepare", needs=("units",)),
    ]


def codec_stages() -> list[Stage]:
    """What approaches share that read and write codes."""
    sizes = ("codec_steps", "codebooks")
    return [
        Stage(name="codec", function=f"{OWN}:codec", needs=("units",), settings=sizes),
        Stage(name="mel_vocoder", function=f"{SHARED}:mel_vocoder", needs=("codec",), settings=("mel_vocoder_steps",)),
        Stage(name="prepare-codes", function=f"{OWN}:prepare_codes", needs=("codec",)),
    ]


def stages(recipe: CompareRecipe, config: CompareConfig) -> list[Stage]:
    """The graph, in the order in which stages start."""
    planned = trainings(recipe, config)
    found = shared_stages() + (codec_stages() if config.layouts else [])
    sizes = ("decoder", "start", "evaluate_limit")
    for name in dict.fromkeys(one.start for one in planned):
        wide = name.endswith("-wide")
        seed = name.split("-")[1]
        settings = (*sizes, "latent") if wide else sizes
        found.append(Stage(name=name, function=f"{OWN}:start", arguments=(name, seed, "wide" if wide else ""),
                           needs=("prepare", "unit_mel"), settings=settings))  # fmt: skip
    for one in planned:
        arguments = (one.name, one.start, one.approach, str(one.seed), str(one.steps))
        coded = one.approach in config.codes
        needs: tuple[str, ...] = (one.start, "judge", *(("mel_vocoder", "prepare-codes") if coded else ()))
        read = ("codes", "model") if coded else (one.approach,)
        found.append(
            Stage(
                name=one.name, function=f"{OWN}:arm", arguments=arguments, needs=needs, settings=(*read, "budget"),
                also=ears_at_hand(),
            )
        )  # fmt: skip
    return found


def settings_of(recipe: CompareRecipe, config: CompareConfig) -> dict[str, Any]:
    """What the stages read: the demo's settings, the recipe by name, and its parts so that a change is seen."""
    prepared = asdict(DemoConfig(
        manifest=config.manifest, languages=config.languages, threads=config.threads, precision=config.precision,
        **asdict(recipe.preparation),
    ))  # fmt: skip
    parts = {name: value for name, value in lasting(recipe).items() if name != "preparation"}
    own = {"preset": config.preset, "overrides": list(config.recipe_overrides), "languages": list(config.languages)}
    return {**prepared, **parts, **own}


def run_compare(
    out: Path, config: CompareConfig, *, report: Callable[[str], None] = print, display: Display | None = None
) -> dict[str, Any]:
    """Run a comparison into `out`; returns what stands in its `results.json`. Finished trainings are kept.

    Raises:
        InputError: a setting or manifest that cannot be used, naming it and the remedy.
    """
    from unitok_training.experiments.compare.report import add_figures, write_results

    recipe = load_compare_recipe(config.preset, config.recipe_overrides)
    for layout in config.layouts:
        recipe.check_layout(layout)
    if config.manifest is not None:
        check_manifest(config.manifest)
    ensure_folder(out)
    out.mkdir(exist_ok=True)
    add_figures(out, [Path(one) for one in config.added])
    pipeline = Pipeline(
        out, stages(recipe, config), settings_of(recipe, config), threads=config.threads, report=report,
        display=display, compute=resolve("cpu", config.precision, threads=config.threads), known_as=KNOWN_AS,
    )  # fmt: skip
    records = pipeline.run()
    tables = {
        budget: {
            approach: [training_of(recipe, budget, approach, seed).name for seed in range(config.seeds)]
            for approach in config.approaches(budget)
        }
        for budget in config.budgets
    }
    return write_results(out, tables, records)


def check_manifest(path: str) -> None:
    """InputError where a manifest has nothing to translate, in its training or in its test."""
    from unitok_training.experiments.demo.splits import with_splits

    rows = [row for row in with_splits(read_manifest(path)) if row.audio is not None and row.text]
    for split, called in (("train", "training"), ("test", "test")):
        by_group: dict[str, set[str]] = {}
        for row in rows:
            if row.split == split:
                by_group.setdefault(row.group, set()).add(row.lang)
        if not any(len(languages) > 1 for languages in by_group.values()):
            raise InputError(
                f"{path}: no {called} rows with audio and text say the same in two languages; give such rows one "
                "`group`"
            )
