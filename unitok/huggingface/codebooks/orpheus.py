"""Orpheus: a Llama that writes SNAC's codes at 24 kHz, seven ids a frame.

SNAC has three codebooks of different rates: one code, two and four a frame. Orpheus writes a frame as seven ids, each
with 4096 rows of its own: here a stream of seven codebooks. `to_snac` and `from_snac` go between the two.

F frames of 2048 samples.
"""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
from torch import Tensor

from unitok.huggingface.codebooks.base import Brought, HostFolder, Leaving
from unitok.huggingface.codebooks.flat import first_id, flat_state, numbered, read_flat
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.streams import StreamInfo

TOKEN = re.compile(r"<custom_token_(\d+)>")
FIRST, SIZE = 10, 4096
"""Number of the token that is code 0 of the first codebook, and codes of each."""
LEVELS = (0, 1, 2, 2, 1, 2, 2)
"""Codebook of SNAC that each of a frame's seven codes is of."""
SNAC = StreamInfo("snac", "codes", "snac-24khz", Fraction(24000, 2048), (SIZE,) * len(LEVELS))
"""Seven codes a frame."""


class Orpheus:
    """Folders whose tokenizers have `<custom_token_10>` and the 28,671 behind it."""

    name = "orpheus"

    def claims(self, folder: HostFolder) -> bool:
        """As `Family`."""
        last = FIRST + SIZE * len(LEVELS) - 1
        return all(f"<custom_token_{number}>" in folder.tokens for number in (FIRST, last))

    def read(self, folder: HostFolder) -> Brought:
        """As `Family`."""
        numbers = range(FIRST, FIRST + SIZE * len(LEVELS))
        return read_flat(folder, SNAC, first_id(numbered(folder.tokens, TOKEN), numbers, folder, "<custom_token_…>"))

    def state(self, leaving: Leaving) -> dict[str, Tensor]:
        """As `Family`."""
        return flat_state(leaving)


def to_snac(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes (F, 7) → SNAC's codebooks: (F,), (2F,) and (4F,) int64."""
    codes = np.asarray(codes, np.int64)
    if codes.ndim != 2 or codes.shape[1] != len(LEVELS):
        raise InputError(f"codes have shape {codes.shape}; frames of Orpheus have {len(LEVELS)} codes")
    first, second, third = (codes[:, [at for at, one in enumerate(LEVELS) if one == level]] for level in range(3))
    return first.reshape(-1), second.reshape(-1), third.reshape(-1)


def from_snac(first: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """SNAC's codebooks (F,), (2F,) and (4F,) → codes (F, 7) int64."""
    levels = [np.asarray(level, np.int64).reshape(-1) for level in (first, second, third)]
    frames = len(levels[0])
    if [len(level) for level in levels] != [frames, 2 * frames, 4 * frames]:
        raise InputError(
            f"SNAC's codebooks have {', '.join(str(len(level)) for level in levels)} codes; a frame has 1, 2 and 4"
        )
    codes = np.empty((frames, len(LEVELS)), np.int64)
    for level, values in enumerate(levels):
        codes[:, [at for at, one in enumerate(LEVELS) if one == level]] = values.reshape(frames, -1)
    return codes
