"""Speech both ways without an end: a session of a tiny model of Moshi's layout, frame by frame, in a window.

What is said is compared with one pass over the same columns. The share of the core is the large decoder's part of a
step; the rest is the depth decoder and choosing.

T frames, S slots.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.arms import Measured, measured
from benchmarks.context import Context
from benchmarks.results import Outcome
from unitok.decoder.model import Attend, Decoder, DecoderConfig, PackedAttend
from unitok.generation.duplex import DuplexSession
from unitok.generation.engine import Engine
from unitok.generation.sampling import Sampling
from unitok.layouts.step_depth import StepDepthConfig, StepDepthLayout
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.streams import StreamInfo

WINDOW, FRAMES = 3000, 50_000
IDS, BOOKS, CODES = 256, 2, 256
FRAME_SECONDS = 0.080
SHARPER = 6.0
"""Random matrices are scaled up: else what is said hangs on nothing that was heard."""


class TimedDecoder(Decoder):
    """A decoder that counts the seconds of its passes."""

    seconds = 0.0

    def run(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """As `Decoder.run`."""
        begin = time.perf_counter()
        found = super().run(x, positions, attend)
        self.seconds += time.perf_counter() - begin
        return found


@dataclass(frozen=True, kw_only=True)
class Talk:
    """One session."""

    seconds: np.ndarray
    """(T,) of each step."""
    busy_seconds: np.ndarray
    """(T,) of each step, the processor's for this thread: what other work takes meanwhile is not in them."""
    core_seconds: float
    """Of all steps, the large decoder's part."""
    cache_bytes: tuple[int, int]
    """Behind the first frame and the last."""
    difference: float
    """Largest difference of an id's log-probability from one pass over the same columns, in nats."""


def run(context: Context) -> Outcome:
    """Ratios `streams.*`."""
    window, frames = (20, 90) if context.quick else (WINDOW, FRAMES)
    found: list[Talk] = []
    for number in range(context.rounds):
        found.append(_talk(_engine(window, context.seed), frames, context.seed + number))
        last = found[-1]
        context.report(
            f"  round {number + 1}: {1e3 * np.median(last.seconds):.3g} ms a step, differing by {last.difference:.2g}"
        )
    shape = {"window": window, "frames": frames, "threads": torch.get_num_threads(), "precision": "fp32"}
    arms = _arms(found, shape)
    note = (
        f"{frames} frames, window {window}, width 64, 2 layers, {BOOKS} codebooks of each side; sampled at "
        "temperature 1; the forced columns are random codes"
    )
    return Outcome(
        arms=arms,
        ratios={
            "streams.offline_difference": arms["offline.difference"].high,
            "streams.cache_growth": max(after / before for before, after in (one.cache_bytes for one in found)),
            "streams.p99_vs_frame": arms["step.p99"].median / (1e3 * FRAME_SECONDS),
        },
        notes={"streams.offline_difference": note},
    )


def _arms(found: list[Talk], shape: dict[str, object]) -> dict[str, Measured]:
    each = {
        "step.median": ([1e3 * float(np.median(one.seconds)) for one in found], "ms"),
        "step.p99": ([1e3 * float(np.quantile(one.seconds, 0.99)) for one in found], "ms"),
        "step.processor.median": ([1e3 * float(np.median(one.busy_seconds)) for one in found], "ms"),
        "step.processor.p99": ([1e3 * float(np.quantile(one.busy_seconds, 0.99)) for one in found], "ms"),
        "core.share": ([one.core_seconds / float(one.seconds.sum()) for one in found], "of a step"),
        "cache": ([float(one.cache_bytes[1]) for one in found], "bytes"),
        "offline.difference": ([one.difference for one in found], "nats"),
    }
    return {name: measured(values, unit, shape) for name, (values, unit) in each.items()}


def _engine(window: int, seed: int) -> Engine:
    """A tiny random model whose positions grow beyond what it was made for."""
    draw = torch.Generator().manual_seed(seed)
    config = DecoderConfig(
        vocab_size=IDS, width=64, layers=2, heads=4, kv_heads=2, window=window, max_positions=window
    )  # fmt: skip
    options = StepDepthConfig(text_rows=IDS, size=32, layers=1, heads=2, kv_heads=2, head_size=16, ffn=64)
    pattern = StepDepthLayout.pattern_for(StreamInfo("codes", "codes", "bench", None, (CODES,) * BOOKS), options)
    decoder = TimedDecoder(config, generator=draw)
    layout = StepDepthLayout(options, pattern, width=config.width, generator=draw)
    with torch.no_grad():
        for value in (*decoder.parameters(), *layout.parameters()):
            value.mul_(SHARPER if value.ndim > 1 else 1.0)
    return Engine(decoder.eval(), layout=layout.eval())


def _talk(engine: Engine, frames: int, seed: int) -> Talk:
    decoder, layout, prompt = engine.decoder, engine.layout, np.array([IDS - 1])
    assert isinstance(decoder, TimedDecoder) and layout is not None
    heard = np.random.default_rng(seed).integers(0, CODES, (frames, BOOKS))
    session = DuplexSession(engine, prompt, said=((0, IDS - 1),), sampling=Sampling(temperature=1.0), seed=seed)
    seconds, before = np.zeros((frames, 2)), 0
    ids, slots = np.full(frames + 1, IDS - 1), np.full((frames + 1, 2 * BOOKS), ABSENT)
    logprobs = np.zeros(frames)
    decoder.seconds = 0.0
    for frame, codes in enumerate(heard):
        begin = time.perf_counter(), time.thread_time()
        said = session.step(codes)
        seconds[frame] = time.perf_counter() - begin[0], time.thread_time() - begin[1]
        ids[frame + 1], slots[frame + 1, :BOOKS], logprobs[frame] = said.text, said.slots[:BOOKS], said.logprob
        assert session.cache is not None
        before = before or session.cache.bytes
    core, after = decoder.seconds, session.cache.bytes if session.cache is not None else 0
    for column, slot in enumerate(layout.pattern.slots[BOOKS:]):
        slots[slot.delay : frames, BOOKS + column] = heard[: frames - slot.delay, column]
    offline = _at_once(engine, torch.from_numpy(ids), torch.from_numpy(slots))
    difference = float((offline - torch.from_numpy(logprobs)).abs().max())
    return Talk(
        seconds=seconds[:, 0], busy_seconds=seconds[:, 1], core_seconds=core, cache_bytes=(before, after),
        difference=difference,
    )  # fmt: skip


@torch.inference_mode()
def _at_once(engine: Engine, ids: Tensor, slots: Tensor) -> Tensor:
    """Log-probabilities (T,) of all ids behind the first, from slots (T + 1, S), in one pass of windowed attention."""
    decoder, layout, count = engine.decoder, engine.layout, len(ids) - 1
    assert layout is not None
    x = decoder.embed(ids[:count]) + layout.vectors(slots[:count])
    bounds = torch.tensor([0, count], dtype=torch.int32)
    attend = PackedAttend(bounds, count, None, decoder.config.window)
    logits = decoder.logits(decoder.run(x, torch.arange(count), attend))
    logits[:, IDS - 1] = -torch.inf
    return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
