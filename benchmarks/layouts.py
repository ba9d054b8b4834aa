"""Layouts of codebooks at one codec, equal parameters and equal training: what a second of audio costs, and its bits.

Milliseconds are those that the processor spends on this process, of one thread: on a quiet machine those of the clock,
and on a busy one what they would be there, but for what others leave of the caches. Those of `first_nar` have
the second pass in them, over the whole of what was said.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch

from benchmarks.arms import Arm, Measured, interleave, measured, ratio
from benchmarks.context import Context
from benchmarks.layout_material import FLAT, LAYOUTS, QUICK, USUAL, Corpus, Sizes, System, corpus, systems
from benchmarks.layout_training import held_out_bits, trained
from benchmarks.results import Outcome
from unitok.decoder import cpu_kernel as native
from unitok.decoder.kv_cache import KVCache
from unitok.generation.batch import TokenRequest
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.sampling import GREEDY, Sampling
from unitok.second_passes.base import CodeSpan, SecondPass, SpanBatch, greedy, unfinished

PROMPT = 24
"""Ids before the audio."""
WAYS = {"greedy": GREEDY, "sampled": Sampling(temperature=0.9)}
BATCHES = (1, 8)


def run(context: Context) -> Outcome:
    """Ratios `layouts.*`."""
    sizes = QUICK if context.quick else USUAL
    sizes = replace(sizes, steps=context.updates or sizes.steps)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        given = corpus(context.folder / f"layouts-{sizes.codebooks}x{sizes.codes}", sizes)
        found, notes = likelihoods(given, sizes, context)
        rate = float(given.codes.frame_rate or 1)
        timed = systems(given.text, given.codes, sizes.timed, given.lang, context.seed)
        arms = [
            generation(one, batch, way, sizes.frames, rate)
            for batch in BATCHES
            for way in WAYS
            for one in timed.values()
        ]
        for arm in arms[: len(LAYOUTS)]:
            arm.run()  # what is compiled, and the first touch of the weights, stay outside the rounds
        times, failed = interleave(arms, context.rounds, context.report)
    finally:
        torch.set_num_threads(before)
    found |= times
    for one in timed.values():
        found |= memory(one, sizes.frames, rate)
    ratios = {f"layouts.depth_vs_flat.b{batch}": _slower(found, "depth", batch) for batch in BATCHES}
    ratios["layouts.parallel_bits_vs_depth"] = ratio(found, "parallel.bits", "depth.bits")
    shared = f"Q = {sizes.codebooks} at {rate:g} Hz, {sizes.codes} codes each, one thread"
    notes |= {key: f"{shared}; the slower of greedy and sampled" for key in ratios}
    notes["layouts.parallel_bits_vs_depth"] = f"{shared}; {notes['layouts.bits']}"
    notes["layouts.timed"] = ", ".join(f"{name} {one.weights:,} weights" for name, one in timed.items())
    return Outcome(arms=found, ratios=ratios, notes=notes | {f"layouts.{name}": why for name, why in failed.items()})


def _slower(found: Mapping[str, Measured], name: str, batch: int) -> float | None:
    """The larger of the ratios to flat, greedy and sampled."""
    each = [ratio(found, f"{name}.b{batch}.{way}", f"{FLAT}.b{batch}.{way}") for way in WAYS]
    known = [one for one in each if one is not None]
    return max(known) if len(known) == len(each) else None


def likelihoods(given: Corpus, sizes: Sizes, context: Context) -> tuple[dict[str, Measured], dict[str, str]]:
    """Bits in which each layout says a second of held-out audio, a round for each seed."""
    bits: dict[str, list[float]] = {name: [] for name in LAYOUTS}
    settings: dict[str, dict[str, object]] = {}
    for seed in range(context.seed, context.seed + context.seeds):
        for name, one in systems(given.text, given.codes, sizes.trained, given.lang, seed).items():
            seen = trained(one, given.shards, sizes, seed)
            bits[name].append(held_out_bits(one, given.shards, float(given.codes.frame_rate or 1), sizes.codebooks))
            settings[name] = {"weights": one.weights, "codes trained on": seen}
            context.report(f"  seed {seed}, {name}: {bits[name][-1]:.1f} bits/s, {one.weights} weights, {seen} codes")
    assert len({one["codes trained on"] for one in settings.values()}) == 1, "layouts see the same codes"
    largest = max(abs(int(str(one["weights"])) / int(str(settings[FLAT]["weights"])) - 1) for one in settings.values())
    assert context.quick or largest <= 0.02, f"weights differ by {largest:.1%}"
    found = {f"{name}.bits": measured(values, "bits/s", settings[name]) for name, values in bits.items()}
    note = (
        f"negative log-likelihood of held-out sentences by voices of the training, each code among those of its "
        f"codebook, after {sizes.steps} updates of {sizes.batch} utterances, {settings[FLAT]['codes trained on']} codes"
        f", a round for each of {context.seeds} seeds; weights equal to {largest:.1%}"
    )
    return found, {"layouts.bits": note}


def positions(one: System, frames: int) -> int:
    """Positions of so many frames."""
    pattern = one.vocabulary.framed
    if pattern is None:
        (codes,) = (stream for stream in one.vocabulary.streams.values() if stream.kind == "codes")
        return frames * len(codes.cardinalities)
    return pattern.positions(frames)


def generation(one: System, batch: int, way: str, frames: int, rate: float) -> Arm:
    """Milliseconds of generation a second of audio of each sequence, the prompt read before included."""
    engine = Engine(one.decoder.eval(), compiled=native.library() is not None, layout=one.layout)
    everywhere = FrameIds(held=((0, one.vocabulary.size),))  # without a grammar codes stand beside every id
    random = np.random.default_rng(0)
    requests = [
        TokenRequest(
            prompt=random.integers(0, one.vocabulary.size, PROMPT), limit=positions(one, frames), seed=row,
            sampling=WAYS[way], slots=None if one.layout is None else SlotOptions(ids=everywhere),
        )
        for row in range(batch)
    ]  # fmt: skip

    spans = None if one.second is None else said_by(one.second, [request.prompt for request in requests], frames)

    def run() -> float:
        begin = time.process_time()
        engine.run(requests)
        if one.second is not None and spans is not None:
            with torch.inference_mode():
                one.second.finish(spans, greedy)
        return 1000 * (time.process_time() - begin) / (batch * frames / rate)

    settings = {"step": "compiled" if engine.compiled else "torch's operations", "positions": positions(one, frames)}
    return Arm(name=f"{one.name}.b{batch}.{way}", run=run, unit="ms/s", settings=settings)


def said_by(second: SecondPass, prompts: Sequence[np.ndarray], frames: int) -> SpanBatch:
    """So many frames behind each prompt, of which a decoder has said the first codebooks."""
    random, sizes = np.random.default_rng(1), second.pattern.cardinalities
    none = np.zeros((0, len(sizes)), np.int64)
    spans = []
    for prompt in prompts:
        known = np.stack([random.integers(0, size, frames) for size in sizes[: second.known]], 1)
        spans.append(CodeSpan(conditions=prompt, prompt=none, codes=unfinished(known, second.pattern)))
    return SpanBatch.of(spans)


def memory(one: System, frames: int, rate: float) -> dict[str, Measured]:
    """Bytes of the cache for a second of audio, and of it with the weights."""
    seconds = math.ceil(frames / rate)
    cache = KVCache(one.decoder.config, 1, positions(one, round(seconds * rate)), dtype=torch.float32)
    held = float(cache.kv.nbytes) / seconds
    weights = 4.0 * one.weights
    settings = {"weights": one.weights, **asdict(one.decoder.config)}
    shape = {key: settings[key] for key in ("weights", "width", "layers", "ffn")}
    return {
        f"{one.name}.cache": measured([held], "bytes/s", shape),
        f"{one.name}.peak": measured([held * seconds + weights], "bytes", {"of": f"weights and {seconds} s of cache"}),
    }
