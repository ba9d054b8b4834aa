"""What several commands' options have in common."""

from __future__ import annotations

import argparse

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.seeds import read_seed


def seed_option(text: str) -> int:
    """The `type` of every `--seed`: a whole number, told apart from other text before anything is loaded."""
    try:
        return read_seed(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("seed is ")) from None
