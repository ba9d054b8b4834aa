"""Prompts and steps of a decoder: prompts are run once into a cache, then each step appends one id per sequence.

B sequences, C width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unitok.decoder.fast_step import Stepper, steppable
from unitok.decoder.kv_cache import KVCache, PieceAttend, PrefillAttend, StepAttend
from unitok.decoder.model import Decoder, pack_documents
from unitok.frontends.prompt_vectors import PromptVectors, first_place, joined
from unitok_tokenizers.grammar.automaton import Automaton

LEAST_PIECE = 512
"""Positions that are read of a prompt at a time, at least, where it is longer than the decoder's window."""
LEAST_SHARED = 16
"""Positions that prompts must have in common before they are computed once for all of them."""


def stepper_of(decoder: Decoder) -> Stepper | None:
    """The quick way to take steps, or None where a decoder has parts that only `Decoder.run` knows."""
    return Stepper(decoder) if steppable(decoder) else None


def shared_prefix(prompts: Sequence[np.ndarray]) -> int:
    """Positions that all prompts begin with, if it pays to compute them once; one of each is left to end on."""
    if len(prompts) < 2:
        return 0
    most = min(len(prompt) for prompt in prompts) - 1
    first = np.asarray(prompts[0])[:most]
    same = np.logical_and.reduce([np.asarray(prompt)[:most] == first for prompt in prompts[1:]])
    shared = most if same.all() else int(same.argmin())
    return shared if shared >= LEAST_SHARED else 0


def given_lengths(prompts: Sequence[np.ndarray], automata: Sequence[Automaton] | None) -> list[int]:
    """Positions of each prompt that a decoder with `prefix_lm` reads both ways: not the beginning of an answer.

    Without automata nothing is known of such a beginning, and the whole prompt is meant.
    """
    return [len(prompt) for prompt in prompts] if automata is None else [automaton.given for automaton in automata]


def prefill(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    capacity: int,
    given: Sequence[int] | None = None,
    vectors: Sequence[PromptVectors | None] | None = None,
    *,
    cache: KVCache | None = None,
) -> tuple[KVCache, Tensor]:
    """Run prompts once; returns the filled cache and the last hidden state (B, C) of each.

    `given` are their leading positions that see each other where the decoder has `prefix_lm`, all where None; `vectors`
    stand in for embedding rows. `cache` is an empty one to fill, for these prompts. Where any is longer than the
    decoder's window, they are read in pieces: attention needs no more memory than for one of them.
    """
    device, dtype = decoder.embedding.device, decoder.embedding.dtype
    if cache is None:
        cache = KVCache(decoder.config, len(prompts), capacity, dtype=dtype, device=device)
    if decoder.config.window is not None and max(map(len, prompts)) > decoder.config.window:
        return cache, _read_in_pieces(decoder, prompts, vectors, cache, max(LEAST_PIECE, decoder.config.window))
    shared = 0 if decoder.config.prefix_lm else shared_prefix(prompts)  # else it would see what follows it
    before = first_place(vectors)
    if before is not None and shared > before:
        shared = before if before >= LEAST_SHARED else 0  # equal placeholders hold different vectors
    if shared:
        first, _ = prefill(decoder, [prompts[0][:shared]], shared)
        cache.kv[:, :, :, :shared] = first.kv
    packed = pack_documents([prompt[shared:] for prompt in prompts], device)
    both_ways = decoder.prefix(
        packed.cu_seqlens, torch.tensor(given or given_lengths(prompts, None), device=device), len(packed.ids)
    )
    attend = PrefillAttend(cache, packed.cu_seqlens, packed.max_seqlen, shared, both_ways, packed.lengths)
    starts = [start - shared for start in np.cumsum([0, *packed.lengths[:-1]]).tolist()]
    x = decoder.embed(packed.ids, *joined(vectors, starts, device))
    hidden = decoder.run(x, packed.positions + shared, attend)
    return cache, hidden[packed.cu_seqlens[1:].long() - 1]


def _read_in_pieces(
    decoder: Decoder, prompts: Sequence[np.ndarray], vectors: Sequence[PromptVectors | None] | None, cache: KVCache,
    piece: int,
) -> Tensor:  # fmt: skip
    """`prefill` into a ring cache, so many positions of each prompt at a time; returns its hidden states (B, C)."""
    packed = pack_documents(list(prompts), cache.lengths.device)
    starts = np.cumsum([0, *packed.lengths[:-1]])
    x = decoder.embed(packed.ids, *joined(vectors, starts.tolist(), packed.ids.device))
    found: dict[int, Tensor] = {}
    for done in range(0, packed.max_seqlen, piece):
        sizes = [min(max(length - done, 0), piece) for length in packed.lengths]
        index = np.concatenate([start + done + np.arange(size) for start, size in zip(starts, sizes)])
        there = torch.from_numpy(index).to(packed.ids.device)
        hidden = decoder.run(x[there], packed.positions[there], PieceAttend(cache, done, sizes))
        ends = np.cumsum(sizes)
        found |= {row: hidden[ends[row] - 1] for row, size in enumerate(sizes) if size}
    cache.lengths.copy_(torch.tensor(packed.lengths))
    return torch.stack([found[row] for row in range(len(prompts))])


def decode_step(
    decoder: Decoder, ids: Tensor, cache: KVCache, longest: int, stepper: Stepper | None = None,
    x: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Append ids (B,) to the sequences in the cache; returns their hidden states (B, C).

    `x` (B, C) is what the decoder reads where that is not the embedding rows of the ids.
    """
    if stepper is not None:
        return stepper(ids, cache, longest, x=x)
    hidden = decoder.run(decoder.embed(ids) if x is None else x, cache.lengths, StepAttend(cache, longest))
    cache.lengths += 1
    return hidden
