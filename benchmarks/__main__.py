"""`python -m benchmarks [SUBJECT …] [--rounds N] [--seed N] [--seeds N]
[--updates N] [--force] [--quick] [-o runs/bench]`.

`python -m benchmarks gpu …` is a command of its own (`benchmarks.gpu`).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A checkout runs without being installed; an installed package comes first on the path and is the same files.
sys.path[1:1] = [str(ROOT / name) for name in ("tokenizers", "vocoder", "training")]

from benchmarks import machine, results, table  # noqa: E402
from benchmarks.context import Context  # noqa: E402
from benchmarks.subjects import SUBJECTS, TIMED  # noqa: E402
from unitok.cli.arguments.options import seed_option  # noqa: E402
from unitok_tokenizers.errors import InputError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run subjects and write their results, or `gpu` with options of its own; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["gpu"]:
        from benchmarks import gpu

        return gpu.main(given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", help=f"which (default: all): {', '.join(SUBJECTS)}")
    parser.add_argument("--rounds", type=int, default=3, help="times that every arm runs, in turn (default: 3)")
    parser.add_argument("--seed", type=seed_option, default=0, help="seed of weights, prompts and lengths (default: 0)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="trainings of each arm of `layouts`, from --seed on (default: 1)"
    )
    parser.add_argument("--updates", type=int, default=0, help="updates of such a training (default: as many as usual)")
    parser.add_argument(
        "--force", action="store_true", help="measure on a busy machine or what is not committed; the rows say so"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the plumbing; nothing is published")
    parser.add_argument(
        "-o", "--out", default="runs/bench", help="folder of scratch files and of the results of --quick"
    )
    options = parser.parse_args(given)
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
    if options.seeds < 1 or options.updates < 0:
        raise InputError(f"--seeds is {options.seeds}, --updates {options.updates}: give 1 or more of both")
    if options.seed < 0:
        raise InputError(f"--seed is {options.seed}: give 0 or more")
    out = Path(options.out)
    context = Context(
        folder=out / "work", rounds=options.rounds, quick=options.quick, seed=options.seed, seeds=options.seeds,
        updates=options.updates, bf16=machine.bfloat16(),
    )  # fmt: skip
    context.folder.mkdir(parents=True, exist_ok=True)
    path = out / "results.json" if options.quick else ROOT / "benchmarks" / "results.json"
    for name in names:
        _measure(name, context, path, force=options.force or options.quick)
        if not options.quick:
            text = table.markdown(results.read(path))
            (ROOT / "benchmarks" / "RESULTS.md").write_text(text, encoding="utf-8")
    print(path)


def _measure(name: str, context: Context, path: Path, *, force: bool) -> None:
    """Measure a subject and put it into the file. InputError where nobody should believe the figures."""
    timed = name in TIMED
    commit = machine.check_commit(force)
    before = machine.check_quiet(force or not timed)
    print(f"{name}: {context.rounds} rounds, other work takes {before:.0%}", flush=True)
    begin = time.monotonic()
    with machine.Watch() as watch:
        outcome = SUBJECTS[name](context)
    busy = max(before, machine.check_quiet(force or not timed, watch.share))
    forced = [f"{busy:.0%} other work"] if timed and busy > machine.BUSY_SHARE else []
    forced += ["not a commit"] if not commit or commit.endswith("+") else []
    described = machine.describe()
    run = results.Run(
        commit=commit, rounds=context.rounds, threads=described["threads"], seed=context.seed, bfloat16=context.bf16,
        busy_share=busy, forced=tuple(forced),
    )  # fmt: skip
    found = results.read(path)
    results.save(results.merge(found, name, outcome, kind=machine.kind(), machine=described, run=run), path)
    for key, value in outcome.ratios.items():
        print(f"  {key}: {'—' if value is None else table.number(value)}", flush=True)
    print(f"  {time.monotonic() - begin:.0f} s, other work took {busy:.0%}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
