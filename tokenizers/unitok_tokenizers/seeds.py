"""Seeds: which numbers are one, and how one becomes many that have nothing to do with each other."""

from __future__ import annotations

import hashlib
from numbers import Integral

import numpy as np

from unitok_tokenizers.errors import InputError

LARGEST_SEED = 2**63 - 1
"""What torch, numpy and a signed 64-bit integer all hold."""


def check_seed(value: object, name: str = "seed") -> int:
    """A seed as int; InputError where it is none."""
    whole = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if not whole or not 0 <= int(value) <= LARGEST_SEED:  # type: ignore[call-overload]
        raise InputError(f"{name} is {str(value)[:40]}: give a whole number from 0 to 2**63 - 1")
    return int(value)  # type: ignore[call-overload, no-any-return]


def read_seed(text: str, name: str = "seed") -> int:
    """A seed from what somebody typed: digits alone; InputError otherwise."""
    plain = text.isascii() and text.isdigit() and len(text) < 40  # int() would read "1_0" and " 1 " too
    return check_seed(int(text) if plain else text, name)


def spread(seed: int, count: int) -> list[int]:
    """`count` seeds of one: the k-th is a function of (seed, k), so that more of them change none."""
    drawn = (np.random.SeedSequence([check_seed(seed), index]).generate_state(1, np.uint64) for index in range(count))
    return [int(one[0]) & LARGEST_SEED for one in drawn]


def named_seed(seed: int, name: str) -> int:
    """The seed of something that has a name, wherever it stands in a list."""
    digest = hashlib.sha256(f"{check_seed(seed)}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "little") & LARGEST_SEED
