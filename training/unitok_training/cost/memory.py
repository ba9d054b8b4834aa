"""Memory of a training step before it is run.

T positions of a pack, C width, H query heads, G key/value heads, D head size, I feed-forward size, L layers, V ids,
N weights. The figures count the tensors that the step holds; `peak_bytes` measures the same on a CPU, and `measure`
what the system gives a process for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from unitok.decoder.dense_attention import GROUP_SCORES
from unitok_training.cost.step import (
    Setup,
    block_parameters,
    frozen_parameters,
    matrix_shapes,
    parameters,
    tables,
    trained_parameters,
)
from unitok_training.objectives.token_loss import rows_at_once
from unitok_training.trainer.overlap import BUCKET_BYTES, UNDER_WAY


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that one process holds."""

    weights: int
    """Weights, float32 masters and those of a teacher included."""
    gradients: int
    """Gradients when the backward pass has ended."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the forward pass leaves for the backward pass."""
    loss: int
    """Logits of a chunk and the gradients that the loss holds."""
    gathered: int
    """What is whole for a moment of weights that are split over processes, or copies of gradients on their way to be
    summed; with the buffers that carry it."""
    peak: int
    """Most at once."""


def block_activations(setup: Setup) -> int:
    """Bytes that one block keeps for its backward pass."""
    config, positions = setup.config, setup.pack_size
    act, stream = product_bytes(setup), stream_bytes(setup)
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    heads = (inner + 2 * group) * act
    if config.qk_norm:
        heads += (inner + group) * (act if setup.compiled else 4 + (act if setup.moving_blocks else 0))
    tables = 0 if setup.precision == "fp32" else 2 * config.head_dim * act
    size = positions * (heads + tables + _matrix_inputs(setup, act, stream))
    if setup.dense_scores:
        size += act * config.heads * positions * setup.document
    else:
        size += positions * (inner * act + 4 * config.heads)  # each document's own output, and its normalizers
    if setup.precision == "bf16":
        size += 2 * (block_parameters(config) - _updated_weights(setup))  # the rounded copies of the weights
    return size


JOINED = {"qkv": ("q", "k", "v"), "out": ("out",), "gate_up": ("gate", "up"), "down": ("down",)}
"""Matrix of a block as it lies in memory → what it joins, each with low-rank factors of its own."""


def _updated(setup: Setup) -> set[str]:
    """Matrices of a block whose product makes what enters it again, having low-rank updates."""
    return {name for name, parts in JOINED.items() if setup.lora_rank and set(parts) & set(setup.lora_targets)}


def _updated_weights(setup: Setup) -> int:
    """Weights of these matrices, of which no rounded copy is kept; of all others of the block there is one."""
    shapes, found = matrix_shapes(setup.config), _updated(setup)
    if found == set(JOINED):
        return block_parameters(setup.config)
    return sum(math.prod(shapes[part]) for name in found for part in JOINED[name])


def _matrix_inputs(setup: Setup, act: int, stream: int) -> int:
    """Bytes a position of what the norms, the feed-forward and the products with a block's matrices keep."""
    config = setup.config
    inner = config.heads * config.head_dim
    if not setup.moving_blocks:
        # Slopes go through: neither what enters a frozen matrix nor a norm's result is needed. What enters one with
        # updates is made again of its source; the small side of every band's branch is kept.
        norm, feed = (stream, 2) if setup.compiled else (4, 3)
        found = _updated(setup)
        norms = sum(stream if name in found else norm for name in ("qkv", "gate_up"))
        width = (inner if "out" in found else 0) + config.ffn_dim * (2 if "down" in found else feed)
        branches = len(setup.lora_targets) * setup.lora_rank
        return config.width * norms + (width + branches) * act
    norm = config.width * (stream + act + (0 if setup.compiled else 4))  # input, what enters the matrix, in float32
    return 2 * norm + inner * act + config.ffn_dim * act * (3 if setup.compiled else 4)


def product_bytes(setup: Setup) -> int:
    """Bytes of a number that goes through matrix products."""
    return 4 if setup.precision == "fp32" else 2


def stream_bytes(setup: Setup) -> int:
    """Bytes of a number of the residual stream, which follows the embedding's type."""
    return 2 if setup.precision == "bf16-pure" else 4


def block_products(setup: Setup) -> int:
    """Bytes of what a block that is computed again keeps: nothing, or the results of its matrix products, and of its
    attention where a kernel makes them."""
    config = setup.config
    if not setup.keep_products:
        return 0
    act = product_bytes(setup)
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    size = (inner + 2 * group + 2 * config.width + 2 * config.ffn_dim) * act
    if not setup.dense_scores:
        size += inner * act + 4 * config.heads
    return setup.pack_size * size


def activations(setup: Setup) -> int:
    """Bytes that the forward pass of one pack keeps, the loss apart."""
    each = block_activations(setup)
    stream = stream_bytes(setup)
    ends = setup.pack_size * setup.config.width * (3 * stream + 4)
    inputs = setup.pack_size * setup.config.width * stream
    whole = setup.config.layers - setup.recompute_blocks
    return whole * each + setup.recompute_blocks * (inputs + block_products(setup)) + ends


def loss_rows(setup: Setup) -> int:
    """Positions whose logits are held at once."""
    return setup.loss_chunk or rows_at_once(setup.config.vocab_size, on_gpu=setup.flash)


