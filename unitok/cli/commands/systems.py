"""Commands about latent models and published systems: `train-latent`, `adapters`, `probe`, `systems`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import (
    add_allow_change,
    add_precision,
    check_limit,
    chosen_precision,
    limit_option,
    precision_override,
    refuse_idle,
    seed_option,
)


def add_commands(commands: Any) -> None:
    train = commands.add_parser(
        "train-latent", help="train a speech encoder and an adapter with a decoder, from a manifest"
    )
    train.add_argument("recipe", help="a preset such as latent or slam_asr, a YAML file, or a resolved JSON")
    train.add_argument("manifest", help="JSON Lines or TSV")
    train.add_argument("-o", "--out", default="runs/latent", help="run folder (default: %(default)s)")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    add_precision(train, "what the recipe says")
    train.add_argument("--start", metavar="MODEL", help="model directory whose decoder and tokenizers are taken over")
    add_allow_change(train)
    train.add_argument("--split", default="test", help="rows to score (default: %(default)s)")
    train.add_argument("--limit", type=limit_option, default=200, help="most rows per task (default: %(default)s)")
    train.set_defaults(run=run_train)

    grid = commands.add_parser(
        "adapters", help="train every adapter alone, behind a latent model's encoder, until its loss has halved"
    )
    grid.add_argument("model", help="model directory with a latent front end; its encoder and decoder do not move")
    grid.add_argument("manifest", help="JSON Lines or TSV")
    grid.add_argument("-o", "--out", default="runs/adapters", help="run folder (default: %(default)s)")
    grid.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="some of the adapters (default: all)")
    grid.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    add_device(grid, precision=False)
    add_precision(grid, "what the recipe says")
    grid.set_defaults(run=run_adapters)

    probe = commands.add_parser("probe", help="does a latent model follow its prompt, or only the speech behind it?")
    probe.add_argument("model", help="model directory")
    probe.add_argument("manifest", help="JSON Lines or TSV")
    probe.add_argument("-o", "--out", default="runs/probe", help="folder for figures and plot (default: %(default)s)")
    probe.add_argument("--split", default="test", help="rows to ask about (default: %(default)s)")
    probe.add_argument("--limit", type=limit_option, default=20, help="most rows (default: %(default)s)")
    add_device(probe)
    probe.set_defaults(run=run_probe, continues=False)

    _add_systems(commands)


def _add_systems(commands: Any) -> None:
    systems = commands.add_parser("systems", help="published systems as recipes, and what their checks measure")
    actions = systems.add_subparsers(dest="action", required=True, metavar="ACTION", help="list or run")
    listed = actions.add_parser("list", help="every system with its recipes, its check and how its targets stand")
    listed.add_argument("--json", action="store_true", help="as JSON, with the recorded figures")
    listed.set_defaults(run=list_systems)
    run = actions.add_parser("run", help="train a system on a corpus that is made here, measure what its paper claims")
    run.add_argument("system", help="a name of `unitok systems list`")
    run.add_argument("-o", "--out", help="run folder (default: runs/systems/SYSTEM)")
    run.add_argument("--sentences", type=int, default=0, help="training sentences (default: the system's own number)")
    run.add_argument("--test-sentences", type=int, default=0, help="held-out sentences (default: the system's own)")
    run.add_argument("--limit", type=limit_option, default=100, help="most rows that are scored (default: %(default)s)")
    run.add_argument("--seed", type=seed_option, default=0, help="of everything random (default: %(default)s)")
    run.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of every recipe")
    add_precision(run, "what the recipes say")
    run.set_defaults(run=run_system)


def run_train(options: argparse.Namespace) -> None:
    from unitok_training.systems.registry import load_latent_recipe
    from unitok_training.train_latent import train_latent

    recipe = load_latent_recipe(options.recipe, [*options.set, *precision_override(options.precision)])
    done = train_latent(
        recipe, options.manifest, options.out, start=options.start, split=options.split, limit=options.limit,
        allow_change=options.allow_change,
    )  # fmt: skip
    if done.scores:  # of several processes the first one has them
        print(json.dumps(done.scores, indent=2))
        print(done.folder)


def run_adapters(options: argparse.Namespace) -> None:
    from dataclasses import asdict
    from pathlib import Path

    from unitok.frontends.adapters.registry import ADAPTERS
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.files import write_json
    from unitok_training.experiments.adapter_grid import GRID, AdapterFigures, train_adapters
    from unitok_training.systems.registry import load_latent_recipe

    def say(one: AdapterFigures) -> None:
        halved = "not halved" if one.halved is None else f"halved after {one.halved} steps"
        print(f"{one.kind}: loss {one.first:.2f} -> {one.last:.2f}, {halved}, {one.parameters:,} weights", flush=True)

    out = Path(options.out)
    found = train_adapters(
        load_model(options, trains=True),
        read_manifest(options.manifest),
        load_latent_recipe("latent", [*GRID, *options.set, *precision_override(options.precision)]),
        out,
        kinds=options.kinds or list(ADAPTERS),
        progress=say,
    )
    write_json(out / "adapters.json", [asdict(one) for one in found])
    print(out / "adapters.json")


def run_probe(options: argparse.Namespace) -> None:
    from pathlib import Path

    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_training.evaluation.prompt_probe import probe, write_probe

    check_limit(options)
    rows = [row for row in read_manifest(options.manifest) if row.split == options.split]
    figures = probe(load_model(options), rows, limit=options.limit)
    write_probe(figures, Path(options.out))
    print(json.dumps(figures, indent=2))


def list_systems(options: argparse.Namespace) -> None:
    from unitok_training.systems.listing import as_json, as_lines

    print(json.dumps(as_json(), indent=2, ensure_ascii=False) if options.json else "\n".join(as_lines()))


def run_system(options: argparse.Namespace) -> None:
    from unitok_training.systems.base.bench import SystemConfig
    from unitok_training.systems.registry import run_system, system_named

    check_limit(options)
    system = system_named(options.system)
    if not system.limited:
        own = "limit" in getattr(system.settings, "__dataclass_fields__", {})
        why = "which has a limit of its own (--set limit=N)" if own else "whose check scores no rows of a corpus"
        refuse_idle(options, ["limit"], f"for {options.system}, {why}")
    config = SystemConfig(
        sentences=options.sentences,
        test_sentences=options.test_sentences,
        overrides=tuple(options.set),
        seed=options.seed,
        limit=options.limit,
        precision=chosen_precision(options.precision),
    )
    out = options.out or f"runs/systems/{options.system}"
    figures = run_system(options.system, out, config, report=lambda line: print(line, flush=True))
    print(json.dumps(figures, indent=2))
