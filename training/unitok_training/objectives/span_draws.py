"""What is drawn for the training of second passes: pure functions of the seed and the example, exact on resume.

D documents.
"""

from __future__ import annotations

import numpy as np

from unitok_training.data.hash_rng import below

STAGE, BEGINNING = 0x57A6E, 0xBE61
"""Separate these draws from all others of an example."""


def drawn_stages(seed: int, examples: np.ndarray, count: int) -> np.ndarray:
    """The stage, of `count`, that each example (D,) trains: (D,) int64, evenly over all."""
    return below(count, seed, examples, STAGE)


def drawn_beginning(seed: int, examples: np.ndarray, frames: np.ndarray, *, least: int, most: int) -> np.ndarray:
    """How many of each example's frames (D,) are prompt, where no other voice is: (D,) int64, `least` to `most`.

    A frame at least is left to learn from: of shorter examples the prompt is shorter.
    """
    found: np.ndarray = np.clip(
        least + below(most - least + 1, seed, examples, BEGINNING), 0, np.maximum(frames - 1, 0)
    )
    return found
