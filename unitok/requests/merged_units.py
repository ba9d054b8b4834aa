"""Units of models whose ids are merged ones: what people give and get are units, whatever the ids.

F frames, N ids, M units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from unitok.inputs import Audio, check_tokens, is_tokens
from unitok.requests.prompt_request import SpokenChunk
from unitok.results import Result
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, deduplicate


def stream_ids(
    audio: Sequence[Audio | SpokenChunk],
    encoded: Iterator[np.ndarray],
    stream: StreamInfo,
    tokenizer: UnitTokenizer | None,
) -> list[np.ndarray]:
    """Ids (N,) of a stream, deduplicated and merged as it is: of units that are given, or those of frames (F,) that
    recordings were encoded to. InputError for units that there are not."""
    sizes = stream.cardinalities if stream.merged_from is None else (stream.merged_from,)
    frames = [check_tokens(np.asarray(one), sizes, stream.name) if is_tokens(one) else next(encoded) for one in audio]
    if tokenizer is not None and stream.merged_from is not None:
        return [tokenizer.stored(one).ids for one in frames]
    return [deduplicate(one)[0] if stream.deduplicated else one for one in frames]


def in_units(result: Result, tokenizer: UnitTokenizer | None) -> Result:
    """An answer whose spans of units hold deduplicated units (M,), where the model's ids are merged."""
    if tokenizer is None or tokenizer.merges is None:
        return result
    spans = [
        replace(one, content=tokenizer.expanded(one.content)) if one.kind == "units" else one for one in result.outputs
    ]
    return replace(result, outputs=tuple(spans))
