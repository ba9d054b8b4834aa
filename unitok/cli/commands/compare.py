"""`unitok compare`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unitok.cli.arguments.options import add_precision, chosen_precision, refuse_idle, shown_stages


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("compare", help="tokens, latent vectors and a cascade on one corpus and one budget")
    parser.add_argument(
        "manifest", nargs="?", help="recordings with translations (JSON Lines or TSV); without it, the phrase corpus"
    )
    parser.add_argument("-o", "--out", default="runs/compare", help="run folder (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="also equal optimizer steps and equal trainable parameters")
    parser.add_argument(
        "--layouts", nargs="+", default=[], metavar="LAYOUT",
        help="also codes of a codec, read and written, once for each layout of their codebooks: flat, depth, delay, …",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each approach (default: %(default)s)")
    parser.add_argument("--languages", nargs="+", default=["en", "de"], help="languages of the phrase corpus")
    parser.add_argument("--threads", type=int, help="CPU threads (default: the processors there are)")
    add_precision(parser, "what each recipe says")
    parser.add_argument("--preset", default="compare", help="compare or tiny (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of the recipe")
    parser.add_argument(
        "--add", action="append", default=[], metavar="FILE", help="results.json of another command, to stand beside"
    )
    parser.set_defaults(run=run, watched=False)


def run(options: argparse.Namespace) -> None:
    from unitok_tokenizers.compute import AUTO, available_threads
    from unitok_training.experiments.compare.report import as_text
    from unitok_training.experiments.compare.run import CompareConfig, run_compare

    if options.manifest is not None:
        refuse_idle(options, ["languages"], "beside a manifest, whose rows name theirs")
    config = CompareConfig(
        manifest=None if options.manifest is None else str(Path(options.manifest).resolve()),
        languages=tuple(options.languages),
        seeds=options.seeds,
        full=options.full,
        layouts=tuple(options.layouts),
        threads=options.threads or available_threads(),
        precision=chosen_precision(options.precision) or AUTO,
        preset=options.preset,
        overrides=tuple(options.set),
        added=tuple(options.add),
    )
    say, display = shown_stages(stderr=True)
    results = run_compare(Path(options.out), config, report=say, display=display)
    print(as_text(results))
    print(Path(options.out) / "report.html")
