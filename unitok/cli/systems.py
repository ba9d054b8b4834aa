"""Commands about latent models: `train-latent`, `adapters`, `probe`, `prosody`, `systems`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from unitok.cli.device import add_device, load_model
from unitok.cli.options import add_precision, chosen_precision, precision_override, seed_option


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
    train.add_argument("--split", default="test", help="rows to score (default: %(default)s)")
    train.add_argument("--limit", type=int, default=200, help="most rows per task (default: %(default)s)")
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
    probe.add_argument("--limit", type=int, default=20, help="most rows (default: %(default)s)")
    add_device(probe)
    probe.set_defaults(run=run_probe)

    prosody = commands.add_parser(
        "prosody", help="what a cascade loses: a class of prosody from text, from units and from vectors"
    )
    prosody.add_argument("-o", "--out", default="runs/prosody", help="run folder (default: %(default)s)")
    prosody.add_argument("--sentences", type=int, default=500, help="training sentences (default: %(default)s)")
    prosody.add_argument("--test-sentences", type=int, default=40, help="each in every class (default: %(default)s)")
    prosody.add_argument("--encoder-steps", type=int, default=120, help="of the units' encoder (default: %(default)s)")
    prosody.add_argument("--steps", type=int, default=0, help="of every arm (default: the recipes' own)")
    prosody.add_argument("--seed", type=seed_option, default=0, help="of everything random (default: %(default)s)")
    add_precision(prosody, "what the recipes say")
    prosody.set_defaults(run=run_prosody)

    systems = commands.add_parser("systems", help="train a system on the toy corpus and measure what its paper claims")
    known = "rich, mala_asr, seed_asr, cosmic, desta, blsp, liu2020, hubert, coordinator or routing"
    systems.add_argument("system", help=known)
    systems.add_argument("-o", "--out", help="run folder (default: runs/systems/SYSTEM)")
    systems.add_argument("--sentences", type=int, default=2400, help="training sentences (default: %(default)s)")
    systems.add_argument("--test-sentences", type=int, default=120, help="held-out sentences (default: %(default)s)")
    systems.add_argument("--limit", type=int, default=100, help="most rows that are scored (default: %(default)s)")
    systems.add_argument("--seed", type=seed_option, default=0, help="of everything random (default: %(default)s)")
    systems.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of every recipe")
    add_precision(systems, "what the recipes say")
    systems.set_defaults(run=run_systems)


def run_train(options: argparse.Namespace) -> None:
    from unitok_training.recipes.latent_presets import load_latent_recipe
    from unitok_training.train_latent import train_latent

    recipe = load_latent_recipe(options.recipe, [*options.set, *precision_override(options.precision)])
    done = train_latent(
        recipe, options.manifest, options.out, start=options.start, split=options.split, limit=options.limit
    )
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
    from unitok_training.recipes.latent_presets import load_latent_recipe

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

    rows = [row for row in read_manifest(options.manifest) if row.split == options.split]
    figures = probe(load_model(options), rows, limit=options.limit)
    write_probe(figures, Path(options.out))
    print(json.dumps(figures, indent=2))


def run_prosody(options: argparse.Namespace) -> None:
    from unitok_training.experiments.prosody import ProsodyConfig, prosody_figures

    config = ProsodyConfig(
        sentences=options.sentences,
        test_sentences=options.test_sentences,
        encoder_steps=options.encoder_steps,
        steps=options.steps,
        precision=chosen_precision(options.precision),
        seed=options.seed,
    )
    figures = prosody_figures(options.out, config, report=lambda line: print(line, flush=True))
    print(json.dumps(figures, indent=2))


def run_systems(options: argparse.Namespace) -> None:
    from unitok_training.systems.bench import SystemConfig
    from unitok_training.systems.checks import system_figures

    config = SystemConfig(
        sentences=options.sentences,
        test_sentences=options.test_sentences,
        overrides=tuple(options.set),
        seed=options.seed,
        limit=options.limit,
        precision=chosen_precision(options.precision),
    )
    out = options.out or f"runs/systems/{options.system}"
    figures = system_figures(options.system, out, config, report=lambda line: print(line, flush=True))
    print(json.dumps(figures, indent=2))
