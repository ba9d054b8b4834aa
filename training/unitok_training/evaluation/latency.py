"""How far a simultaneous translation lags behind what it translates.

J words of the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unitok_tokenizers.errors import InputError


def laal(delays: Sequence[float] | np.ndarray, source_seconds: float, reference_words: int) -> float:
    """Length-adaptive average lagging in seconds (Papi et al. 2022): the mean of how much later each word comes than it
    would from an ideal translator, who speaks evenly while the source is heard.

    Words count up to the first that comes when the source has ended. The ideal has as many words as the longer of
    output and reference, so that nothing is won by saying too much.

    Args:
        delays: (J,) seconds of the source that were heard when each word had been said, at most all of it.
        source_seconds: length of the source.
        reference_words: words of the reference.

    Raises:
        InputError: no words, no source, or delays beyond it.
    """
    found = np.asarray(delays, np.float64)
    if not len(found) or not source_seconds > 0 or reference_words < 1:
        raise InputError(f"{len(found)} words of {source_seconds:g} s for {reference_words}: lagging is of one or more")
    if found.max() > source_seconds + 1e-6 or found.min() < 0:
        raise InputError(f"delays reach {found.max():g} s in a source of {source_seconds:g} s: count what was heard")
    ended = np.flatnonzero(found >= source_seconds - 1e-6)
    counted = int(ended[0]) + 1 if len(ended) else len(found)
    ideal = np.arange(counted) * source_seconds / max(len(found), reference_words)
    return float(np.mean(found[:counted] - ideal))
