"""Whole numbers and names that never change by accident: ids, packs, what may follow, settings, commands, stages.

    python -m tests.support.goldens NAME …

writes `tests/goldens/NAME.json` anew, for a change that is meant; the difference is then reviewed like code.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import toy_shards
from tests.support.toy_plans import LINES, VOCABULARIES, line_name, random_plan
from tests.support.toy_shards import ToyShards
from unitok.cli.main import build_parser, each_command
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import render
from unitok_training.data.example_options import ExampleOptions
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.data.packing import DataState, PackStream
from unitok_training.experiments.compare.recipes import COMPARE_PRESETS
from unitok_training.experiments.compare.run import KNOWN_AS as COMPARE_KNOWN_AS
from unitok_training.experiments.compare.run import CompareConfig, settings_of
from unitok_training.experiments.compare.run import stages as compare_stages
from unitok_training.experiments.correction import KNOWN_AS as CORRECTION_KNOWN_AS
from unitok_training.experiments.correction import CorrectionConfig, correction_stages
from unitok_training.experiments.demo.run import KNOWN_AS as DEMO_KNOWN_AS
from unitok_training.experiments.demo.run import DemoConfig, demo_stages
from unitok_training.recipes.decoder import PRESETS
from unitok_training.runs.stage_graph import Pipeline
from unitok_training.systems.registry import latent_presets

FOLDER = Path(__file__).resolve().parents[1] / "goldens"
CHOICES = 12
"""Ids that are chosen for an automaton: the middle of what it allows."""
PACKS = 6
OPTIONS = ExampleOptions(condition_noise=0.2, text_weight=2.0)
LINES_DRAWN = "asr asr.codes tts.units tts.codes mt s2tt s2st slm lm chat".split()


def plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def vocabularies() -> dict[str, Any]:
    """Every extent, control id and language of three vocabularies, and their fingerprints."""
    return {
        name: {**vocabulary.to_json(), "fingerprint": vocabulary.fingerprint}
        for name, vocabulary in VOCABULARIES.items()
    }


def draws(stream: int, line: tuple[str, tuple[str, ...]]) -> np.random.Generator:
    """Of a line's own name: another task moves nobody's draws."""
    return np.random.default_rng([stream, zlib.crc32(line_name(line).encode())])


def sequences() -> dict[str, Any]:
    """A sequence of every task line in every vocabulary: its ids, and which of them have a loss."""
    found: dict[str, Any] = {}
    for name, vocabulary in VOCABULARIES.items():
        for line in LINES:
            rendered = render(random_plan(*line, vocabulary, draws(3, line)), vocabulary)
            weights = [float(weight) for weight in rendered.loss_weight]
            found[f"{name}: {line_name(line)}"] = {"ids": rendered.ids.tolist(), "loss_weight": weights}
    return found


def automata() -> dict[str, Any]:
    """What may follow, in ranges of ids, where the middle one is always chosen."""
    found: dict[str, Any] = {}
    for name, vocabulary in VOCABULARIES.items():
        for line in LINES:
            plan = random_plan(*line, vocabulary, draws(4, line))
            rendered = render(plan, vocabulary)
            start = int(np.flatnonzero(rendered.loss_weight)[0])
            automaton = Automaton(vocabulary, rendered.ids[:start], max_new_tokens=40)
            ranges = []
            while not automaton.finished and len(ranges) < CHOICES:
                allowed = automaton.allowed()
                ranges.append([list(one) for one in allowed])
                ids = [token for begin, end in allowed for token in range(begin, end)]
                automaton.advance(ids[len(ids) // 2])
            found[f"{name}: {line_name(line)}"] = ranges
    return found


def packs() -> list[dict[str, Any]]:
    """The first packs of a mixture of ten lines, whole."""
    shards: Any = ToyShards([*toy_shards.corpus(), *toy_shards.dialogues()])
    vocabulary = toy_shards.vocabulary()
    source = ExampleSource(shards, vocabulary, Mixture(tasks=dict.fromkeys(LINES_DRAWN, 1.0)), seed=5, options=OPTIONS)
    stream = PackStream(source.documents, capacity=256, window=64, seed=5, pad=vocabulary.pad)
    steps = itertools.islice(stream.steps(DataState(), packs_per_step=2), PACKS // 2)
    return [
        {
            "ids": pack.ids.tolist(),
            "labels": pack.labels.tolist(),
            "positions": pack.positions.tolist(),
            "cu_seqlens": pack.cu_seqlens.tolist(),
        }
        for found, _ in steps
        for pack in found
    ]


def settings() -> dict[str, Any]:
    """Every preset with all of its keys and values, as a run records them."""
    found = {f"compare: {name}": plain(asdict(make())) for name, make in COMPARE_PRESETS.items()}
    tables: Mapping[str, Mapping[str, Callable[[], Any]]] = {
        "decoder": PRESETS.table,
        "latent": latent_presets().table,
    }
    with tempfile.TemporaryDirectory() as place:
        for kind, table in tables.items():
            for name, make in table.items():
                make().save(Path(place) / "recipe.json")
                found[f"{kind}: {name}"] = json.loads((Path(place) / "recipe.json").read_text(encoding="utf-8"))
    return found


def stages() -> dict[str, str]:
    """Keys by which a finished stage is known again: a change trains it anew in everybody's runs."""
    config, compared, recipe = DemoConfig(), CompareConfig(seeds=1), COMPARE_PRESETS["compare"]()
    demo_settings = asdict(config) | {"languages": list(config.languages), "overrides": list(config.overrides)}
    # whatever ears are installed here
    steps = [replace(stage, also=()) for stage in demo_stages(config)]
    arms = [replace(stage, also=()) for stage in compare_stages(recipe, compared)]
    demo = Pipeline(Path(), steps, demo_settings, threads=2, known_as=DEMO_KNOWN_AS)
    correcting = correction_stages(("masked", "head"))
    unset = {name: None for stage in correcting for name in stage.settings}
    correction = Pipeline(
        Path(), correcting, {**unset, **asdict(CorrectionConfig())}, threads=2, known_as=CORRECTION_KNOWN_AS
    )
    compare = Pipeline(Path(), arms, settings_of(recipe, compared), threads=2, known_as=COMPARE_KNOWN_AS)
    return {
        **{f"demo: {name}": key for name, key in demo.keys.items()},
        **{f"compare: {name}": key for name, key in compare.keys.items()},
        **{f"correction: {name}": key for name, key in correction.keys.items()},
    }


