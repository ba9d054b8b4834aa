"""The command `evaluate`: a model's scores on shards, on a manifest, or how free samples end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import add_text_evals, limit_option, refuse_idle

if TYPE_CHECKING:
    from unitok.model import Model
    from unitok_training.evaluation.ears.interfaces import Ears


def add_commands(commands: Any) -> None:
    evaluate = commands.add_parser("evaluate", help="score a model on shards")
    evaluate.add_argument("model", help="model directory")
    evaluate.add_argument(
        "shards", nargs="*", metavar="SHARDS",
        help="what prepare wrote; several folders are scored one by one; of a latent model a manifest, JSON Lines or "
        "TSV; may be left out with --text-evals",
    )  # fmt: skip
    evaluate.add_argument("--judge", help="judge folder; generated audio is scored by it, by --ears, or not at all")
    evaluate.add_argument(
        "--ears",
        metavar="FOLDER",
        help="score English speech by a Whisper that never saw the corpus: a local folder of CTranslate2 or Hugging "
        "Face, or auto for the packages of `make install-real`, which also bring voice similarity and DNSMOS",
    )
    evaluate.add_argument("--split", default="test", help="rows to score (default: %(default)s)")
    evaluate.add_argument("--limit", type=limit_option, default=0, help="most rows per task")
    evaluate.add_argument(
        "--safety",
        type=int,
        nargs="?",
        const=1000,
        metavar="N",
        help="instead of scores: how N freely sampled outputs per task end (default N: 1000)",
    )
    evaluate.add_argument(
        "--against",
        metavar="MODEL",
        help="score another model too, such as the one that training started from, on what it knows of the same rows; "
        "a table has both beside each other",
    )
    add_text_evals(evaluate, "also, or only, how well it knows text alone")
    add_device(evaluate)
    evaluate.set_defaults(run=run_evaluate, continues=False)


def run_evaluate(options: argparse.Namespace) -> None:
    from unitok_tokenizers.errors import InputError

    if not options.shards:
        if options.text_evals is None:
            raise InputError("nothing to score: give SHARDS, or --text-evals FILE")
        refuse_idle(
            options,
            ["judge", "ears", "split", "limit", "safety", "against"],
            "without SHARDS, where text alone is scored",
        )
        scorer = None
    elif options.safety is not None:
        refuse_idle(options, ["judge", "ears", "limit", "text_evals", "against"], "with --safety, which scores nothing")
        scorer = safety_scorer
    elif all(Path(one).is_file() for one in options.shards):
        refuse_idle(
            options, ["judge", "ears", "against"], "for a manifest, whose recordings are read and nothing is spoken"
        )
        scorer = latent_scorer
    else:
        scorer = shards_scorer
    known = text_scorer(options)  # the files, before anything is scored
    model = load_model(options)
    other = None if options.against is None else load_model(options, options.against)
    found = scored(options, scorer, model)
    if other is not None:
        assert scorer is shards_scorer
        found["against"] = {**scored(options, partial(shards_scorer, known_only=True), other), **known(other)}
    print(json.dumps({**found, **known(model)}, indent=2), flush=True)
    if other is not None:
        tell_beside(options, found)


def scored(
    options: argparse.Namespace, scorer: Callable[[argparse.Namespace, Model], Scorer] | None, model: Model
) -> dict[str, Any]:
    """What is printed of a model: of one folder its figures, of several those of each."""
    if scorer is None:
        return {}
    score = scorer(options, model)
    every = {one: score(one) for one in options.shards}
    return every[options.shards[0]] if len(options.shards) == 1 else {"folders": every}


def tell_beside(options: argparse.Namespace, found: dict[str, Any]) -> None:
    """The figures of both models, folder by folder, for people."""
    from unitok_training.reports.beside import beside

    both = [found.get("folders", {options.shards[0]: found}), found["against"]]
    both[1] = both[1].get("folders", {options.shards[0]: both[1]})
    for folder in options.shards:
        after = {key: value for key, value in both[0][folder].items() if key != "against"}
        print(
            "\n".join([f"\n{folder}: {options.against}, {options.model}", *beside(both[1][folder], after)]),
            file=sys.stderr,
        )


def text_scorer(options: argparse.Namespace) -> Callable[[Model], dict[str, Any]]:
    """`--text-evals`: what a model makes of texts and of pairs of sentences; nothing where there are none."""
    from unitok_training.evaluation.text_ability import evaluate_text, read_text_evals

    if options.text_evals is None:
        return lambda model: {}
    evals = read_text_evals(options.text_evals)
    return lambda model: evaluate_text(model.decoder, model.tokenizers.text, model.vocabulary, evals)


Scorer = Callable[[str], dict[str, Any]]
"""Path of shards or of a manifest → what is printed of it."""


def shards_scorer(options: argparse.Namespace, model: Model, *, known_only: bool = False) -> Scorer:
    """Scores of a model on shards; with `known_only` on rows in its languages, and none where there are none."""
    from unitok_tokenizers.data.shards import Shards
    from unitok_training.evaluation.asr_scorer import AsrScorer
    from unitok_training.evaluation.evaluate import evaluate
    from unitok_training.evaluation.run import Evaluation

    every = [Shards.open(one, check=True) for one in options.shards]  # all, before the first is scored
    judge = AsrScorer.load(Path(options.judge)) if options.judge else None
    ears = ears_of(options.ears) if options.ears else None

    def score(place: str) -> dict[str, Any]:
        shards = every[options.shards.index(place)]
        run = Evaluation(
            model=model, shards=shards, judge=judge, ears=ears, split=options.split, limit=options.limit,
            known_only=known_only,
        )  # fmt: skip
        if known_only and not run.all_rows(options.split):
            return {}
        return evaluate(run, progress=lambda line: print(line, file=sys.stderr)).metrics

    return score


def ears_of(where: str) -> Ears:
    """`--ears`; InputError where none is found."""
    from unitok_tokenizers.errors import InputError
    from unitok_training.evaluation.ears.find import HOW_TO_GET, find_ears

    found = find_ears(where)
    if found is None:
        raise InputError(f"--ears auto finds no package with weights: {HOW_TO_GET}")
    return found


def latent_scorer(options: argparse.Namespace, model: Model) -> Scorer:
    """Scores on a manifest: recordings through the latent front end, which needs no shards."""
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.errors import InputError
    from unitok_training.data.latent_tasks import LATENT_TASKS
    from unitok_training.evaluation.latent import score_lines

    if model.latent is None:
        raise InputError(f"{options.model} has no latent front end: it is scored on shards, the folder of `prepare`")
    known = (name.removeprefix("latent.") for name in model.info.get("tasks", []) if name.startswith("latent."))
    tasks = [name for name in dict.fromkeys(known) if name in LATENT_TASKS]  # a start's tasks on tokens stand there too

    def score(place: str) -> dict[str, Any]:
        rows = [row for row in read_manifest(place) if row.split == options.split]
        if not rows:
            raise InputError(f"{place}: no rows of split {options.split!r}")
        return score_lines(model, rows, tasks, options.limit)

    return score


def safety_scorer(options: argparse.Namespace, model: Model) -> Scorer:
    """How free samples end."""
    from unitok_tokenizers.data.shards import Shards
    from unitok_training.evaluation.safety import check_safety

    def score(place: str) -> dict[str, Any]:
        return check_safety(
            model, Shards.open(place, check=True), samples=options.safety, split=options.split,
            progress=lambda task: print(f"sampling {task}", file=sys.stderr),
        )  # fmt: skip

    return score
