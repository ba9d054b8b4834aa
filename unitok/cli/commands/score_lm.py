"""The command `score-lm`: what a language model of speech knows."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitok.cli.arguments.device import add_device, load_model
from unitok.cli.arguments.options import limit_option, refuse_idle, seed_option

if TYPE_CHECKING:
    from unitok.model import Model
    from unitok_tokenizers.data.shards import Shards

SPEAKS, CURVE = ("synthesizer", "voices"), ("temperatures", "samples", "ears")


def add_commands(commands: Any) -> None:
    score = commands.add_parser(
        "score-lm", help="score a speech language model: words, sentences, stories, prosody, prediction, variety"
    )
    score.add_argument("model", help="model directory")
    score.add_argument(
        "data", help="shards of `prepare`, or a manifest, which is prepared in the folder that is written"
    )
    score.add_argument("-o", "--out", default="runs/score-lm", help="folder to write (default: %(default)s)")
    score.add_argument(
        "--metrics", nargs="+", default=[], metavar="NAME",
        help="of prediction, order, words, sentences, pairs, cloze, prosody, curve (default: all that can be measured)",
    )  # fmt: skip
    score.add_argument("--split", default="test", help="rows to score (default: %(default)s)")
    score.add_argument(
        "--limit", type=limit_option, default=0, help="most rows, words, sentences of a set, and stories"
    )
    score.add_argument(
        "--synthesizer", default="auto", metavar="NAME",
        help="what speaks words and sentences: espeak, toy, unitok (the model itself), a folder of a model, none, or "
        "auto, which is espeak where it is installed (default: auto)",
    )  # fmt: skip
    score.add_argument("--voices", nargs="+", default=[], metavar="VOICE", help="its voices, which take turns")
    score.add_argument("--lang", default="", help="language that is spoken (default: that of most training rows)")
    score.add_argument(
        "--pairs", nargs="+", default=[], metavar="MANIFEST",
        help="recorded pairs: two rows with the same pair, of which one has good true; set names their set",
    )  # fmt: skip
    score.add_argument(
        "--sentences", nargs="+", default=[], metavar="FILE",
        help="pairs of a right and a wrong sentence (.jsonl, as BLiMP has them; also .gz) to be spoken (default: "
        "sentences of the split, and the same with two words exchanged)",
    )  # fmt: skip
    score.add_argument("--known-words", default="", metavar="FILE", help="words that no pseudo-word may be, one a line")
    score.add_argument(
        "--document-key", default="", metavar="KEY",
        help="entry of the rows' extras that names the document whose sentences follow each other (default: sentences "
        "are cut in two)",
    )  # fmt: skip
    score.add_argument(
        "--label", default="prosody", metavar="KEY", help="entry that is the class (default: %(default)s)"
    )
    score.add_argument(
        "--temperatures", nargs="+", type=float, default=[], metavar="T", help="at which speech is drawn for the curve"
    )
    score.add_argument("--samples", type=int, default=100, help="utterances at each (default: %(default)s)")
    score.add_argument(
        "--ears", metavar="FOLDER", help="what recognizes them, as in evaluate (default: the model's asr)"
    )
    score.add_argument("--seed", type=seed_option, default=0, help="of every draw (default: %(default)s)")
    add_device(score)
    score.set_defaults(run=run_score_lm)


def run_score_lm(options: argparse.Namespace) -> None:
    from unitok.cli.commands.evaluate import ears_of
    from unitok_training.evaluation.run import Evaluation
    from unitok_training.speech_lm.run import TEMPERATURES, SpeechLmConfig, SpeechLmRun, run_speech_lm
    from unitok_training.speech_lm.spoken import Speaking
    from unitok_training.speech_lm.table import as_text

    if options.synthesizer == "none":
        refuse_idle(options, ["voices"], "with --synthesizer none")
    config = SpeechLmConfig(
        metrics=tuple(options.metrics),
        speaking=Speaking(synthesizer=options.synthesizer, voices=tuple(options.voices)),
        lang=options.lang,
        pairs=tuple(options.pairs),
        sentences=tuple(options.sentences),
        known_words=options.known_words,
        document=options.document_key,
        label=options.label,
        temperatures=tuple(options.temperatures) or TEMPERATURES,
        samples=options.samples,
    )
    refuse_unused(options)
    ears = ears_of(options.ears) if options.ears else None
    model = load_model(options)
    data = Evaluation(
        model=model, shards=shards_of(options.data, model, Path(options.out)), ears=ears, split=options.split,
        limit=options.limit, known_only=True, seed=options.seed,
    )  # fmt: skip
    run = SpeechLmRun(data=data, config=config, folder=Path(options.out))
    results = run_speech_lm(run, progress=lambda line: print(line, file=sys.stderr))
    print(as_text(results))
    print(Path(options.out) / "results.json")


def refuse_unused(options: argparse.Namespace) -> None:
    """InputError for what would change none of the metrics that were chosen."""
    uses = {
        "words": [*SPEAKS, "lang", "known_words"], "sentences": [*SPEAKS, "lang", "sentences"],
        "pairs": ["pairs", "lang"], "cloze": ["document_key"], "prosody": ["label"], "curve": CURVE,
    }  # fmt: skip
    if options.metrics:
        used = {name for metric in options.metrics for name in uses.get(metric, ())}
        idle = [name for names in uses.values() for name in names if name not in used]
        refuse_idle(options, idle, f"with --metrics {' '.join(options.metrics)}")


def shards_of(place: str, model: Model, out: Path) -> Shards:
    """Shards that are there, or those of a manifest, which are made beside the results."""
    from unitok_tokenizers.data.manifest import read_manifest
    from unitok_tokenizers.data.prepare import prepare_shards
    from unitok_tokenizers.data.shards import Shards

    if Path(place).is_dir() and (Path(place) / "manifest.json").is_file() or not Path(place).exists():
        return Shards.open(place, check=True)
    return prepare_shards(read_manifest(place), model.tokenizers, out / "shards")
