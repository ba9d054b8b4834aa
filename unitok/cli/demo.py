"""`unitok demo`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitok.cli.options import seed_option


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("demo", help="corpus → tokenizers → shards → train → evaluate → report")
    parser.add_argument("--manifest", help="your recordings (JSON Lines or TSV) instead of the phrase corpus")
    parser.add_argument("-o", "--out", default="runs/demo", help="run folder (default: %(default)s)")
    parser.add_argument("--languages", nargs="+", default=["en", "de"], help="languages of the phrase corpus")
    parser.add_argument("--quick", action="store_true", help="a quarter of the sentences and steps: a look")
    parser.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.add_argument("--preset", default="demo", help="recipe preset or file of the decoder")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    parser.add_argument("--stage", action="append", default=None, help="run only this stage and what it needs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    from rich.console import Console

    from unitok_training.demo import DemoConfig, quicker, run_demo

    config = DemoConfig(
        manifest=options.manifest,
        languages=tuple(options.languages),
        seed=options.seed,
        threads=options.threads,
        preset=options.preset,
        overrides=tuple(options.set),
    )
    if options.manifest is not None:
        config = replace(config, manifest=str(Path(options.manifest).resolve()))
    if options.quick:
        config = quicker(config)
    console = Console(highlight=False)
    report = run_demo(Path(options.out), config, report=lambda line: console.log(line), only=options.stage)
    console.print(f"[bold]{report}[/bold]")
