"""The command line that every corpus has: one message and exit code 2 for what a user can cause."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from unitok_tokenizers.errors import InputError


def made(make: Callable[[], Path]) -> int:
    """Make a corpus and print its manifest; the exit code."""
    try:
        print(make())
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
