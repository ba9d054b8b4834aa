"""Codes beside ids: chosen with their ids, read at the next step, and the same whatever runs beside them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support.chain_layout import ChainLayout
from tests.test_generation_fast_step import PLAIN, made, ragged
from unitok.decoder.model import Decoder, pack_documents
from unitok.generation.batch import Batch
from unitok.generation.engine import Engine
from unitok.generation.framed import FrameIds, SlotOptions
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import Generated, TokenRequest
from unitok.layouts.base import Choose
from unitok_tokenizers.compute import find_compiler
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.frames import ABSENT, FramePattern, Role, SlotSpec
from unitok_tokenizers.grammar.positions import Frames

SIZES = (9, 7, 5, 6)
FLUSH = 30
IDS = FrameIds(held=((7, 26), (FLUSH, FLUSH + 1)))
OPTIONS = SlotOptions(ids=IDS, flush=FLUSH)
DRAWN = Sampling(temperature=1.2)
WAYS = (GREEDY, DRAWN, Sampling(temperature=0.8, top_p=0.9, repetition_window=3), Sampling(top_k=3), GREEDY)


def pattern(delays: tuple[int, ...] = (0, 0, 0), roles: tuple[Role, ...] = ("predicted",) * 3) -> FramePattern:
    slots = tuple(
        SlotSpec(stream="codes", codebook=q + 1, size=SIZES[q + 1], delay=delay, role=role)
        for q, (delay, role) in enumerate(zip(delays, roles))
    )
    return FramePattern(layout="chain", stream="codes", cardinalities=SIZES, inline=(0,), slots=slots)


@cache
def layout(delays: tuple[int, ...] = (0, 0, 0), roles: tuple[Role, ...] = ("predicted",) * 3) -> ChainLayout:
    return ChainLayout(pattern(delays, roles), PLAIN.width).eval()


@cache
def decoder() -> Decoder:
    return made(replace(PLAIN, vocab_size=32))


def beside(prompt: np.ndarray, seed: int) -> Frames:
    """Codes beside the ids of a prompt that hold any."""
    index = np.flatnonzero([any(a <= token < b for a, b in IDS.held) for token in prompt])
    slots = np.random.default_rng(seed).integers(0, SIZES[1:], (len(index), 3))
    return Frames(index=index, slots=slots)


def requests(options: SlotOptions | None = None) -> list[TokenRequest]:
    """Five of unlike prompts, limits, seeds and samplings; the fourth writes no codes."""
    found = []
    for i, (prompt, limit, way) in enumerate(zip(ragged(4, 21, 6, 4, 9), (9, 14, 11, 8, 12), WAYS)):
        prompt = prompt % 32
        slots = None if i == 3 else options or OPTIONS
        found.append(
            TokenRequest(prompt=prompt, limit=limit, sampling=way, seed=4 + i, frames=beside(prompt, i), slots=slots)
        )
    return found


def alone(request: TokenRequest, one: ChainLayout) -> Generated:
    return Engine(decoder(), layout=one).run([request])[0]


def same(found: Generated, wanted: Generated) -> None:
    assert found.ids.tolist() == wanted.ids.tolist()
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-4)
    assert (found.slots is None) == (wanted.slots is None)
    if found.slots is not None and wanted.slots is not None:
        assert found.slots.tolist() == wanted.slots.tolist()
        assert found.slot_logprobs is not None and wanted.slot_logprobs is not None
        np.testing.assert_allclose(found.slot_logprobs, wanted.slot_logprobs, atol=1e-4)


@pytest.mark.parametrize("delays", [(0, 0, 0), (1, 0, 2)], ids=["depth", "delays"])
@pytest.mark.parametrize("rows", [2, 64])
def test_requests_that_come_and_go_are_answered_as_alone(delays: tuple[int, ...], rows: int) -> None:
    one = layout(delays)
    engine, waiting, numbers = Engine(decoder(), rows=rows, layout=one), requests(), []
    told: dict[int, list[tuple[int, ...] | None]] = {}
    while waiting or engine.busy:
        if waiting:
            numbers.append(engine.add(waiting.pop(0)))
        for number, _ in engine.step():
            codes = engine.slots_of(number)
            told.setdefault(number, []).append(None if codes is None else tuple(codes.tolist()))
    held = 0
    for number, request in zip(numbers, requests(), strict=True):
        found = engine.take(number)
        same(found, alone(request, one))
        if found.slots is None:
            assert request.slots is None and set(told[number]) == {None}
            continue
        there = [any(a <= token < b for a, b in IDS.held) for token in found.ids]
        assert told[number] == [tuple(row) if at else None for row, at in zip(found.slots.tolist(), there)]
        assert (found.slots[~np.array(there)] == ABSENT).all()
        held += sum(there)
    assert held > 15


def hidden_of(prompt: np.ndarray, found: Generated, given: Frames, one: ChainLayout) -> tuple[Tensor, np.ndarray]:
    """States before each id of an answer, and the slots of the whole sequence, all read at once."""
    assert found.slots is not None
    ids = np.concatenate([prompt, found.ids])
    slots = np.full((len(ids), 3), ABSENT)
    slots[given.index] = given.slots
    slots[len(prompt) :] = found.slots
    packed = pack_documents([ids])
    x = decoder().embed(packed.ids) + one.vectors(torch.from_numpy(slots))
    hidden = decoder()(
        packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, vectors=x, vector_index=packed.positions
    )
    return hidden[len(prompt) - 1 : -1], slots[len(prompt) :]


@torch.inference_mode()
@pytest.mark.parametrize("delays", [(0, 0, 0), (2, 0, 1)], ids=["depth", "delays"])
def test_greedy_codes_are_the_most_probable_ones_of_one_pass_over_all(delays: tuple[int, ...]) -> None:
    one, counted = layout(delays), 0
    for request in requests():
        if request.slots is None or request.frames is None:
            continue
        found = alone(replace(request, sampling=GREEDY), one)
        hidden, slots = hidden_of(request.prompt, found, request.frames, one)
        assert found.ids.tolist() == decoder().logits(hidden).argmax(1).tolist()
        rows, given = decoder().embed(torch.from_numpy(found.ids)), torch.from_numpy(slots)
        assert found.slot_logprobs is not None
        for slot in range(3):
            logits = one.logits(hidden, rows, given, slot)
            there = given[:, slot] != ABSENT
            assert logits.argmax(1)[there].tolist() == given[there, slot].tolist()
            wanted = logits.log_softmax(1).amax(1)[there]
            np.testing.assert_allclose(found.slot_logprobs[there.numpy(), slot], wanted, atol=1e-4)
            counted += int(there.sum())
        assert found.score == pytest.approx(float(found.logprobs.sum() + found.slot_logprobs.sum()), abs=1e-4)
    assert counted > 30


def test_what_is_delayed_stands_behind_the_last_frame_and_nothing_else_does() -> None:
    """A grammar of one span: six frames, two flush marks, the end."""

    class Span:
        given, finished, kind = 3, False, "codes"

        def __init__(self) -> None:
            self.script = [((12, 25),)] * 6 + [((FLUSH, FLUSH + 1),)] * 2 + [((1, 2),)]

        def allowed(self) -> tuple[tuple[int, int], ...]:
            return self.script[0]

        @property
        def state_key(self) -> tuple[tuple[int, int], ...]:
            return self.script[0]

        def advance(self, token: int) -> None:
            self.script.pop(0)
            self.finished = not self.script

    rule: Automaton = Span()  # type: ignore[assignment]
    plain = Sampling(temperature=0.0, loop_guard=False)  # there is no vocabulary to guard by
    request = TokenRequest(prompt=np.array([3, 4, 5]), limit=20, automaton=rule, slots=OPTIONS, sampling=plain)
    found = alone(request, layout((1, 0, 2)))
    assert found.finish_reason == "eos" and found.slots is not None
    there = (found.slots != ABSENT).T.astype(int).tolist()
    assert there == [[0, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 0]]
    places = np.array([*found.ids[:6] - 12, ABSENT, ABSENT]) % 9  # codes of the first codebook, as many as it has
    places[6:] = ABSENT
    codes = pattern((1, 0, 2)).gather(places[:, None], found.slots[:8])
    assert codes.shape == (6, 4)


def test_a_layout_may_ask_for_slots_in_any_order() -> None:
    logits = [torch.randn(2, size, generator=torch.Generator().manual_seed(size)) for size in SIZES[1:]]

    class Backwards(ChainLayout):
        order: tuple[int, ...] = (2, 1, 0)

        def step(
            self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            found = {slot: choose(slot, logits[slot][: len(rows)])[0] for slot in self.order}
            slots = torch.stack([found[slot] for slot in range(3)], 1)
            return slots, torch.zeros(slots.shape)

    forwards, backwards = Backwards(pattern(), PLAIN.width), Backwards(pattern(), PLAIN.width)
    forwards.order = (0, 1, 2)
    request = replace(requests()[1], sampling=DRAWN)
    one, other = alone(request, forwards), alone(request, backwards)
    assert one.slots is not None and other.slots is not None
    assert one.slots.tolist() == other.slots.tolist()
    drawn = one.slots[one.slots[:, 0] != ABSENT]
    assert len({tuple(row) for row in drawn.tolist()}) > 1


def test_each_slot_may_be_chosen_in_its_own_way_and_draws_are_the_requests_own() -> None:
    ways = (GREEDY, Sampling(temperature=3.0), Sampling(temperature=3.0, top_k=1))
    options = SlotOptions(ids=FrameIds(held=((0, 32),)), sampling=ways)
    base = replace(requests()[0], sampling=GREEDY, slots=options)
    one, again, other = (alone(replace(base, seed=seed), layout()) for seed in (1, 1, 2))
    same(one, again)
    assert one.slots is not None and other.slots is not None and one.slots.tolist() != other.slots.tolist()
    assert one.slots[0, 0] == other.slots[0, 0], "greedy"


def test_a_repeated_code_is_drawn_again() -> None:
    """One slot's logits say one code alone: repetition-aware draws leave it, others do not."""

    class Looping(ChainLayout):
        def step(
            self, hidden: Tensor, rows: Tensor, before: Tensor, choose: Choose, behind: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            slots = [choose(slot, torch.tensor([[2.0] + [0.0] * (size - 1)]))[0] for slot, size in enumerate(SIZES[1:])]
            return torch.stack(slots, 1), torch.zeros(1, 3)

    ids = FrameIds(held=((0, 32),))
    ways = (
        Sampling(top_p=0.2), Sampling(top_p=0.2, repetition_window=4, repetition_share=0.5), GREEDY,
    )  # fmt: skip
    request = TokenRequest(prompt=np.array([3]), limit=40, slots=SlotOptions(ids=ids, sampling=ways))
    found = alone(request, Looping(pattern(), PLAIN.width))
    assert found.slots is not None
    assert set(found.slots[:, 0]) == {0} and set(found.slots[:, 2]) == {0}
    assert len(set(found.slots[:, 1])) > 1 and found.slots[:3, 1].tolist() == [0, 0, 0]


def test_what_others_say_is_given_step_by_step_and_changes_what_follows() -> None:
    one = layout((0, 0, 0), ("predicted", "forced", "input-only"))

    def said(number: int) -> tuple[int, int, int]:
        return ABSENT, (3 * number) % 5, number % 6 if number % 2 else ABSENT

    options = SlotOptions(ids=IDS, flush=FLUSH, given=said)
    asked = [one for one in requests(options) if one.slots is not None]
    together = Engine(decoder(), layout=one).run(asked)
    for found, request in zip(together, asked, strict=True):
        same(found, alone(request, one))
        assert found.slots is not None and found.slot_logprobs is not None
        there = [row for row in found.slots.tolist() if row != [ABSENT] * 3]
        assert [tuple(row[1:]) for row in there] == [said(number)[1:] for number in range(len(there))]
        assert (found.slot_logprobs[:, 1:] == 0).all()
    silent = [alone(replace(request, slots=OPTIONS), one) for request in asked]
    assert any(a.ids.tolist() != b.ids.tolist() for a, b in zip(together, silent))
    first = replace(OPTIONS, given=lambda n: (n % 7, ABSENT, ABSENT))
    codes = [alone(replace(request, slots=first), one) for request in asked]
    for found in codes:  # a code of a predicted slot may be given too, and has its own probability
        assert found.slots is not None and found.slot_logprobs is not None
        there = found.slots[:, 0] != ABSENT
        assert found.slots[there, 0].tolist() == [n % 7 for n in range(int(there.sum()))]
        assert (found.slot_logprobs[there, 0] < 0).all()


def test_what_is_given_wrongly_is_an_error_that_leaves_all_where_they_stood() -> None:
    one = layout((0, 0, 0), ("predicted", "forced", "predicted"))
    wrong = [True]

    def said(number: int) -> tuple[int, ...]:
        return (ABSENT, 99, ABSENT) if wrong and number == 2 else (ABSENT, 1, ABSENT)

    request = replace(requests(SlotOptions(ids=IDS, flush=FLUSH, given=said))[1], limit=20)
    other = requests()[2]
    batch = Batch(decoder(), None, layout=one)
    numbers = [batch.add(request), batch.add(other)]
    with pytest.raises(InputError, match=r"code 99 in slot 1, which holds 0…4"):
        while batch.step():
            pass
    wrong.clear()
    while batch.step():
        pass
    for number, asked in zip(numbers, (request, other), strict=True):
        same(batch.take(number), alone(asked, one))


def test_equal_ids_with_unlike_codes_are_unlike_prompts() -> None:
    prompt = np.array([1, *range(12, 24), *range(12, 24), 2])
    first, second = (
        TokenRequest(prompt=prompt, limit=6, frames=beside(prompt, seed), slots=OPTIONS) for seed in (0, 1)
    )
    found = Engine(decoder(), layout=layout()).run([first, second])
    for one, request in zip(found, (first, second), strict=True):
        same(one, alone(request, layout()))
    assert np.abs(found[0].logprobs - found[1].logprobs).max() > 1e-3
    plain = alone(replace(first, frames=None), layout())
    assert np.abs(found[0].logprobs - plain.logprobs).max() > 1e-3


def test_what_steps_and_searches_cannot_do_is_refused() -> None:
    request = requests()[0]
    with pytest.raises(InputError, match="need the layout"):
        Engine(decoder()).run([request])
    with pytest.raises(InputError, match="int8"):
        Engine(decoder(), int8=True, layout=layout()).run([request])
    assert request.frames is not None
    for frames, error in (
        (Frames(index=request.frames.index, slots=request.frames.slots[:, :2]), "have shape"),
        (Frames(index=np.array([99]), slots=np.zeros((1, 3), np.int64)), "of 4 ids"),
        (Frames(index=np.array([0]), slots=np.array([[0, 5, 0]])), "code 5 in slot 1"),
    ):
        with pytest.raises(InputError, match=error):
            Engine(decoder(), layout=layout()).run([replace(request, frames=frames)])


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_compiled_steps_take_what_has_no_codes() -> None:
    engine = Engine(decoder(), compiled=True, layout=layout())
    for request in requests():
        same(engine.run([request])[0], alone(request, layout()))
