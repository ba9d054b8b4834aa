"""The main job as one function: corpus → tokenizers → shards → training → evaluation → report.

`run_demo` arranges the stages; each stage function below reads and writes one run folder:

    corpus/ manifest.json  fit/{text,units,codes}/  tokenizers/  shards/  vocoder/  judge/  train/  model/
    metrics.json  report.html  plan.json  compute.json  stages/ logs/

The phrase corpus and somebody's manifest take the same course from the second stage on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import AUTO, resolve
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import ensure_folder
from unitok_tokenizers.seeds import check_seed
from unitok_training.evaluation.ears.find import ears_at_hand
from unitok_training.recipes.decoder import load_recipe
from unitok_training.runs.schedule import Stage
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.runs.stage_progress import Display

STAGES = "unitok_training.experiments.demo.stages"
KNOWN_AS = {STAGES: "unitok_training.demo_stages"}
"""What keys on disk call these modules: it never changes, wherever they move."""
QUICK_ROWS = 60


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What a demo run depends on. Steps, not seconds, decide how long a stage trains: a run is repeatable."""

    manifest: str | None = None
    """Manifest of somebody's recordings; None speaks the phrase corpus."""
    languages: tuple[str, ...] = ("en", "de")
    """Languages of the phrase corpus."""
    pairs: int = 3000
    """Training sentences of the phrase corpus, each spoken once a language."""
    test_pairs: int = 120
    """Held-out sentences of the phrase corpus."""
    seed: int = 0
    """Seed of everything random."""
    threads: int = 2
    """CPU threads in all."""
    precision: str = AUTO
    """One of `unitok_tokenizers.compute.PRECISIONS`, of everything that is trained."""
    clusters: int = 384
    """Number of units."""
    encoder_steps: int = 450
    """Optimizer steps of the speech encoder behind the units."""
    codec_steps: int = 700
    """Optimizer steps of the codec."""
    judge_steps: int = 450
    """Optimizer steps of the judge."""
    mel_vocoder_steps: int = 350
    """Optimizer steps of the spectral vocoder."""
    unit_mel_steps: int = 800
    """Optimizer steps of the unit synthesizer."""
    preset: str = "demo"
    """Recipe preset of the decoder."""
    overrides: tuple[str, ...] = ()
    """`key=value` overrides of the recipe."""
    evaluate_limit: int = 0
    """Most utterances per task in the evaluation; 0 takes all."""

    def __post_init__(self) -> None:
        check_seed(self.seed)


def quicker(config: DemoConfig, share: float = 0.25) -> DemoConfig:
    """The same run with a share of its sentences and steps: every part works, and none of them as well.

    At most `QUICK_ROWS` utterances a task are evaluated: what was trained so little often speaks until it is stopped.

    Overrides that the configuration has already keep the last word.
    """
    train = load_recipe(config.preset, config.overrides).train
    steps = {name: round(getattr(config, name) * share) for name in config.__dataclass_fields__ if "_steps" in name}
    short = (f"train.steps={round(train.steps * share)}", f"train.optim.warmup_steps={train.optim.warmup_steps // 2}")
    return replace(
        config,
        pairs=round(config.pairs * share),
        overrides=(*short, *config.overrides),
        evaluate_limit=QUICK_ROWS,
        **steps,
    )


def corpus_stage() -> Stage:
    """Makes the corpus, or takes it from a manifest: of every experiment that begins as the demo does."""
    settings = ("manifest", "languages", "pairs", "test_pairs", "seed")
    return Stage(
        name="corpus", function=f"{STAGES}:corpus", threads=2, settings=settings, files=("manifest",),
        tables=("manifest",),
    )  # fmt: skip


def demo_stages(config: DemoConfig) -> list[Stage]:
    """The graph, in the order in which stages start.

    What is small runs two at a time with one thread each, which is quicker on two cores than one at a time with two;
    the decoder's matrices are large enough for both.
    """
    return [
        corpus_stage(),
        Stage(name="units", function=f"{STAGES}:units", needs=("corpus",), settings=("clusters", "encoder_steps")),
        Stage(name="judge", function=f"{STAGES}:judge", needs=("corpus",), settings=("judge_steps",)),
        Stage(name="codes", function=f"{STAGES}:codes", needs=("units",), settings=("codec_steps",)),
        Stage(name="unit_mel", function=f"{STAGES}:unit_mel", needs=("units",), settings=("unit_mel_steps",)),
        Stage(name="prepare", function=f"{STAGES}:prepare", needs=("codes",)),
        Stage(name="mel_vocoder", function=f"{STAGES}:mel_vocoder", needs=("codes",), settings=("mel_vocoder_steps",)),
        Stage(
            name="decoder",
            function=f"{STAGES}:decoder",
            needs=("prepare",),
            threads=2,
            settings=("preset", "overrides"),
            files=("preset",) if Path(config.preset).is_file() else (),
        ),
        Stage(name="model", function=f"{STAGES}:model", needs=("decoder", "mel_vocoder", "unit_mel")),
        Stage(
            name="evaluate",
            function=f"{STAGES}:evaluate_stage",
            needs=("model", "judge"),
            threads=2,
            settings=("evaluate_limit",),
            also=ears_at_hand(),
        ),
    ]


def run_demo(
    out: Path,
    config: DemoConfig,
    *,
    report: Callable[[str], None] = print,
    display: Display | None = None,
    expected: Mapping[str, float] | None = None,
    only: Sequence[str] | None = None,
) -> Path:
    """Run the demo into `out` and return the report's path; finished stages of an earlier run are kept.

    Args:
        out: run folder.
        config: what it depends on.
        report: takes lines.
        display: shows the stages that run; lines do where None.
        expected: seconds of the stages, for the time that is left in all.
        only: stages to run, with whatever they need, for work on one of them.

    Raises:
        InputError: a manifest, recording or setting that cannot be used, naming it and the remedy.
    """
    load_recipe(config.preset, config.overrides)  # a slip is told now, not after the corpus was spoken
    ensure_folder(out)
    out.mkdir(exist_ok=True)
    stages = demo_stages(config)
    if only is not None:
        stages = _with_needs(stages, only)
    settings: dict[str, Any] = asdict(config) | {
        "languages": list(config.languages),
        "overrides": list(config.overrides),
    }
    compute = resolve("cpu", config.precision, threads=config.threads)
    pipeline = Pipeline(
        out, stages, settings, threads=config.threads, report=report, display=display, compute=compute,
        expected=expected, known_as=KNOWN_AS,
    )  # fmt: skip
    records = pipeline.run()
    if only is None:
        from unitok_training.experiments.demo.stages import write_report

        return write_report(out, records)
    return out


def _with_needs(stages: Sequence[Stage], only: Sequence[str]) -> list[Stage]:
    by_name = {stage.name: stage for stage in stages}
    wanted: set[str] = set()
    pending = list(only)
    while pending:
        name = pending.pop()
        if name not in by_name:
            raise InputError(f"no stage {name!r} in the demo; its stages are {', '.join(by_name)}")
        if name not in wanted:
            wanted.add(name)
            pending += by_name[name].needs
    return [stage for stage in stages if stage.name in wanted]