def commands() -> dict[str, Any]:
    """Every command with its arguments: names, number, choices and defaults."""
    found: dict[str, Any] = {}
    for parser in each_command(build_parser()):
        name = parser.prog.removeprefix("unitok ")
        found[name] = {
            ", ".join(action.option_strings) or action.dest: {
                "nargs": action.nargs, "default": plain(action.default), "required": action.required,
                "choices": None if action.choices is None else sorted(map(str, action.choices)),
            }
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
        }  # fmt: skip
    return found


GOLDENS: Mapping[str, Callable[[], Any]] = {
    function.__name__: function for function in (vocabularies, sequences, automata, packs, settings, stages, commands)
}


def as_text(value: Any) -> str:
    """JSON with two levels of lines, so that a difference can be read."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    lines = []
    for key, inner in items:
        if isinstance(inner, dict):
            body = ",\n".join(f"    {json.dumps(name)}: {json.dumps(part)}" for name, part in inner.items())
            text = f"{{\n{body}\n  }}" if inner else "{}"
        else:
            text = json.dumps(inner)
        lines.append(f"  {json.dumps(key)}: {text}" if isinstance(value, dict) else f"  {text}")
    return ("{\n%s\n}\n" if isinstance(value, dict) else "[\n%s\n]\n") % ",\n".join(lines)


if __name__ == "__main__":
    for name in sys.argv[1:] or GOLDENS:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.json").write_text(as_text(plain(GOLDENS[name]())), encoding="utf-8")
    sys.exit(0)
