"""`unitok demo`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.options import add_precision, refuse_idle, seed_option, shown_stages

if TYPE_CHECKING:
    from unitok_training.experiments.demo.plan import DemoOptions


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("demo", help="corpus → tokenizers → shards → train → evaluate → report")
    parser.add_argument(
        "--manifest",
        help="your recordings, any table that is read, instead of the phrase corpus",
    )
    parser.add_argument("-o", "--out", default="runs/demo", help="run folder (default: %(default)s)")
    parser.add_argument("--size", type=str.upper, help="S, M or L (default: what ten seconds of measurement choose)")
    parser.add_argument("--plan", metavar="FILE", help="do what the plan.json of another run says")
    parser.add_argument("--languages", nargs="+", help="languages of the phrase corpus (default: en de)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the sentences and steps: a look")
    parser.add_argument("--seed", type=seed_option, help="of every draw (default: 0)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the processors there are)")
    add_precision(parser)
    parser.add_argument("--preset", help="recipe preset or file of the decoder (default: demo)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    parser.add_argument("--stage", action="append", default=None, help="run only this stage and what it needs")
    parser.set_defaults(run=run, watched=False)


def asked(options: argparse.Namespace) -> DemoOptions:
    """What the options ask for, and the environment."""
    from unitok_tokenizers.compute import PRECISION_VARIABLE
    from unitok_training.experiments.demo.plan import DemoOptions

    return DemoOptions(
        size=options.size,
        quick=options.quick,
        seed=options.seed,
        threads=options.threads,
        precision=options.precision or os.environ.get(PRECISION_VARIABLE) or None,
        manifest=None if options.manifest is None else str(Path(options.manifest).resolve()),
        languages=None if options.languages is None else tuple(options.languages),
        preset=options.preset,
        overrides=tuple(options.set),
    )


def run(options: argparse.Namespace) -> None:
    from unitok_tokenizers.corpora.phrases import check_languages
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.files import ensure_folder
    from unitok_training.experiments.demo.plan import plan_demo
    from unitok_training.experiments.demo.run import run_demo
    from unitok_training.recipes.decoder import load_recipe

    if options.manifest is not None:
        refuse_idle(options, ["languages"], "beside --manifest, whose rows name theirs")
    wanted, out = asked(options), Path(options.out)
    load_recipe(wanted.preset or "demo", wanted.overrides)  # a slip is told now, not after a measurement
    check_languages(wanted.languages or ())
    rows = None if wanted.manifest is None else len(read_manifest(wanted.manifest))
    ensure_folder(out)
    out.mkdir(exist_ok=True)
    say, display = shown_stages()
    plan = plan_demo(out, wanted, file=None if options.plan is None else Path(options.plan), rows=rows, report=say)
    report = run_demo(out, plan.config, report=say, display=display, expected=plan.seconds, only=options.stage)
    say(str(report))
