"""One batch of prompts from beginning to end, and the scores of continuations that are given.

B sequences, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from unitok.decoder.fast_step import Stepper
from unitok.decoder.model import Decoder, pack_documents
from unitok.frontends.prompt_vectors import PromptVectors
from unitok.generation.allowed_ids import rows_of
from unitok.generation.batch import Batch
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.prefill import given_lengths, stepper_of
from unitok.generation.sampling import GREEDY, Sampling, masked_log_softmax
from unitok.generation.token_request import Generated, TokenRequest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton

SCORED_AT_ONCE = 256
"""Positions whose logits are held together: of 152,000 rows they take 150 MB."""


def generate(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    *,
    automata: Sequence[Automaton] | None = None,
    sampling: Sampling = GREEDY,
    max_new_tokens: int | Sequence[int],
    seed: int | Sequence[int] = 0,
    eos: int | None = None,
    stepper: Stepper | None = None,
    vectors: Sequence[PromptVectors | None] | None = None,
    graphs: CudaGraphs | None = None,
) -> list[Generated]:
    """Continue prompts; each result is the same alone as in a batch.

    Args:
        decoder: the model; its weights' type is the precision.
        prompts: ids, (T_i,) each; what all of them begin with is computed once.
        automata: one per prompt; None leaves every id allowed.
        sampling: how ids are chosen.
        max_new_tokens: most ids per sequence.
        seed: of the draws, one for all or one for each. What a sequence draws at a step is a function of its seed, its
            prompt and the step; equal prompts with equal seeds give equal answers.
        eos: id that ends a sequence where there is no automaton.
        stepper: takes the steps, for instance with int8 weights; made from the decoder where None.
        vectors: those that stand in for embedding rows in each prompt.
        graphs: take the steps instead where they fit the decoder, the batch and the sampling.

    Raises:
        InputError: a prompt with its limit does not fit the decoder's positions.
    """
    count = len(prompts)
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * count
    if len(seeds) != count:
        raise InputError(f"{len(seeds)} seeds for {count} sequences; give one for all, or one for each")
    limits = [max_new_tokens] * count if isinstance(max_new_tokens, int) else list(max_new_tokens)
    batch = Batch(decoder, stepper or stepper_of(decoder), graphs=graphs)
    numbers = [
        batch.add(
            TokenRequest(
                prompt=prompts[row], limit=limits[row], automaton=None if automata is None else automata[row],
                sampling=sampling, seed=seeds[row], vectors=None if vectors is None else vectors[row], eos=eos,
            )
        )
        for row in range(count)
    ]  # fmt: skip
    while batch.step():
        pass
    return [batch.take(number) for number in numbers]


@torch.inference_mode()
def score(
    decoder: Decoder,
    prompts: Sequence[np.ndarray],
    continuations: Sequence[np.ndarray],
    *,
    automata: Sequence[Automaton] | None = None,
    given: Sequence[int] | None = None,
) -> list[np.ndarray]:
    """Teacher-forced log-probability of each id of each continuation, (N_i,) float32.

    With automata, among the ids that each state allows: what generation reports as `logprobs`. `given` as in `prefill`.
    """
    documents = [np.concatenate([prompt, rest]) for prompt, rest in zip(prompts, continuations)]
    packed = pack_documents(documents, decoder.embedding.device)
    lengths = torch.tensor(given or given_lengths(prompts, automata), device=packed.ids.device)
    hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=lengths)
    results = []
    start = 0
    for row, (prompt, rest) in enumerate(zip(prompts, continuations)):
        first = start + len(prompt) - 1
        automaton = None if automata is None else automata[row].copy()
        parts = [np.zeros(0, np.float32)]
        for begin in range(0, len(rest), SCORED_AT_ONCE):
            some = rest[begin : begin + SCORED_AT_ONCE]
            logits = decoder.logits(hidden[first + begin : first + begin + len(some)])
            allowed = None
            if automaton is not None:
                states = []
                for token in some.tolist():
                    states.append(automaton.allowed())
                    automaton.advance(token)
                allowed = rows_of(states, decoder.config.vocab_size, logits.device)
            logprobs = masked_log_softmax(logits, allowed)
            target = torch.as_tensor(some, dtype=torch.int64, device=logits.device)
            parts.append(logprobs.gather(1, target[:, None])[:, 0].cpu().numpy())
        results.append(np.concatenate(parts))
        start += len(prompt) + len(rest)
    return results
