"""One answer from the answers to the parts of a long request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from itertools import zip_longest

import numpy as np

from unitok.listening.long_audio import join_texts
from unitok.results import Result

PAUSE_SECONDS = 0.25
"""Silence between two parts that are spoken one after another."""


def join_results(results: Sequence[Result]) -> Result:
    """Texts joined with the space that their script wants, audio with a short pause, everything else in order.

    The reason to finish is the first that is not the end of an output: a part that was cut is not forgotten.
    """
    assert results
    if len(results) == 1:
        return results[0]
    texts = tuple(
        reduce(join_texts, (text or "" for text in same)) for same in zip_longest(*(one.texts for one in results))
    )
    heard = [one for one in results if one.audio is not None]
    rate = heard[0].sample_rate if heard else None
    found = [one.latents for one in results if one.latents is not None]
    return replace(
        results[0],
        text=texts[-1] if texts else None,
        texts=texts,
        audio=None if rate is None else with_pauses([one.audio for one in heard if one.audio is not None], rate),
        sample_rate=rate,
        ids=np.concatenate([one.ids for one in results]),
        outputs=tuple(span for one in results for span in one.outputs),
        score=sum(one.score for one in results),
        latents=None if not found else np.concatenate(found),
        nbest=(),
        finish_reason=next((one.finish_reason for one in results if one.finish_reason != "eos"), "eos"),
    )


def with_pauses(parts: Sequence[np.ndarray], rate: int) -> np.ndarray:
    """(S,) samples of several parts with a pause between them."""
    pause = np.zeros(round(PAUSE_SECONDS * rate), dtype=np.float32)
    return np.concatenate([piece for part in parts for piece in (pause, part)][1:])
