"""`unitok tokbench`: tokenizers beside one another."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device
from unitok.cli.arguments.options import add_table, chosen_columns, limit_option, refuse_idle, seed_option

if TYPE_CHECKING:
    from unitok_training.tokbench.resynthesis import Synthesizing
    from unitok_vocoder.vocoder import Vocoder

AUTO, NONE = "auto", "none"


def add_commands(commands: Any) -> None:
    bench = commands.add_parser("tokbench", help="compare tokenizers: text, voice, bit rate, resynthesis, speed")
    add_table(bench)
    bench.add_argument(
        "--tokenizers", nargs="+", required=True, metavar="DIR", help="what fit-tokenizers wrote: all of their streams"
    )
    bench.add_argument("-o", "--out", default="runs/tokbench", help="folder to write (default: %(default)s)")
    bench.add_argument("--split", default="test", help="rows to score on (default: %(default)s)")
    bench.add_argument("--limit", type=limit_option, default=100, help="most of them (default: %(default)s)")
    bench.add_argument(
        "--train-limit", type=limit_option, default=1000, help="most rows of train to learn from (default: %(default)s)"
    )
    bench.add_argument(
        "--probe-steps", type=int, default=600, help="of the reader of tokens, 0 for no text alignment (default: 600)"
    )
    bench.add_argument(
        "--synthesizer-steps", type=int, default=900, help="of what speaks units, 0 to leave them (default: 900)"
    )
    bench.add_argument(
        "--ears", default=AUTO, metavar="FOLDER",
        help="what reads the resynthesis: a Whisper folder, auto for the packages of `make install-real`, or none "
        "(default: auto)",
    )  # fmt: skip
    bench.add_argument("--vocoder", metavar="DIR", help="a model's, for its codes and log-mels (default: Griffin-Lim)")
    bench.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(bench, precision=False)
    bench.set_defaults(run=run_tokbench)


def run_tokbench(options: argparse.Namespace) -> None:
    from unitok_tokenizers.compute import resolve
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_training.evaluation.ears.find import HOW_TO_GET, find_ears
    from unitok_training.tokbench import run as bench
    from unitok_training.tokbench.hearing import Hearing
    from unitok_training.tokbench.table import as_text
    from unitok_training.tokbench.text_alignment import ReaderConfig

    if options.ears == NONE:
        refuse_idle(options, ["synthesizer_steps", "vocoder"], "with --ears none, where nobody hears the resynthesis")
    config = bench.TokbenchConfig(
        split=options.split,
        limit=options.limit,
        train_limit=options.train_limit,
        reader=ReaderConfig(steps=options.probe_steps, seed=options.seed),
        synthesizing=_synthesizing(options),
        seed=options.seed,
    )
    ears = None if options.ears == NONE else find_ears(options.ears)
    without = "--ears none" if options.ears == NONE else f"no ears are installed: {HOW_TO_GET}"
    rows = read_manifest(options.manifest, default_lang=options.lang, columns=chosen_columns(options))
    results = bench.run_tokbench(
        rows,
        options.tokenizers,
        Path(options.out),
        config,
        hearing=lambda corpus: Hearing(ears=ears, corpus=corpus, without=without),
        compute=resolve(options.device, "fp32"),
        notice=lambda line: print(line, file=sys.stderr),
    )
    print(as_text(results))
    print(Path(options.out) / "table.md")


def _synthesizing(options: argparse.Namespace) -> Synthesizing:
    from unitok_training.tokbench.resynthesis import Synthesizing

    return Synthesizing(
        steps=options.synthesizer_steps,
        vocoder=None if options.vocoder is None else _vocoder(options.vocoder),
        seed=options.seed,
    )


def _vocoder(folder: str) -> Vocoder:
    from unitok_tokenizers.errors import InputError
    from unitok_vocoder.vocoder import Vocoder

    found = Vocoder.load(folder)
    if found.mel is None and found.codes is None:
        raise InputError(f"--vocoder {folder} has no network for log-mels or codes (Griffin-Lim speaks); leave it out")
    return found
