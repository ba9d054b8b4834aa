"""Speech both ways: steps are what one pass over the same columns says, and what the engine says when told all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.test_generation_fast_step import PLAIN, made
from unitok.decoder.model import Decoder, PackedAttend
from unitok.generation.batch import TokenRequest
from unitok.generation.duplex import DuplexSession, DuplexStep
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.sampling import GREEDY, Sampling
from unitok.layouts.depth import DepthConfig, DepthLayout
from unitok.layouts.step_depth import StepDepthConfig, StepDepthLayout
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.frames import ABSENT
from unitok_tokenizers.grammar.positions import Frames
from unitok_tokenizers.grammar.streams import StreamInfo

IDS, BOOKS, SIZE, WINDOW = 20, 3, 11, 7
SAID = ((0, IDS - 1),)
PROMPT = np.array([5, 2, IDS - 1])
DRAWN = Sampling(temperature=1.0, repetition_window=3)
STREAM = StreamInfo("codes", "codes", "x", None, (SIZE,) * BOOKS)


@cache
def engine(window: int | None = WINDOW, delays: tuple[int, ...] = (0, 1, 1)) -> Engine:
    """A random Moshi: own codes and the other side's, delayed alike."""
    decoder = made(replace(PLAIN, vocab_size=IDS, layers=2, window=window, max_positions=16))
    options = StepDepthConfig(text_rows=IDS, size=16, layers=1, heads=2, kv_heads=2, head_size=8, ffn=24)
    pattern = StepDepthLayout.pattern_for(STREAM, options)
    slots = tuple(replace(slot, delay=delays[slot.codebook]) for slot in pattern.slots)
    draw = torch.Generator().manual_seed(1)
    layout = StepDepthLayout(options, replace(pattern, slots=slots), width=PLAIN.width, generator=draw)
    for value in layout.parameters():
        if value.ndim > 1:
            value.data.mul_(12)
    return Engine(decoder, layout=layout.eval())


def heard(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, SIZE, (frames, BOOKS))


def talk(one: Engine, frames: np.ndarray, sampling: Sampling = GREEDY) -> list[DuplexStep]:
    session = DuplexSession(one, PROMPT, said=SAID, sampling=sampling, seed=3)
    return [*(session.step(frame) for frame in frames), *session.finish()]


def columns(one: Engine, frames: np.ndarray, steps: list[DuplexStep]) -> tuple[Tensor, Tensor]:
    """Ids (T,) and slots (T, S) of the whole session, the other side's codes laid anew by their delays."""
    assert one.layout is not None
    ids = np.concatenate([PROMPT, [step.text for step in steps]])
    slots = np.full((len(ids), 2 * BOOKS), ABSENT)
    first = len(PROMPT) - 1
    for place, step in enumerate(steps):
        slots[first + 1 + place, :BOOKS] = step.slots[:BOOKS]
        assert (step.slots[BOOKS:] == ABSENT).all()
    for column, slot in enumerate(one.layout.pattern.slots[BOOKS:]):
        for frame, codes in enumerate(frames):
            if first + frame + slot.delay < len(ids):
                slots[first + frame + slot.delay, BOOKS + column] = codes[column]
    return torch.from_numpy(ids), torch.from_numpy(slots)


def at_once(decoder: Decoder, one: Engine, ids: Tensor, slots: Tensor) -> Tensor:
    """States (T, C) of all columns, in one pass of windowed attention."""
    assert one.layout is not None
    x = decoder.embed(ids)
    there = (slots != ABSENT).any(1)
    x = torch.where(there[:, None], x + one.layout.vectors(slots), x)
    bounds = torch.tensor([0, len(ids)], dtype=torch.int32)
    return decoder.run(x, torch.arange(len(ids)), PackedAttend(bounds, len(ids), None, decoder.config.window))


@pytest.mark.parametrize("delays", [(0, 1, 1), (0, 0, 0), (1, 0, 2)], ids=["moshi", "none", "any"])
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@torch.inference_mode()
def test_steps_are_one_pass_over_the_same_columns(delays: tuple[int, ...], sampling: Sampling) -> None:
    one, frames = engine(WINDOW, delays), heard(30)
    steps = talk(one, frames, sampling)
    assert len(steps) == len(frames) + max(delays) and one.layout is not None
    assert len({step.text for step in steps}) > 3 and max(step.text for step in steps) < IDS - 1
    ids, slots = columns(one, frames, steps)
    hidden = at_once(one.decoder, one, ids, slots)[len(PROMPT) - 1 : -1]
    ids, slots = ids[len(PROMPT) :], slots[len(PROMPT) :]
    logits = one.decoder.logits(hidden)
    logits[:, IDS - 1] = -torch.inf
    texts = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    np.testing.assert_allclose([step.logprob for step in steps], texts, atol=1e-4)
    rows = one.layout.id_rows(ids, one.decoder.embed)
    for place, step in enumerate(steps):
        weight = torch.zeros(len(steps))
        weight[place] = 1.0
        losses = one.layout.losses(hidden, rows, slots, weight)
        np.testing.assert_allclose(step.slot_logprobs, -losses.total, atol=1e-4)
    # Own codes come out frame by frame, each whole.
    late = max(delays)
    for place, step in enumerate(steps):
        frame = place - late
        own = [slots[frame + delay, book] if frame + delay >= 0 else ABSENT for book, delay in enumerate(delays)]
        if frame < 0 or ABSENT in own:
            assert step.codes is None
        else:
            assert step.codes is not None and step.codes.tolist() == [int(code) for code in own]
    assert sum(step.codes is not None for step in steps) >= len(frames) - late


