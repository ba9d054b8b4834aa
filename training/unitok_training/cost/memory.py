"""Memory and time of a training step before it is run, and what to change where it does not fit.

T positions of a pack, C width, H query heads, G key/value heads, D head size, I feed-forward size, L layers, V ids,
N weights. The figures count the tensors that the step holds; `peak_bytes` measures the same on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from unitok.decoder.dense_attention import GROUP_SCORES, LONGEST
from unitok.decoder.model import DecoderConfig
from unitok_tokenizers.compute import AUTO, check_precision, resolve_precision
from unitok_tokenizers.errors import InputError
from unitok_training.cost.devices import Device
from unitok_training.objectives.token_loss import rows_at_once
from unitok_training.recipes.decoder import DecoderRecipe

RESERVE = 0.08
"""Share of a device's memory that is left to the allocator, the driver and the libraries."""
SMALLEST_PACK = 1024
"""Packs are not made smaller than this to fit: short packs waste positions and starve the device."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A training step as far as memory and time depend on it."""

    config: DecoderConfig
    """Shape of the decoder."""
    pack_size: int = 4096
    """T."""
    packs: int = 1
    """Packs that one process computes for an update, one after another."""
    precision: str = "bf16"
    """As in TrainConfig, "auto" resolved."""
    compiled: bool = False
    """Whether blocks are compiled: fused norms and activations keep less for the backward pass."""
    loss_chunk: int = 0
    """Supervised positions whose logits are held at once; 0 for what the loss takes by itself."""
    supervised_share: float = 0.6
    """Supervised positions ÷ T."""
    document: int = 256
    """Positions of a document, on average."""
    flash: bool = False
    """Attention by a kernel that keeps no scores (GPUs, documents of more than LONGEST positions, float32)."""
    recompute_blocks: int = 0
    """Blocks that keep only their input and are computed again in the backward pass."""
    keep_products: bool = False
    """Whether these blocks keep what matrix products and attention kernels yield as well."""
    lora_rank: int = 0
    """Rank of low-rank additions to frozen bfloat16 matrices; 0 trains all weights."""
    shards: int = 1
    """Processes over which weights, gradients and optimizer state are split."""

    def __post_init__(self) -> None:
        if check_precision(self.precision) == AUTO:
            raise InputError("precision is 'auto': a cost is of one precision, fp32, bf16 or bf16-pure")

    @property
    def dense_scores(self) -> bool:
        """Whether attention keeps the scores of every document."""
        return not self.flash and self.precision != "fp32" and self.document <= LONGEST


