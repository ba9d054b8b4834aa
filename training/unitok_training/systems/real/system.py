"""The real run as a system: its graph of stages, its figures, and what they must show.

unitok systems run real --set 'manifests=[my/metadata.jsonl]' --set pairs=
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unitok_tokenizers.compute import resolve
from unitok_tokenizers.files import read_json
from unitok_training.recipes.config import lasting, overridden
from unitok_training.runs.schedule import Stage
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.real.settings import RealSettings, check_parts

STAGES = "unitok_training.systems.real.stages"
PARTS = ("manifests", "seed")
TRAINED = ("pack_size", "precision", "limit")
SIDE_BY_SIDE = 2
"""Models that are trained at once: two steps of one thread each take three quarters of two steps of two threads."""
CONTROLS = ("random_host", "random_encoder")


def graph(settings: RealSettings) -> list[Stage]:
    """The stages, in the order in which they start; two side by side, which takes less than one after another."""
    share = max(1, settings.threads // SIDE_BY_SIDE)
    units = ("whisper", "clusters", "layer", "own_steps")
    latent = ("whisper", "spelling_steps", "subwords", "latent_steps", "latent_rate", *TRAINED)
    spelling = ("unit_spelling_steps", "unit_spelling_blocks")
    tokens = (*spelling, "tokens_steps", "tokens_rate", *TRAINED)
    found = [
        Stage(name="corpus", function=f"{STAGES}:corpus", settings=PARTS, files=("manifests",), tables=("manifests",)),
        Stage(name="host", function=f"{STAGES}:host", settings=("host", "controls", "seed"), files=("host",)),
        Stage(name="texts", function=f"{STAGES}:texts", needs=("corpus",), settings=("pairs", "pairs_of_a_set"),
              files=("pairs",)),
        *(
            Stage(name=f"units-{kind}", function=f"{STAGES}:units", arguments=(kind,), needs=("corpus", "host"),
                  settings=units, files=("whisper",))
            for kind in settings.units
        ),
        Stage(name="vocoder", function=f"{STAGES}:vocoder", needs=("corpus",), settings=("vocoder_steps",)),
        *(
            Stage(name=f"speech-{kind}", function=f"{STAGES}:speech", arguments=(kind,),
                  needs=("vocoder", f"units-{kind}"), settings=("synthesizer_steps",))
            for kind in settings.units
        ),
        Stage(name="latent", function=f"{STAGES}:latent", arguments=("latent",), needs=("corpus", "host", "texts"),
              threads=share, settings=latent, files=("whisper",)),
        *(
            Stage(name=f"tokens-{kind}", function=f"{STAGES}:tokens", arguments=(kind,), threads=share,
                  needs=("host", "texts", f"speech-{kind}"), settings=tokens)
            for kind in settings.units
        ),
        Stage(name="before", function=f"{STAGES}:before", needs=("host", "texts"), settings=("controls",)),
    ]  # fmt: skip
    if settings.controls:
        found.append(Stage(name="encoders", function=f"{STAGES}:encoders", settings=("whisper", "seed"),
                           files=("whisper",)))  # fmt: skip
        found += [
            Stage(name=f"latent-{name}", function=f"{STAGES}:latent", arguments=(name,), threads=share,
                  needs=("latent", "encoders"), settings=("control_steps",))
            for name in CONTROLS
        ]  # fmt: skip
    return found


def flat(value: Any, name: str = "") -> Figures:
    """Numbers of nested objects by dotted keys; of text abilities the means, not each set of pairs."""
    if isinstance(value, bool) or not isinstance(value, dict | int | float):
        return {}
    if not isinstance(value, dict):
        return {name: float(value)}
    kept = {key: one for key, one in value.items() if not (key == "blimp" and isinstance(one, dict))}
    named = {f"{name}.{part}" if name else part: inner for part, inner in kept.items()}
    return {key: one for part, inner in named.items() for key, one in flat(inner, part).items()}


def gathered(run: Path) -> Figures:
    """The figures of everything that a run has finished."""
    found: dict[str, Any] = {"before": read_json(run / "before.json")} if (run / "before.json").exists() else {}
    for path in sorted((run / "models").glob("*/real.json")):
        found[path.parent.name] = read_json(path)
    return flat(found)


def finished(bench: Bench, settings: RealSettings, stages: Sequence[Stage]) -> Figures:
    """Make what is not there yet of stages; their figures, and the seconds that each took."""
    pipeline = Pipeline(
        bench.run, stages, lasting(settings), threads=settings.threads, report=bench.report,
        compute=resolve("cpu", settings.precision, threads=settings.threads),
    )  # fmt: skip
    records = pipeline.run()
    seconds = {f"seconds.{name}": round(record.seconds, 1) for name, record in records.items()}
    return {**gathered(bench.run), **seconds}


def check_real(bench: Bench) -> Figures:
    """Make what is not there yet of the graph, and gather its figures."""
    given = bench.config
    settings = overridden(given.precisely(RealSettings(seed=given.seed)), given.overrides)
    check_parts(asdict(settings))
    return finished(bench, settings, graph(settings))


def _lost(f: Figures, name: str) -> float:
    """Points of minimal pairs that a model has lost."""
    return 100 * (f["before.host.text.blimp_mean"] - f[f"{name}.text.blimp_mean"])


SYSTEM = System(
    name="real",
    title="Real parts together",
    row="B5, B27, C1, C14",
    settings=RealSettings,
    check=check_real,
    differs="SmolLM2-135M, Whisper tiny.en and an hour or two of real recordings, instead of parts from scratch",
    measures="transcripts from vectors and from units, speech by two ears, text ability, beside controls",
    targets=(
        Target("latent: WER of held-out sentences at most .12", lambda f: f["latent.test.wer"] <= 0.12),
        Target("units of Whisper: WER at most .18", lambda f: f["whisper.test.wer"] <= 0.18),
        Target("units of our own encoder: WER at most .18", lambda f: f["own.test.wer"] <= 0.18),
        Target(
            "speech through Whisper's units at most .10 above its copies, by both ears",
            lambda f: (
                f["whisper.tts.units.ears.wer"] <= f["whisper.resynthesis.units.ears.wer"] + 0.10
                and f["whisper.tts.units.ears.pocketsphinx_wer"]
                <= f["whisper.resynthesis.units.ears.pocketsphinx_wer"] + 0.10
            ),
        ),
        Target(
            "speech through our own units at most .10 above its copies, by both ears",
            lambda f: (
                f["own.tts.units.ears.wer"] <= f["own.resynthesis.units.ears.wer"] + 0.10
                and f["own.tts.units.ears.pocketsphinx_wer"] <= f["own.resynthesis.units.ears.pocketsphinx_wer"] + 0.10
            ),
        ),
        Target(
            "empty and runaway answers at most one of a hundred",
            lambda f: all(
                f[f"{name}.test.{what}"] <= 0.01
                for name in ("latent", "whisper", "own")
                for what in ("empty", "runaway")
            ),
        ),
        Target(
            "answers to other recordings: WER at least .9",
            lambda f: all(f[f"{name}.test.shuffled_wer"] >= 0.9 for name in ("latent", "whisper", "own")),
        ),
        Target(
            "minimal pairs: at most two points lost",
            lambda f: all(_lost(f, name) <= 2 for name in ("latent", "whisper", "own")),
        ),
    ),
)