def loss_bytes(setup: Setup) -> int:
    """Bytes of the loss at its peak: the logits of a chunk in float32, beside what they came in where that is another
    type, hidden states twice, and the head's gradient."""
    config = setup.config
    supervised = round(setup.supervised_share * setup.pack_size)
    rows = min(loss_rows(setup), supervised)
    stream = stream_bytes(setup)
    head = config.vocab_size * config.width
    logits = rows * config.vocab_size * (4 if setup.precision == "fp32" else 6)
    slope = 4 if setup.moving_embeddings else 0
    return logits + 2 * supervised * config.width * stream + head * (slope + (0 if setup.precision == "fp32" else 2))


def teacher_bytes(setup: Setup) -> int:
    """Bytes of the weights of what is learned from."""
    return 0 if setup.teacher is None else parameters(setup.teacher) * stream_bytes(setup)


def taught_bytes(setup: Setup) -> int:
    """Bytes of the loss at its peak where there is a teacher: its hidden states beside cross-entropy; then what
    cross-entropy has left with the divergence's own logits and gradients; or both gradients of the head and their sum.
    """
    assert setup.teacher is not None
    config, ids = setup.config, setup.teacher.vocab_size
    supervised = round(setup.supervised_share * setup.pack_size)
    rows = min(setup.loss_chunk or rows_at_once(2 * ids, on_gpu=setup.flash), supervised)
    stream, cast = stream_bytes(setup), 0 if setup.precision == "fp32" else 2
    one, table = supervised * config.width * stream, 4 * config.vocab_size * config.width
    said = supervised * setup.teacher.width * stream
    head = table if setup.moving_embeddings else 0
    casts = cast * (config.vocab_size * config.width + ids * setup.teacher.width)
    divergence = 12 * rows * ids + 3 * one + 2 * head + casts
    return max(loss_bytes(setup) + said, divergence + said, 3 * head + 2 * one)


def lesson_bytes(setup: Setup) -> int:
    """Bytes of the teacher's forward pass, in which a block holds what it was given and what it has made of it."""
    if setup.teacher is None:
        return 0
    config, act = setup.teacher, product_bytes(setup)
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    made = 2 * config.width * stream_bytes(setup) + (2 * inner + 2 * group + 4 * config.ffn_dim) * act
    rounded = 4 * config.ffn_dim * config.width if setup.precision == "bf16" else 0  # the larger matrix
    return setup.pack_size * made + rounded


def working_bytes(setup: Setup) -> int:
    """Bytes that the backward pass of a block needs beside what was kept: slopes of the stream and the feed-forward."""
    act, stream = product_bytes(setup), stream_bytes(setup)
    feed = setup.pack_size * (3 * setup.config.width * stream + 4 * setup.config.ffn_dim * act)
    if not setup.dense_scores:
        return feed
    together = setup.config.heads * setup.document**2  # scores of the documents that are computed together
    if together < GROUP_SCORES:
        together = min(GROUP_SCORES, setup.pack_size // setup.document * together)
    return max(feed, 10 * together)


def memory(setup: Setup) -> Memory:
    """Bytes of a step after the first one, on one process."""
    config = setup.config
    trained, frozen = trained_parameters(setup), frozen_parameters(setup)
    weights = trained * 6 + frozen * 2 if setup.precision == "bf16-pure" else 4 * (trained + frozen)
    gradients = 4 * trained
    optimizer = 8 * trained
    split = setup.shards
    gathered = summed_bytes(setup) if split == 1 else gathered_bytes(setup)
    held = (weights + optimizer) // split + gathered + teacher_bytes(setup)
    kept, loss = activations(setup), loss_bytes(setup) if setup.teacher is None else taught_bytes(setup)
    accumulated = gradients // split if setup.packs > 1 else 0
    # The largest of the moments: the loss, the last block's backward pass, its end with all gradients made; before them
    # the teacher's forward pass, which keeps nothing from block to block.
    head = config.vocab_size * config.width * 4 if setup.moving_embeddings else 0
    forward = kept + loss + accumulated
    # The blocks are made whole again one at a time, after all others where all are.
    again = block_activations(setup) - block_products(setup) if setup.recompute_blocks == config.layers else 0
    turning = kept + again + head + working_bytes(setup) + accumulated
    ended = gradients // split + head
    taught = lesson_bytes(setup) + accumulated
    return Memory(
        weights=weights // split + teacher_bytes(setup),
        gradients=gradients // split,
        optimizer=optimizer // split,
        activations=kept,
        loss=loss,
        gathered=gathered,
        peak=held + max(forward, turning, ended, taught),
    )


def summed_bytes(setup: Setup) -> int:
    """Bytes of the copies from which gradients are summed over processes that all have the weights."""
    return min(4 * trained_parameters(setup), UNDER_WAY * BUCKET_BYTES) if setup.processes > 1 else 0


def gathered_bytes(setup: Setup) -> int:
    """Bytes of what a process holds whole of split weights: the embeddings, and of the block that is computed the
    gathered buffer, the weights that are made of it, and those of the block that comes next.

    Where the block learns, its whole gradient and the buffer in which that is sent come on top, in float32.
    """
    block, number = block_parameters(setup.config), 2 if setup.precision == "bf16-pure" else 4
    slopes = 2 * 4 * block if setup.moving_blocks else 0
    return number * (tables(setup.config) + 3 * block) + slopes


def peak_bytes(function: Callable[[], Any]) -> int:
    """Most bytes of tensors allocated at once while `function` runs, above what was allocated before it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as trace:
        function()
    assert trace.profiler is not None and trace.profiler.kineto_results is not None
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
