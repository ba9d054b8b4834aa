"""`python -m benchmarks [SUBJECT …] [--rounds N] [--force] [--quick] [-o runs/bench]`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A checkout runs without being installed; an installed package comes first on the path and is the same files.
sys.path[1:1] = [str(ROOT / name) for name in ("tokenizers", "vocoder", "training")]

from benchmarks import machine, results  # noqa: E402
from benchmarks.context import Context  # noqa: E402
from benchmarks.subjects import SUBJECTS, TIMED  # noqa: E402
from unitok_tokenizers.errors import InputError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run subjects and write their results; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"which (default: all): {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="times that every arm runs, in turn (default: 3)")
    parser.add_argument("--force", action="store_true", help="measure on a busy machine; the results say so")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to try the plumbing; RESULTS.md is not written"
    )
    parser.add_argument("-o", "--out", default="runs/bench", help="folder of results.json (default: runs/bench)")
    options = parser.parse_args(arguments)
    try:
        run(options)
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    """Measure, and write after every subject: what ran before a failure is kept."""
    names = options.subjects or list(SUBJECTS)
    unknown = [name for name in names if name not in SUBJECTS]
    if unknown:
        raise InputError(f"no subject {unknown[0]!r}; choose from {', '.join(SUBJECTS)}")
    if options.rounds < 1:
        raise InputError(f"--rounds is {options.rounds}: give 1 or more")
    out = Path(options.out)
    context = Context(folder=out / "work", rounds=options.rounds, quick=options.quick)
    context.folder.mkdir(parents=True, exist_ok=True)
    found = results.read(out / "results.json")
    described = machine.describe()
    for name in names:
        timed = name in TIMED and not options.quick
        busy = machine.check_quiet(options.force or not timed)
        print(f"{name}: {options.rounds} rounds, other work takes {busy:.0%}", flush=True)
        outcome = SUBJECTS[name](context)
        after = machine.busy_share()
        share = {"busy_share": max(busy, after), "rounds": options.rounds}
        forced = timed and max(busy, after) > machine.BUSY_SHARE
        results.merge(found, name, outcome, machine=described, run={**share, "forced": forced, "quick": options.quick})
        table = None if options.quick else ROOT / "benchmarks" / "RESULTS.md"
        results.save(found, out / "results.json", table)
        for key, value in outcome.ratios.items():
            print(f"  {key}: {'—' if value is None else results.number(value)}", flush=True)
    print(out / "results.json")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
