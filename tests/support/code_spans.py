"""Spans of codes whose later codebooks are a function of the first one, of the text and of the prompt's voice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from unitok.decoder.model import DecoderConfig
from unitok.second_passes.base import CodeSpan
from unitok_tokenizers.grammar.streams import StreamInfo

SIZES = (6, 5, 5)
"""Codes of the codebooks."""
TEXTS, VOICES, IDS = 2, 3, 12
"""Texts and voices that there are, and ids of conditions."""
STREAM = StreamInfo("codes", "codes", "toy", Fraction(25, 2), SIZES)
NETWORK = DecoderConfig(vocab_size=0, width=32, layers=2, heads=2, kv_heads=1, ffn=64)


def spoken(first: np.ndarray, text: int, voice: int) -> np.ndarray:
    """Codes (F, 3) of a codebook 0 (F,): the next says text and voice, the last what the one before it says."""
    second = (first + text + voice) % SIZES[1]
    return np.stack([first, second, (2 * second + first) % SIZES[2]], 1)


def voiced_span(
    rng: np.random.Generator, frames: int = 8, *, voice: int | None = None, text: int | None = None, prompt: int = 3
) -> CodeSpan:
    """A span of a text and a voice, of which only the prompt tells."""
    text = int(rng.integers(TEXTS)) if text is None else text
    voice = int(rng.integers(VOICES)) if voice is None else voice
    first, before = rng.integers(SIZES[0], size=frames), rng.integers(SIZES[0], size=prompt)
    return CodeSpan(
        conditions=np.array([10, 3 + text]), prompt=spoken(before, 0, voice), codes=spoken(first, text, voice)
    )


def any_span(rng: np.random.Generator, conditions: int, prompt: int, frames: int) -> CodeSpan:
    """A span of random ids and codes of these lengths."""
    return CodeSpan(
        conditions=rng.integers(IDS, size=conditions),
        prompt=rng.integers(SIZES, size=(prompt, len(SIZES))),
        codes=rng.integers(SIZES, size=(frames, len(SIZES))),
    )
