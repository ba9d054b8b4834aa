"""The second pass of a run on token shards: what it begins as, and what it learns from.

F frames, Q codebooks, D width of a codec's latents.
"""

from __future__ import annotations

import numpy as np
import torch

from unitok.second_passes.base import SecondPass
from unitok.second_passes.registry import SECOND_PASSES, for_more_ids, second_pass_name
from unitok.second_passes.regression import Regression
from unitok_tokenizers.acoustic.base import LatentCodec
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import FramePattern
from unitok_tokenizers.grammar.vocabulary import Vocabulary
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.objectives.second_pass import TrainedPass
from unitok_training.recipes.layout import ModelChoice
from unitok_training.shard_set import ShardSet

RANGE_ROWS = 256
"""Rows of each folder of shards, spread over it, whose latents say how these are centered and scaled."""


def first_second_pass(
    choice: ModelChoice,
    vocabulary: Vocabulary,
    *,
    tokenizers: TokenizerSet,
    data: ShardSet,
    own: SecondPass | None,
    seed: int,
) -> TrainedPass | None:
    """What finds the codes that a vocabulary leaves open, before training; None where it leaves none.

    Args:
        choice: what a recipe says of it.
        vocabulary: of the model to be.
        tokenizers: hold the codec whose latents are learned, where they are.
        data: shards, by whose latents a new regression is centered and scaled.
        own: the start's, which is taken as it is, with rows for ids that have joined.
        seed: of the weights that are drawn.

    Raises:
        InputError: latents are to be learned, and no codec here has any.
    """
    pattern = vocabulary.framed
    name = None if pattern is None else second_pass_name(pattern)
    if pattern is None or name is None:
        choice.check_second_pass(None)
        return None
    codec = latent_codec(tokenizers, pattern) if SECOND_PASSES[name].says_latents else None
    if own is not None:
        choice.check_second_pass(own)
        drawn = torch.Generator().manual_seed(seed)
        return TrainedPass(second=for_more_ids(own.float(), vocabulary.size, generator=drawn), codec=codec)
    books = len(pattern.cardinalities)
    width = None if codec is None else codec.latents(np.zeros((1, books), np.int64)).shape[1]
    made = choice.second_pass(pattern, vocabulary.size, seed, width)
    assert made is not None
    if isinstance(made, Regression) and codec is not None:
        made.fit_range(torch.from_numpy(sampled_latents(codec, data, pattern)))
    return TrainedPass(second=made, codec=codec)


def latent_codec(tokenizers: TokenizerSet, pattern: FramePattern) -> LatentCodec:
    """The codec of a pattern's stream; InputError where none here makes it, or its codes stand for no vectors."""
    codec = tokenizers.streams.get(pattern.stream)
    if not isinstance(codec, LatentCodec):
        said = "no tokenizer here makes them" if codec is None else f"{type(codec).__name__} has none"
        raise InputError(
            f"model.layout is {pattern.layout!r}, which learns the latents of {pattern.stream}, and {said}; take "
            "first_nar, or the codec's own tokenizers"
        )
    return codec


def sampled_latents(codec: LatentCodec, data: ShardSet, pattern: FramePattern) -> np.ndarray:
    """(F, D) float32 latents of training rows, the same ones every time; InputError where no row has codes."""
    found = list[np.ndarray]()
    for folder in data.folders:
        shards = folder.shards
        if pattern.stream not in shards.streams:
            continue
        rows = np.flatnonzero((shards.split == "train") & (shards.offsets(pattern.stream).lengths() > 0))
        for place in np.unique(np.linspace(0, len(rows) - 1, min(RANGE_ROWS, len(rows))).astype(np.int64)):
            found.append(codec.latents(shards.codes(int(rows[place]), pattern.stream)))
    if not found:
        raise InputError(f"no training row of the shards has {pattern.stream}, whose latents are to be learned")
    return np.concatenate(found)
