"""What several commands have in common: kinds of options, and how the stages of a pipeline are shown."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import read_seed

if TYPE_CHECKING:
    from unitok_training.runs.stage_progress import Display


def seed_option(text: str) -> int:
    """The `type` of every `--seed`: a whole number, told apart from other text before anything is loaded."""
    try:
        return read_seed(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("seed is ")) from None


def limit_option(text: str) -> int:
    """The `type` of every `--limit`: how many at most; 0 is all where the command says so."""
    try:
        found = int(text)
    except ValueError:
        found = -1
    if found < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, 0 or more")
    return found


def check_limit(options: argparse.Namespace) -> None:
    """InputError for a `--limit` of nothing, where 0 is not all."""
    if not options.limit:
        raise InputError("--limit is 0: give 1 or more")


def named_pairs(
    option: str, given: Sequence[str], form: str = "NAME=FILE", such: str = "units=units.json"
) -> dict[str, str]:
    """Left → right of each; InputError, naming the option and its form, for another one or a name that comes twice."""
    found: dict[str, str] = {}
    for item in given:
        name, sign, value = item.partition("=")
        if not (sign and name and value):
            raise InputError(f"{option} is {item!r}: write {form}, such as {option} {such}")
        if name in found:
            raise InputError(f"{option} {name} is given twice; give it once")
        found[name] = value
    return found


def refuse_idle(options: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """InputError for the first of these options that was given though it changes nothing: `why` says when."""
    parser: argparse.ArgumentParser = options.parser
    for action in parser._actions:
        if action.dest in names and getattr(options, action.dest) != parser.get_default(action.dest):
            name = max(action.option_strings, key=len)
            raise InputError(f"{name} changes nothing {why}; leave it out")


def add_precision(parser: argparse.ArgumentParser, default: str = "auto, what this machine is quick with") -> None:
    """The option of every command that trains; `default` says what it is without."""
    parser.add_argument("--precision", metavar="P", help=f"fp32, bf16 or auto (default: {default})")


def chosen_precision(given: str | None) -> str | None:
    """What was given, if it is a precision, or None; InputError that names the option."""
    from unitok_tokenizers.compute import check_precision
    from unitok_tokenizers.errors import InputError

    if given is not None and check_precision(given, "--precision") == "bf16-pure":
        raise InputError("--precision is 'bf16-pure': choose auto, fp32 or bf16; `unitok train` alone takes it")
    return given


def precision_override(given: str | None) -> list[str]:
    """As an override of a recipe that has `train.precision`; none where nothing was given."""
    return [] if given is None else [f"train.precision={given}"]


def add_allow_change(parser: argparse.ArgumentParser, others: str = "") -> None:
    """`--allow-change KEY`, for a run that is continued with other settings, or with `others` that the command has."""
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY",
        help=f"what may differ from the run that is continued: {others}a setting such as train.optim.learning_rate",
    )  # fmt: skip


def add_text_evals(parser: argparse.ArgumentParser, what: str) -> None:
    """`--text-evals FILE…`; `what` says what comes of it."""
    parser.add_argument(
        "--text-evals", nargs="+", metavar="FILE",
        help=f"{what}: texts, one a line (.txt), for their perplexity, and pairs of a right and a wrong sentence "
        "(.jsonl, as BLiMP has them); also .gz",
    )  # fmt: skip


def add_table(parser: argparse.ArgumentParser) -> None:
    """The manifest of a command, and what it does not say of itself."""
    parser.add_argument("manifest", help="JSON Lines, CSV, TSV, or a table of another tool (docs/formats.md)")
    parser.add_argument("--lang", default="en", help="language of rows that name none (default: %(default)s)")
    add_columns(parser)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """`--columns OURS=THEIRS`."""
    parser.add_argument(
        "--columns", nargs="+", default=[], metavar="OURS=THEIRS",
        help="which column is our audio, text, speaker …; - for none, a number where there is no header",
    )  # fmt: skip


def chosen_columns(options: argparse.Namespace) -> dict[str, str]:
    """Our names → theirs."""
    found: dict[str, str] = {}
    for item in options.columns:
        ours, sign, theirs = item.partition("=")
        if not sign or not theirs:
            raise InputError(f"--columns is {item!r}: write OURS=THEIRS, such as text=sentence")
        found[ours] = theirs
    return found


def shown_stages(*, stderr: bool = False) -> tuple[Callable[[str], None], Display | None]:
    """(what takes lines, what shows the stages of a pipeline: bars on a terminal, None for lines)."""
    from rich.console import Console

    from unitok_training.runs.stage_progress import BarDisplay

    console = Console(highlight=False, stderr=stderr)

    def say(line: str) -> None:
        console.print(f"[{time.strftime('%H:%M:%S')}] {line}", markup=False, soft_wrap=True)

    return say, BarDisplay() if console.is_terminal else None
