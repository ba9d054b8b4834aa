"""What a stream costs: bits a second as they are, without runs, and as an entropy coder would write them.

F frames, Q codebooks, K codes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import SpeechTokenizer
from unitok_training.tokbench.labels import entropy


def rate_figures(
    tokens: Sequence[np.ndarray], cardinalities: Sequence[int], frame_rate: float, seconds: float
) -> dict[str, Any]:
    """Figures of all tokens of a stream.

    Args:
        tokens: (F, Q) of each recording.
        cardinalities: K of each codebook.
        frame_rate: frames a second.
        seconds: of all recordings.

    Returns:
        `bits.nominal`: frame rate · Σ log2 K. `bits.deduplicated`: the same of frames that differ from the one before,
        counted over the recordings, their durations left out. `bits.entropy`: frame rate · Σ entropy of a codebook's
        codes, each frame by itself. `usage`, `perplexity`: of each codebook, the share of codes that occur and e to
        the entropy. `tokens`: how many frames they were counted over, for perplexities of few frames are too low.
    """
    frames = np.concatenate([np.zeros((0, len(cardinalities)), np.int64), *tokens])
    of_frame = sum(math.log2(size) for size in cardinalities)
    shares = [np.bincount(frames[:, q], minlength=size) / max(len(frames), 1) for q, size in enumerate(cardinalities)]
    nats = [entropy(one) for one in shares]
    return {
        "bits.nominal": frame_rate * of_frame,
        "bits.deduplicated": sum(map(runs, tokens)) * of_frame / seconds,
        "bits.entropy": frame_rate * sum(nats) / math.log(2),
        "usage": [float((one > 0).mean()) for one in shares],
        "perplexity": [math.exp(one) for one in nats],
        "tokens": len(frames),
    }


def runs(frames: np.ndarray) -> int:
    """Stretches of equal frames (F, Q)."""
    return int(bool(len(frames))) + int((frames[1:] != frames[:-1]).any(axis=1).sum())


def merged_figures(tokenizer: SpeechTokenizer, tokens: Sequence[np.ndarray], seconds: float) -> dict[str, Any]:
    """Of units that are merged, `merged.ids`, how many different ones there are, and `merged.per_second` of (F, 1) of
    each recording, which last for `seconds`; nothing of others."""
    if not isinstance(tokenizer, UnitTokenizer) or tokenizer.merges is None:
        return {}
    count = sum(len(tokenizer.stored(table[:, 0]).ids) for table in tokens)
    return {"merged.ids": tokenizer.merges.size, "merged.per_second": count / seconds}
