"""Commands about n-best lists: `nbest`, `rescore`, `correct`, `correction-experiment`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import (
    add_precision,
    chosen_precision,
    limit_option,
    refuse_idle,
    seed_option,
    shown_stages,
)

MADE_WITH = (
    "model", "source", "split", "limit", "snr", "size", "beams", "temperature", "target", "recognizer", "seed",
    "device", "precision",
)  # fmt: skip
"""Options of `nbest` that lists depend on."""


def add_commands(commands: Any) -> None:
    nbest = commands.add_parser("nbest", help="n-best lists of recordings, clean or with noise")
    nbest.add_argument("model", help="model directory")
    nbest.add_argument("source", help="shards or a manifest")
    nbest.add_argument("-o", "--out", default="lists.jsonl", help="file to write (default: %(default)s)")
    nbest.add_argument("--split", default="", help="only rows of these splits, with commas between (default: all)")
    nbest.add_argument("--limit", type=limit_option, default=0, help="most rows of each split (default: all)")
    nbest.add_argument("--snr", default="", help="noise, in dB below the speech; several, with commas, in turn")
    nbest.add_argument("--size", type=int, default=5, help="most hypotheses of a list (default: %(default)s)")
    nbest.add_argument("--beams", type=int, default=8, help="of the search (default: %(default)s)")
    nbest.add_argument("--temperature", type=float, default=0.0, help="above 0 draws instead of searching")
    nbest.add_argument("--target", help="translate into these languages, with commas, for lists of translations")
    nbest.add_argument(
        "--recognizer", "--recogniser", default="unitok", help="unitok, pocketsphinx, or a folder (judge, transformers)"
    )
    nbest.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(nbest)
    nbest.set_defaults(run=run_nbest)

    rescore = commands.add_parser("rescore", help="rescore lists with a model's text line, λ chosen on a dev split")
    rescore.add_argument("model", help="model directory whose text line scores")
    rescore.add_argument("lists", help="what nbest wrote, with references")
    rescore.add_argument("--dev", default="dev", help="split that λ is chosen on (default: %(default)s)")
    rescore.add_argument("--split", default="test", help="split that is scored (default: %(default)s)")
    rescore.add_argument(
        "--masked", type=int, default=0, help="steps of a scorer that fills in masked text (default: 0)"
    )
    rescore.add_argument("--head", type=int, default=0, help="steps of a head trained for word errors (default: 0)")
    rescore.add_argument("--source-lm", metavar="MODEL", help="model of the recognizer's own text: the density ratio")
    rescore.add_argument("--lengths", default="0", help="exponents of the lengths to try (default: %(default)s)")
    rescore.add_argument("--words", default="0", help="rewards of a word to try, with commas (default: %(default)s)")
    rescore.add_argument("--train-split", default="train", help="split that these learn from (default: %(default)s)")
    rescore.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(rescore)
    rescore.set_defaults(run=run_rescore, continues=False)

    correct = commands.add_parser("correct", help="teach a model to correct lists, and score it on others")
    correct.add_argument("model", help="model directory to start from")
    correct.add_argument("lists", help="what nbest wrote, with references")
    correct.add_argument("-o", "--out", help="model directory to write")
    correct.add_argument("--texts", help="file to write every corrected text to (JSON Lines)")
    correct.add_argument("--steps", type=int, default=200, help="of training, 0 for none (default: %(default)s)")
    correct.add_argument("--lora", type=int, default=0, help="rank of low-rank updates, the rest frozen (default: all)")
    correct.add_argument("--noise-vectors", type=int, default=0, help="vectors of the list's differences before it")
    correct.add_argument(
        "--experts", type=int, default=0, help="experts in place of every feed-forward (default: none)"
    )
    correct.add_argument("--hear", default="", help="encoder that hears the recordings: a judge, a latent model, …")
    correct.add_argument("--recordings", default="", help="shards or manifest of the lists, for models that hear")
    correct.add_argument("--frozen", action="store_true", help="with --hear, the decoder stays as it is")
    correct.add_argument("--lr", type=float, default=5e-4, help="peak learning rate (default: %(default)s)")
    correct.add_argument("--train-split", default="train", help="split that is learnt from (default: %(default)s)")
    correct.add_argument("--split", default="test", help="split that is scored (default: %(default)s)")
    correct.add_argument("--size", type=int, default=5, help="most hypotheses of a list (default: %(default)s)")
    correct.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(correct, precision=False)
    add_precision(correct, "fp32")
    correct.set_defaults(run=run_correct, continues=False)

    trial = commands.add_parser("correction-experiment", help="noise → lists → rescoring and correction, as figures")
    trial.add_argument("folder", metavar="RUN", help="run folder whose model, judge and shards are used (unitok demo)")
    trial.add_argument("-o", "--out", default="runs/correction", help="run folder (default: %(default)s)")
    trial.add_argument("--snr", default="15", help="noise, in dB below the speech; several, with commas, in turn")
    trial.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of a setting")
    add_precision(trial, "fp32")
    trial.set_defaults(run=run_experiment, watched=False)


def _numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    """One finite number or several."""
    from unitok_tokenizers.errors import InputError

    try:
        found = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(one) for one in found):
        raise InputError(f"{option} is {text!r}: write numbers with commas between, such as {example}")
    return found


def _noise(text: str) -> tuple[float, ...]:
    return _numbers(text, "--snr", "10,5,0 for dB") if text.strip() else ()


def run_nbest(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from unitok.nbest.collect import MakingOptions, Utterance, chosen, make_lists, utterances
    from unitok.nbest.kept_lists import KeptLists
    from unitok.nbest.lists import ListOptions
    from unitok.pipelines.backends.choose import recognizer_of, searches
    from unitok_tokenizers.compute import resolve_device
    from unitok_tokenizers.errors import InputError

    if options.temperature:
        refuse_idle(options, ["beams"], "above --temperature 0, where hypotheses are drawn")
    elif not _noise(options.snr) and not options.limit:
        refuse_idle(options, ["seed"], "at --temperature 0 without --snr and --limit, where nothing is drawn")
    if options.recognizer != "unitok":
        refuse_idle(options, ["temperature"], "with --recognizer, which searches")
        if not searches(options.recognizer):
            refuse_idle(options, ["beams"], f"with --recognizer {options.recognizer}, which has a search of its own")
    wanted = MakingOptions(
        splits=tuple(part for part in options.split.split(",") if part),
        limit=options.limit,
        snr=_noise(options.snr),
        lists=ListOptions(size=options.size, beams=options.beams, temperature=options.temperature, seed=options.seed),
        seed=options.seed,
    )
    resolve_device(options.device)
    found = utterances(options.source)
    named = [part.strip() for part in options.target.split(",")] if options.target is not None else []
    asked = [replace(wanted, task="s2tt", target=target) for target in dict.fromkeys(named)] or [wanted]
    order = [(one.id, each.target) for each in asked for one, _ in chosen(found, each)]  # refused before work is done
    kept, failures = KeptLists(options.out, _made_with(options)), list[str]()

    def failed(one: Utterance, error: InputError) -> None:
        failures.append(one.id)
        print(f"unitok nbest: {one.id}: {error}", file=sys.stderr)

    try:
        model = load_model(options)
        listens = options.recognizer
        other = None if listens == "unitok" else recognizer_of(listens, model, beams=options.beams)
        for each in asked:
            finished = kept.finished(each.target)
            for made in make_lists(model, found, each, recognizer=other, finished=finished, failed=failed):
                kept.append(made)
        print(kept.finish(order, missing=len(failures)))
    finally:
        kept.close()
    if failures:
        raise InputError(
            f"{len(failures)} of {len(order)} recordings have no list; the others are in {options.out}, and the same "
            "command tries these again"
        )


def _made_with(options: argparse.Namespace) -> dict[str, Any]:
    """What lists depend on, by the names of the options: those of another choice are not added to them."""
    from unitok.many.results_file import CONTENTS, model_fingerprint
    from unitok.pipelines.backends.choose import RECOGNISERS
    from unitok_tokenizers.files import sha256_file

    source = Path(options.source)
    table = source / "manifest.json" if source.is_dir() else source
    request = {name: getattr(options, name) for name in MADE_WITH}
    request[f"model{CONTENTS}"] = model_fingerprint(options.model)
    if options.recognizer not in RECOGNISERS and os.path.isdir(options.recognizer):
        request[f"recognizer{CONTENTS}"] = model_fingerprint(options.recognizer)
    if table.is_file():
        request[f"source{CONTENTS}"] = sha256_file(table)[:16]
    return request


def run_rescore(options: argparse.Namespace) -> None:
    from unitok.nbest.lists import read_lists
    from unitok_training.evaluation.nbest import Terms
    from unitok_training.finetune.rescore import head_figures, masked_scores, rescored

    if not options.masked and not options.head:
        idle = ["train_split", "seed"]
        refuse_idle(options, idle, "without --masked or --head, where nothing learns")
    terms = Terms(
        lengths=_numbers(options.lengths, "--lengths", "0,0.5,1"), words=_numbers(options.words, "--words", "0,0.5,1")
    )
    dev, test = (read_lists(options.lists, split=split) for split in (options.dev, options.split))
    model = load_model(options)
    source = None if options.source_lm is None else load_model(options, options.source_lm)
    found = rescored(model, test, dev, terms=terms, source=source)
    masked = partial(masked_scores, terms=terms)
    for name, steps, scores in (("masked", options.masked, masked), ("head", options.head, head_figures)):
        if steps:
            learnt = read_lists(options.lists, split=options.train_split)
            found[name] = scores(model, test, dev, learnt, steps=steps, precision=options.precision, seed=options.seed)
    print(json.dumps(found, indent=2))


def run_correct(options: argparse.Namespace) -> None:
    from unitok.model_directory import PARTS
    from unitok.nbest.audio_context import check_heard
    from unitok.nbest.lists import read_lists
    from unitok_tokenizers.files import atomic_write_bytes, check_no_device, ensure_folder, ensure_writable_parent
    from unitok_training.finetune.correct import SupervisedConfig, corrected, teach
    from unitok_training.finetune.supervised import FinetuneConfig
    from unitok_training.trainer.optimizer import OptimConfig

    if not options.steps:
        idle = ["lora", "noise_vectors", "experts", "hear", "frozen", "lr", "train_split", "seed", "precision"]
        refuse_idle(options, idle, "at --steps 0, where nothing learns")
    teaching = SupervisedConfig(
        read=options.size, lora=options.lora, noise_vectors=options.noise_vectors, experts=options.experts,
        hear=options.hear, recordings=options.recordings, frozen=options.frozen,
    )  # fmt: skip
    test = read_lists(options.lists, split=options.split)
    learnt = read_lists(options.lists, split=options.train_split) if options.steps else []
    if options.out is not None:
        ensure_folder(options.out, holds=PARTS)
    if options.texts is not None:
        check_no_device(Path(options.texts))
        ensure_writable_parent(Path(options.texts))
    model = load_model(options, trains=True)

    if learnt:
        optim = OptimConfig(learning_rate=options.lr, warmup_steps=min(20, options.steps))
        precision = chosen_precision(options.precision) or "fp32"
        config = FinetuneConfig(steps=options.steps, optim=optim, precision=precision, seed=options.seed)
        if teaching.hear:
            check_heard([*learnt, *test], options.recordings)
        teach(model, learnt, config, teaching)
        if options.out is not None:
            model.save(options.out)  # before anything is scored: what has learned is not lost
    found, texts = corrected(model, test, read=options.size, recordings=options.recordings)
    print(json.dumps(found, indent=2))
    if options.texts is not None:
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in texts)
        atomic_write_bytes(options.texts, lines.encode())
        print(options.texts)
    if options.out is not None:
        if not learnt:
            model.save(options.out)
        print(options.out)


def run_experiment(options: argparse.Namespace) -> None:
    from unitok_training.experiments.correction import CorrectionConfig, correction_table, run_correction
    from unitok_training.recipes.config import overridden

    precision = chosen_precision(options.precision) or "fp32"
    config = overridden(CorrectionConfig(snr=_noise(options.snr), precision=precision), options.set)
    say, display = shown_stages(stderr=True)
    results = run_correction(options.folder, options.out, config, report=say, display=display)
    print(correction_table(results))
    print(f"{options.out}/results.json")