def setup_of(recipe: DecoderRecipe, vocab_size: int, *, flash: bool = False, processes: int = 1) -> Setup:
    """What a recipe asks of one process. `processes` share its packs."""
    train = recipe.train
    # Of the GPUs that are planned for all multiply bfloat16; of processors only this one can be asked.
    precision = "bf16" if flash and train.precision == AUTO else resolve_precision(train.precision)
    return Setup(
        config=recipe.decoder.config(vocab_size),
        pack_size=train.pack_size,
        packs=max(train.packs_per_step // processes, 1),
        precision=precision,
        compiled=train.compile,
        loss_chunk=train.loss_chunk,
        recompute_blocks=min(train.recompute_blocks, recipe.decoder.layers),
        keep_products=train.keep_products,
        shards=processes if train.shard else 1,
        flash=flash,
    )


# ---- sizes


def block_parameters(config: DecoderConfig) -> int:
    """Weights of one block."""
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    matrices = config.width * (2 * inner + 2 * group + 3 * config.ffn_dim)
    biases = inner + 2 * group if config.attention_bias else 0
    return matrices + biases + 2 * config.width + (2 * config.head_dim if config.qk_norm else 0)


def parameters(config: DecoderConfig) -> int:
    """N: all weights."""
    tables = config.vocab_size * config.width * (1 if config.tied else 2)
    return config.layers * block_parameters(config) + tables + config.width


def lora_parameters(config: DecoderConfig, rank: int) -> int:
    """Weights of low-rank additions to every matrix of the blocks."""
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = (
        (config.width, inner + 2 * group),
        (inner, config.width),
        (config.width, 2 * config.ffn_dim),
        (config.ffn_dim, config.width),
    )
    return config.layers * sum(rank * (rows + columns) for rows, columns in shapes)


def training_flops(config: DecoderConfig, *, lengths: Sequence[int], supervised: int) -> float:
    """FLOPs that a step needs: matrix products of real positions, causal attention within documents, logits where
    there is a label; forward and backward."""
    tokens = float(sum(lengths))
    squares = float(sum(length * length for length in lengths))
    body = config.layers * block_parameters(config)
    attention = config.layers * config.heads * config.head_dim * squares
    return 6.0 * (body * tokens + config.width * config.vocab_size * supervised + attention)


def step_flops(setup: Setup) -> float:
    """FLOPs of one process's packs in one update; recomputed blocks have a second forward pass, unless they keep its
    products."""
    documents = max(setup.pack_size // setup.document, 1)
    needed = training_flops(
        setup.config,
        lengths=[setup.pack_size // documents] * documents,
        supervised=round(setup.supervised_share * setup.pack_size),
    )
    again = 0 if setup.keep_products else setup.recompute_blocks
    return setup.packs * needed * (1 + again / setup.config.layers / 3)


# ---- memory


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that one process holds."""

    weights: int
    """Weights, float32 masters included."""
    gradients: int
    """Gradients when the backward pass has ended."""
    optimizer: int
    """AdamW's two moments."""
    activations: int
    """What the forward pass leaves for the backward pass."""
    loss: int
    """Logits of a chunk and the gradients that the loss holds."""
    peak: int
    """Most at once."""


def block_activations(setup: Setup) -> int:
    """Bytes that one block keeps for its backward pass."""
    config, positions = setup.config, setup.pack_size
    act = 4 if setup.precision == "fp32" else 2
    stream = 2 if setup.precision == "bf16-pure" else 4  # the residual stream follows the embedding's type
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    norm = config.width * (stream + act + (0 if setup.compiled else 4))  # input, what enters the matrix, in float32
    heads = (inner + 2 * group) * act
    if config.qk_norm:
        heads += (inner + group) * (act if setup.compiled else 4 + act)
    mixed = inner * act
    tables = 0 if setup.precision == "fp32" else 2 * config.head_dim * act
    feed = config.ffn_dim * act * (3 if setup.compiled else 4)
    size = positions * (2 * norm + heads + mixed + tables + feed)
    if setup.dense_scores:
        size += act * config.heads * positions * setup.document
    else:
        size += positions * (mixed + 4 * config.heads)  # each document's own output, and its normalizers
    if setup.precision == "bf16":
        size += 2 * block_parameters(config)  # the rounded copies of the weights
    return size


def block_products(setup: Setup) -> int:
    """Bytes of what a block that is computed again keeps: nothing, or the results of its matrix products, and of its
    attention where a kernel makes them."""
    config = setup.config
    if not setup.keep_products:
        return 0
    act = 4 if setup.precision == "fp32" else 2
    inner, group = config.heads * config.head_dim, config.kv_heads * config.head_dim
    size = (inner + 2 * group + 2 * config.width + 2 * config.ffn_dim) * act
    if not setup.dense_scores:
        size += inner * act + 4 * config.heads
    return setup.pack_size * size


def activations(setup: Setup) -> int:
    """Bytes that the forward pass of one pack keeps, the loss apart."""
    each = block_activations(setup)
    stream = 2 if setup.precision == "bf16-pure" else 4
    ends = setup.pack_size * setup.config.width * (3 * stream + 4)
    inputs = setup.pack_size * setup.config.width * stream
    whole = setup.config.layers - setup.recompute_blocks
    return whole * each + setup.recompute_blocks * (inputs + block_products(setup)) + ends


def loss_rows(setup: Setup) -> int:
    """Positions whose logits are held at once."""
    return setup.loss_chunk or rows_at_once(setup.config.vocab_size, on_gpu=setup.flash)


def loss_bytes(setup: Setup) -> int:
    """Bytes of the loss at its peak: the logits of a chunk twice, hidden states, and the head's gradient twice."""
    config = setup.config
    supervised = round(setup.supervised_share * setup.pack_size)
    rows = min(loss_rows(setup), supervised)
    stream = 2 if setup.precision == "bf16-pure" else 4
    head = config.vocab_size * config.width
    logits = rows * config.vocab_size * 8
    return logits + 2 * supervised * config.width * stream + head * (4 + (0 if setup.precision == "fp32" else 2))


def working_bytes(setup: Setup) -> int:
    """Bytes that the backward pass of a block needs beside what was kept: slopes of the stream and the feed-forward."""
    act, stream = (4 if setup.precision == "fp32" else 2), (2 if setup.precision == "bf16-pure" else 4)
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
    total = parameters(config)
    trained = lora_parameters(config, setup.lora_rank) if setup.lora_rank else total
    pure = setup.precision == "bf16-pure" or setup.lora_rank > 0
    weights = 2 * total + 4 * trained if pure else 4 * total
    gradients = 4 * trained
    optimizer = 8 * trained
    split = setup.shards
    gathered = 0 if split == 1 else 4 * block_parameters(config) + 2 * config.vocab_size * config.width
    held = (weights + optimizer) // split + gathered
    kept, loss = activations(setup), loss_bytes(setup)
    accumulated = gradients // split if setup.packs > 1 else 0
    # The largest of three moments: the loss, the last block's backward pass, and its end with all gradients made.
    head = config.vocab_size * config.width * 4 if not setup.lora_rank else 0
    forward = kept + loss + accumulated
    # The blocks are made whole again one at a time, after all others where all are.
    again = block_activations(setup) - block_products(setup) if setup.recompute_blocks == config.layers else 0
    turning = kept + again + head + working_bytes(setup) + accumulated
    ended = gradients // split + head
    return Memory(
        weights=weights // split + gathered,
        gradients=gradients // split,
        optimizer=optimizer // split,
        activations=kept,
        loss=loss,
        peak=held + max(forward, turning, ended),
    )


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


# ---- time


def communication_bytes(setup: Setup) -> float:
    """Bytes that one process sends per update: a gradient sum, or gather, gather and scatter of split weights."""
    trained = lora_parameters(setup.config, setup.lora_rank) if setup.lora_rank else parameters(setup.config)
    if setup.shards == 1:
        return 0.0
    ring = (setup.shards - 1) / setup.shards
    gathers = 2 * setup.packs * 2 * parameters(setup.config)  # bfloat16, forward and backward
    return ring * (gathers + setup.packs * 4 * trained)


def step_seconds(setup: Setup, device: Device) -> float:
    """Seconds of one update: computing, or sending where that takes longer (both run side by side)."""
    rate = device.share * (device.float32_flops if setup.precision == "fp32" else device.flops)
    link = device.link if setup.shards <= 8 else device.network
    return max(step_flops(setup) / rate, communication_bytes(setup) / link if link else 0.0)


# ---- advice


@dataclass(frozen=True, kw_only=True)
class Option:
    """One way to run a recipe on a device."""

    change: str
    """What differs from the recipe; empty for the recipe itself."""
    setup: Setup
    memory: Memory
    seconds: float
    """Seconds of an update."""
    fits: bool
    """Whether the peak stays below the device's memory less the reserve."""

    @property
    def tokens_per_second(self) -> float:
        """Positions a second of one process."""
        return self.setup.packs * self.setup.pack_size / self.seconds


def evaluate(setup: Setup, device: Device, change: str = "") -> Option:
    """Memory and time of a setup on a device."""
    need = memory(setup)
    fits = need.peak <= device.memory_bytes * (1 - RESERVE)
    return Option(change=change, setup=setup, memory=need, seconds=step_seconds(setup, device), fits=fits)


def alternatives(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Changes that need less memory, the least intrusive first; the last ones change what is learnt or need more
    devices."""
    chunk = min(loss_rows(setup), 512)
    small = replace(setup, loss_chunk=chunk)
    if chunk < loss_rows(setup):
        yield f"train.loss_chunk={chunk}", small
    size, packs = setup.pack_size, setup.packs
    while size // 2 >= SMALLEST_PACK:
        size, packs = size // 2, packs * 2
        change = f"train.pack_size={size} train.packs_per_step={packs} train.loss_chunk={chunk}"
        yield change, replace(small, pack_size=size, packs=packs)
    layers = setup.config.layers
    if not setup.compiled and setup.recompute_blocks < layers:
        yield (
            f"train.recompute_blocks={layers} train.keep_products=true train.loss_chunk={chunk}",
            replace(small, recompute_blocks=layers, keep_products=True),
        )
    small = replace(small, keep_products=False)
    for count in dict.fromkeys((layers // 2, layers)):
        if count > setup.recompute_blocks or setup.keep_products:
            yield (
                f"train.recompute_blocks={count} train.keep_products=false train.loss_chunk={chunk}",
                replace(small, recompute_blocks=count),
            )
    yield (
        f"train.recompute_blocks={layers} train.pack_size={size} train.packs_per_step={packs} train.loss_chunk={chunk}",
        replace(small, recompute_blocks=layers, pack_size=size, packs=packs),
    )
    for count in (2, 4, 8, 16, 32, 64):
        if count <= setup.shards:
            continue
        yield f"train.shard=true over {count} devices", replace(setup, shards=count)
        yield (
            f"train.shard=true over {count} devices and train.recompute_blocks={layers}",
            replace(small, shards=count, recompute_blocks=layers),
        )
    yield (
        f"LoRA of rank 64 and train.recompute_blocks={layers} (other weights stay as they are)",
        replace(small, lora_rank=64, recompute_blocks=layers, pack_size=size, packs=packs),
    )


def options(setup: Setup, device: Device) -> list[Option]:
    """The recipe itself, and every alternative that fits if the recipe does not."""
    first = evaluate(setup, device)
    if first.fits:
        return [first]
    return [first, *(found for change, other in alternatives(setup) if (found := evaluate(other, device, change)).fits)]


def check_fits(setup: Setup, device: Device) -> Option:
    """The recipe's figures. InputError, with the nearest that fits, where it cannot run on the device."""
    first, *rest = options(setup, device)
    if first.fits:
        return first
    need, room = first.memory.peak / 1e9, device.memory_bytes * (1 - RESERVE) / 1e9
    remedy = (
        f"it fits with {rest[0].change}"
        if rest
        else "nothing tried fits: lower decoder.width, decoder.ffn or decoder.layers"
    )
    raise InputError(f"the recipe needs {need:.1f} GB at its peak and {device.name} has {room:.1f} GB to use: {remedy}")
