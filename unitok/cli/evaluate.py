"""The command `evaluate`: a model's scores on shards, on a manifest, or how free samples end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.device import add_device, load_model
from unitok.cli.options import refuse_idle

if TYPE_CHECKING:
    from unitok_training.evaluation.ears.interfaces import Ears


def add_commands(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="score a model on shards")
    evaluate.add_argument("model", help="model directory")
    evaluate.add_argument("shards", help="what prepare wrote; of a latent model a manifest, JSON Lines or TSV")
    evaluate.add_argument("--judge", help="judge folder; generated audio is scored by it, by --ears, or not at all")
    evaluate.add_argument(
        "--ears",
        metavar="FOLDER",
        help="score English speech by a Whisper that never saw the corpus: a local folder of CTranslate2 or Hugging "
        "Face, or auto for the packages of `make install-real`, which also bring voice similarity and DNSMOS",
    )
    evaluate.add_argument("--split", default="test", help="rows to score (default: %(default)s)")
    evaluate.add_argument("--limit", type=int, default=0, help="most rows per task")
    evaluate.add_argument(
        "--safety",
        type=int,
        nargs="?",
        const=1000,
        metavar="N",
        help="instead of scores: how N freely sampled outputs per task end (default N: 1000)",
    )
    add_device(evaluate)
    evaluate.set_defaults(run=run_evaluate)


def run_evaluate(options: argparse.Namespace) -> None:
    import sys

    from unitok_tokenizers.data.shards import Shards
    from unitok_training.evaluation.asr_scorer import AsrScorer
    from unitok_training.evaluation.evaluate import evaluate
    from unitok_training.evaluation.run import Evaluation

    if options.safety is not None:
        refuse_idle(options, ["judge", "ears", "limit"], "with --safety, which scores nothing")
        report_safety(options)
        return
    if Path(options.shards).is_file():
        refuse_idle(options, ["judge", "ears"], "for a manifest, whose recordings are read and nothing is spoken")
        report_latent(options)
        return
    run = Evaluation(
        model=load_model(options),
        shards=Shards.open(options.shards, check=True),
        judge=AsrScorer.load(Path(options.judge)) if options.judge else None,
        ears=ears_of(options.ears) if options.ears else None,
        split=options.split,
        limit=options.limit,
    )
    found = evaluate(run, progress=lambda line: print(line, file=sys.stderr))
    print(json.dumps(found.metrics, indent=2))


def ears_of(where: str) -> Ears:
    """`--ears`; InputError where none is found."""
    from unitok_tokenizers.errors import InputError
    from unitok_training.evaluation.ears.find import HOW_TO_GET, find_ears

    found = find_ears(where)
    if found is None:
        raise InputError(f"--ears auto finds no package with weights: {HOW_TO_GET}")
    return found


def report_latent(options: argparse.Namespace) -> None:
    """`evaluate` on a manifest: recordings through the latent front end, which needs no shards."""
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.errors import InputError
    from unitok_training.evaluation.latent import score_lines

    model = load_model(options)
    if model.latent is None:
        raise InputError(f"{options.model} has no latent front end: it is scored on shards, the folder of `prepare`")
    rows = [row for row in read_manifest(options.shards) if row.split == options.split]
    if not rows:
        raise InputError(f"{options.shards}: no rows of split {options.split!r}")
    tasks = [name.removeprefix("latent.") for name in model.info.get("tasks", [])]
    print(json.dumps(score_lines(model, rows, tasks, options.limit or len(rows)), indent=2))


def report_safety(options: argparse.Namespace) -> None:
    """`evaluate --safety`."""
    import sys

    from unitok_tokenizers.data.shards import Shards
    from unitok_training.evaluation.safety import check_safety

    found = check_safety(
        load_model(options),
        Shards.open(options.shards, check=True),
        samples=options.safety,
        split=options.split,
        progress=lambda task: print(f"sampling {task}", file=sys.stderr),
    )
    print(json.dumps(found, indent=2))