def test_steps_are_what_the_engine_says_when_told_all() -> None:
    one, frames = engine(), heard(25)
    steps = talk(one, frames)[: len(frames)]
    nothing = [ABSENT] * BOOKS
    ids, slots = columns(one, frames, steps)
    told = slots[len(PROMPT) :, BOOKS:].tolist()
    request = TokenRequest(
        prompt=PROMPT, limit=len(frames),
        frames=Frames(np.array([len(PROMPT) - 1]), slots[len(PROMPT) - 1 : len(PROMPT)].numpy()),
        slots=SlotOptions(
            ids=FrameIds(held=((IDS - 1, IDS), *SAID)), given=lambda place: [*nothing, *told[place]]
        ),
    )  # fmt: skip
    (answer,) = one.run([request])
    agreed = next((i for i, step in enumerate(steps) if step.text != answer.ids[i]), len(steps))
    assert agreed == len(steps) or answer.ids[agreed] == IDS - 1, "the engine may say the beginning's id, a session not"
    assert answer.slots is not None and agreed > 5
    assert answer.slots[:agreed, :BOOKS].tolist() == [step.slots[:BOOKS].tolist() for step in steps[:agreed]]


def test_a_scripted_overlap() -> None:
    """The other side says nothing, then speaks into what is being said, then is silent again: own output never stops,
    is what it was until the first word is heard, and another one from the next frame on."""
    one, frames = engine(), heard(40)
    quiet = np.full_like(frames, ABSENT)
    alone, over = quiet.copy(), quiet.copy()
    over[12:25] = frames[12:25]
    without, into = talk(one, alone), talk(one, over)
    assert len(without) == len(into) == 41
    said = [step.codes.tolist() for step in into if step.codes is not None]
    assert len(said) >= 39, "a frame of one's own for each that is heard"
    before = [(step.text, step.slots.tolist()) for step in into[:12]]
    assert before == [(step.text, step.slots.tolist()) for step in without[:12]]
    differ = [a.text != b.text or a.slots.tolist() != b.slots.tolist() for a, b in zip(into[12:25], without[12:25])]
    assert sum(differ) > 6 and any(differ[:3])


def test_what_is_kept_does_not_grow() -> None:
    one, frames = engine(), heard(60)
    session = DuplexSession(one, PROMPT, said=SAID, sampling=DRAWN)
    sizes = set()
    for frame in frames:
        session.step(frame)
        assert session.cache is not None
        kept = (session.track.slots, session.track.there, session.rows, session.heard, session.past)
        sizes.add((session.cache.bytes, session.cache.capacity, *(len(part) for part in kept)))
    assert len(sizes) <= 4 and session.cache is not None and session.cache.lengths.tolist() == [62]


def test_without_a_window_positions_end() -> None:
    one = engine(None)
    session = DuplexSession(one, PROMPT, said=SAID)
    for frame in heard(14):
        session.step(frame)
    with pytest.raises(InputError, match="all 16 positions"):
        session.step(heard(1)[0])


def test_what_is_no_frame_is_refused_and_changes_nothing() -> None:
    frames = heard(8)
    session = DuplexSession(engine(), PROMPT, said=SAID)
    found = []
    for frame in frames:
        for wrong in (frame[:2], np.array([0, 0, SIZE]), np.array([-2, 0, 0])):
            with pytest.raises(InputError, match=r"shape \(2,\)|code"):
                session.step(wrong)
        found.append(session.step(frame).slots.tolist())
    assert found == [step.slots.tolist() for step in talk(engine(), frames)[:8]]
    session.finish()
    assert session.finish() == []
    with pytest.raises(InputError, match="finished"):
        session.step(frames[0])
    flat = DepthLayout(DepthConfig(), DepthLayout.pattern_for(STREAM, DepthConfig()), width=PLAIN.width)
    for wrong_engine in (Engine(engine().decoder), Engine(engine().decoder, layout=flat)):
        with pytest.raises(InputError, match="layout"):
            DuplexSession(wrong_engine, PROMPT, said=SAID)
    with pytest.raises(InputError, match="ids of the 20"):
        DuplexSession(engine(), PROMPT, said=((0, IDS + 1),))
