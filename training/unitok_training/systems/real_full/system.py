"""The full real run as a system: the real run with hours of read speech, translation, a learning curve and emotions.

unitok systems run real_full --set reader=espeak --set hours=2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from unitok_tokenizers.files import read_json
from unitok_training.recipes.config import overridden
from unitok_training.runs.schedule import Stage
from unitok_training.systems.base.bench import Bench, Figures
from unitok_training.systems.base.system import System, Target
from unitok_training.systems.real.system import SYSTEM as REAL
from unitok_training.systems.real.system import TRAINED, finished, flat
from unitok_training.systems.real.system import graph as real_graph
from unitok_training.systems.real_full.settings import FullSettings, check_full
from unitok_training.systems.real_full.stages import ALONE, MADE

STAGES = "unitok_training.systems.real_full.stages"
EMOTIONS = "unitok_training.systems.real_full.emotions"
READ = ("texts", "translations", "target", "reader", "hours", "made", "spoken")
READ_FILES = ("texts", "translations", "spoken")
CHAINED = 0.8
"""Least of the chrF of translated texts that translated transcripts keep."""
CHANCE = 0.05
"""How far above chance an emotion may be told from the text, which says nothing of it."""


def graph(settings: FullSettings) -> list[Stage]:
    """The real run's stages over more speech, and behind them what is added."""
    found = [
        replace(one, function=f"{STAGES}:corpus", settings=(*one.settings, *READ), files=(*one.files, *READ_FILES))
        if one.name == "corpus"
        else one
        for one in real_graph(settings)
    ]
    found += [
        Stage(name="translator", function=f"{STAGES}:translator", needs=("host",),
              settings=("translations", "target", "translation_steps", "tokens_rate", "spoken", *TRAINED),
              files=("translations", "spoken")),
        Stage(name="chained", function=f"{STAGES}:chained", needs=("latent", "translator"),
              settings=("spoken", "reader", "made"), files=("spoken",), tables=("spoken",)),
        *(
            Stage(name=f"curve-{minutes}-{which}", function=f"{STAGES}:point", arguments=(str(minutes), which),
                  needs=("corpus", "host"),
                  settings=("whisper", "curve_steps", "curve_spelling_steps", "subwords", "latent_rate", *TRAINED),
                  files=("whisper",))
            for minutes in settings.curve for which in (ALONE, MADE)
        ),
    ]  # fmt: skip
    if settings.emotions:
        told = ("emotions", "emotion_clusters", "whisper", "layer", "seed")
        found.append(Stage(name="emotions", function=f"{EMOTIONS}:emotions", settings=told, tables=("emotions",),
                           files=("emotions", "whisper")))  # fmt: skip
    return found


def scores_of(run: Path) -> Figures:
    """The figures of what is added, of all stages that are finished."""
    return {key: one for path in sorted((run / "scores").glob("*.json")) for key, one in flat(read_json(path)).items()}


def check_full_run(bench: Bench) -> Figures:
    """Make what is not there yet of the graph, and gather its figures."""
    given = bench.config
    settings = overridden(given.precisely(FullSettings(seed=given.seed)), given.overrides)
    check_full(asdict(settings))
    return {**finished(bench, settings, graph(settings)), **scores_of(bench.run)}


def falls(f: Figures, which: str) -> bool:
    """Whether word errors fall from each point of a curve to the next. KeyError where there are no two."""
    points = sorted(int(key.split(".")[1]) for key in f if key.startswith("curve.") and key.endswith(f".{which}.wer"))
    errors = [f[f"curve.{point}.{which}.wer"] for point in points]
    if len(errors) < 2:
        raise KeyError("curve")
    return all(after < before for before, after in zip(errors, errors[1:]))


def _kept(f: Mapping[str, float], what: str) -> bool:
    return f[f"chained.{what}.chrf"] >= CHAINED * f[f"chained.{what}.text_chrf"]


SYSTEM = System(
    name="real_full",
    title="Real parts together, with hours of read speech",
    row="B5, B27, C1, C11, C14",
    settings=FullSettings,
    check=check_full_run,
    differs="as the real run; ten hours are read aloud by one voice of Piper; emotions are told by linear probes",
    measures="what the real run measures, translation of text and of transcripts, errors by minutes of recordings, "
    "emotions of speakers left out",
    targets=(
        *REAL.targets,
        Target("translated transcripts keep .8 of the texts' chrF, read aloud", lambda f: _kept(f, MADE)),
        Target("errors fall with every point of the curve, recordings alone", lambda f: falls(f, ALONE)),
        Target("errors fall with every point of the curve, read speech beside", lambda f: falls(f, MADE)),
        Target(
            "emotions: the text is at chance",
            lambda f: f["emotions.text.accuracy"] <= f["emotions.chance"] + CHANCE,
        ),
        Target(
            "emotions: units with prosody and vectors tell more than chance, for other speakers too",
            lambda f: all(f[f"emotions.{arm}.low"] > f["emotions.chance"] for arm in ("units_prosody", "latent")),
        ),
    ),
)
