"""The command line that every corpus has: one message and exit code 2 for what a user can cause."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from unitok_tokenizers.errors import InputError


def check_counts(**counts: int) -> None:
    """InputError where fewer than no sentences of a split are asked for, or none at all."""
    for name, count in counts.items():
        if count < 0:
            raise InputError(f"{count} {name} sentences asked; give 0 or more")
    if not sum(counts.values()):
        raise InputError("no sentences asked; give 1 or more")


def made(make: Callable[[], Path]) -> int:
    """Make a corpus and print its manifest; the exit code."""
    try:
        print(make())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
