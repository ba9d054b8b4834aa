"""The command line: parse, call one function, print. What a user can cause is one message and exit code 2."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import NoReturn

import unitok
from unitok.cli.commands import (
    compare,
    cost,
    data,
    demo,
    doctor,
    evaluate,
    generate,
    model,
    nbest,
    prepare,
    score_lm,
    systems,
    tokbench,
    vocoder,
)
from unitok_tokenizers.errors import InputError, missing_extra
from unitok_tokenizers.files import cannot_use
from unitok_tokenizers.progress import Watch

RENAMED = {"plan": "unitok cost", "prosody": "unitok systems run prosody"}
"""Command of before → what it is called now."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands."""
    parser = Parser(prog="unitok", description="One decoder that reads and writes text and speech.")
    parser.add_argument("--version", action="version", version=f"unitok {unitok.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (
        *(demo, data, prepare, tokbench, vocoder, model, generate),
        *(evaluate, score_lm, systems, compare, nbest, cost, doctor),
    ):
        module.add_commands(commands)
    for command in each_command(parser):
        command.set_defaults(parser=command)
    return parser


def each_command(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of all commands, nested ones in place of those that hold them."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in nested:
        for one in action.choices.values():
            yield from each_command(one)
    if not nested:
        yield parser


def renamed(arguments: Sequence[str]) -> str | None:
    """What a command of before is called now; None for one that is not of before."""
    first, second = (*arguments, "", "")[:2]
    if first == "systems" and second and second not in ("list", "run") and not second.startswith("-"):
        from unitok_training.systems.registry import SYSTEMS

        return f"unitok systems run {second}" if second in SYSTEMS else None
    return RENAMED.get(first)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if (now := renamed(given)) is not None:
        print(f"unitok {given[0]}: this command is now `{now}`; see {now} --help", file=sys.stderr)
        return 2
    options = build_parser().parse_args(given)
    with interrupts() as interrupted:
        try:
            return _run(options)
        except Exception:
            # An interrupt that lands while a module of C is imported leaves as whatever that module makes of it.
            if not interrupted():
                raise
            print(f"unitok {options.command}: stopped; {_next_time(options)}", file=sys.stderr)
            return 128 + signal.SIGINT


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT came; it raises KeyboardInterrupt as before (main thread only)."""
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield lambda: False
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(options: argparse.Namespace) -> int:
    """The command itself; returns the exit code."""
    try:
        # Commands whose stages are processes of their own show those; all others are watched here.
        with Watch(options.command) if getattr(options, "watched", True) else nullcontext():
            options.run(options)
    except InputError as error:
        print(f"unitok {options.command}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if (needed := missing_extra(error)) is None:
            raise
        print(f"unitok {options.command}: {needed}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `unitok inspect … | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"unitok {options.command}: {cannot_use(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        # A run that was asked to stop says where it has saved, and by which signal it was asked.
        said = f"stopped, {error}" if str(error) else "stopped"
        print(f"unitok {options.command}: {said}; {_next_time(options)}", file=sys.stderr)
        return 128 + int(getattr(error, "number", signal.SIGINT))
    return 0


def _next_time(options: argparse.Namespace) -> str:
    """What a repeat of a command does that was stopped; one that keeps nothing says so by `continues`."""
    return f"the same command {'continues' if getattr(options, 'continues', True) else 'begins anew'}"
