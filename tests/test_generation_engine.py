"""The engine: requests that come and go at any time are answered as each is alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.tiny_model import tiny_model
from tests.test_generation import VOCABULARY, automata
from tests.test_generation import prompts as task_prompts
from tests.test_generation_fast_step import PLAIN, made, ragged
from unitok.decoder.kv_cache import KVCache
from unitok.decoder.model import Decoder
from unitok.generation.batch import Batch
from unitok.generation.engine import Engine
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import Generated, TokenRequest
from unitok_tokenizers.errors import InputError

DRAWN = Sampling(temperature=0.9, top_k=20)
WAYS = (GREEDY, DRAWN, Sampling(temperature=1.3, top_p=0.8, repetition_window=4), DRAWN, GREEDY)


def requests() -> list[TokenRequest]:
    """Five of unlike prompts, limits, seeds and samplings."""
    rows = zip(ragged(3, 19, 5, 4, 8), (4, 1, 9, 12, 6), WAYS)
    return [TokenRequest(prompt=p, limit=n, sampling=way, seed=9 + i) for i, (p, n, way) in enumerate(rows)]


def alone(decoder: Decoder, request: TokenRequest) -> Generated:
    return Engine(decoder).run([request])[0]


def same(found: Generated, wanted: Generated) -> None:
    assert found.ids.tolist() == wanted.ids.tolist() and found.finish_reason == wanted.finish_reason
    np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("hooked", [False, True], ids=["quick", "general"])
def test_requests_that_come_between_steps_are_answered_as_alone(rows: int, hooked: bool) -> None:
    decoder = made()
    if hooked:
        decoder.blocks[1].after_hook = lambda layer, x: x  # type: ignore[assignment]
    engine, asked = Engine(decoder, rows=rows), requests()
    told: dict[int, list[int]] = {}
    waiting, numbers, steps = list(asked), [], 0
    while waiting or engine.busy:
        if waiting and steps % 2 == 0:
            numbers.append(engine.add(waiting.pop(0)))
        found = engine.step()
        assert len(found) <= rows
        for number, token in found:
            told.setdefault(number, []).append(token)
        steps += 1
    for number, request in zip(numbers, asked, strict=True):
        one = engine.take(number)
        assert told[number] == one.ids.tolist()
        same(one, alone(decoder, request))


def test_a_request_that_is_taken_back_leaves_the_others_what_they_are() -> None:
    decoder = made()
    asked = requests()
    engine = Engine(decoder)
    numbers = [engine.add(request) for request in asked]
    for _ in range(3):
        engine.step()
    engine.cancel(numbers[3])
    late = engine.add(asked[3])
    engine.cancel(late)  # before its first step
    while engine.busy:
        engine.step()
    engine.cancel(numbers[0])  # after its last: it stays as it ended
    for place in (0, 1, 2, 4):
        same(engine.take(numbers[place]), alone(decoder, asked[place]))
    cut, never = engine.take(numbers[3]), engine.take(late)
    assert cut.finish_reason == never.finish_reason == "cancelled"
    assert cut.ids.tolist() == alone(decoder, asked[3]).ids[:3].tolist() and not len(never.ids)
    with pytest.raises(InputError, match=f"no request {late} is here"):
        engine.take(late)
    engine.cancel(late)  # nothing left to stop


def test_grammars_and_free_sequences_run_beside_each_other() -> None:
    decoder = made(replace(PLAIN, vocab_size=VOCABULARY.size))
    chosen = task_prompts()[:3]

    def tasks() -> list[TokenRequest]:
        ruled = [
            TokenRequest(prompt=prompt, limit=one.remaining, automaton=one, sampling=way, seed=3)
            for prompt, one, way in zip(chosen, automata(chosen), WAYS)
        ]
        return [ruled[0], TokenRequest(prompt=chosen[1], limit=7), *ruled[1:]]

    engine = Engine(decoder)
    together = engine.run(tasks())
    for found, request in zip(together, tasks(), strict=True):
        same(found, alone(decoder, request))
    assert {together[0].finish_reason, together[2].finish_reason} <= {"eos", "length"}


def test_captured_steps_give_way_when_another_request_comes() -> None:
    decoder, asked = made(), [replace(one, sampling=GREEDY) for one in requests()]
    engine = Engine(decoder)
    engine.capture(capacity=40, sizes=(1, 2, 4))
    batch = engine.batch()
    first = [batch.add(request) for request in asked[2:4]]
    assert batch.step() and batch._captured
    batch.step()
    second = batch.add(asked[4])
    while batch.step():
        assert not batch._captured
    for number, request in zip([*first, second], asked[2:5], strict=True):
        same(batch.take(number), alone(decoder, request))


@torch.inference_mode()
def test_a_cache_takes_in_rows_of_any_length_and_fills_the_room_that_others_left() -> None:
    def cache(rows: int, capacity: int, seed: int) -> KVCache:
        one = KVCache(PLAIN, rows, capacity, dtype=torch.float32)
        one.kv.copy_(torch.randn(one.kv.shape, generator=torch.Generator().manual_seed(seed)))
        one.lengths.copy_(torch.arange(1, rows + 1))
        return one

    one, other = cache(2, 4, 0), cache(3, 7, 1)
    kept, new = one.kv.clone(), other.kv.clone()
    one.join(other, 2)
    assert one.capacity == 7 and one.lengths.tolist() == [1, 2, 1, 2, 3] and len(one.columns) == 7
    assert torch.equal(one.kv[:, :2, :, :2], kept[:, :, :, :2]) and torch.equal(one.kv[:, 2:], new)
    one.drop([0, 3])
    memory, before = one._all.data_ptr(), one.kv[:, :, :, :3].clone()
    one.join(cache(2, 5, 2), 3)
    assert one._all.data_ptr() == memory, "there was room"
    assert torch.equal(one.kv[:, :3, :, :3], before) and one.kv.shape[1] == len(one.lengths) == 5


def test_what_does_not_fit_or_is_no_seed_is_refused_before_anything_runs() -> None:
    batch = Batch(made(), None)
    with pytest.raises(InputError, match="the model has"):
        batch.add(TokenRequest(prompt=ragged(5)[0], limit=10**6))
    with pytest.raises(InputError, match="seed"):
        batch.add(TokenRequest(prompt=ragged(5)[0], limit=3, sampling=DRAWN, seed=-1))
    assert not batch.busy and batch.step() == []
    with pytest.raises(InputError, match="give an automaton"):
        Engine(made()).search(TokenRequest(prompt=ragged(5)[0], limit=3), beams=2)


def test_a_model_has_an_engine_of_the_decoder_that_is_there_now() -> None:
    model = tiny_model()
    engine = model.engine
    assert model.engine is engine and engine.decoder is model.decoder and engine.device == model.device
    model.decoder = made(replace(PLAIN, vocab_size=model.vocabulary.size))
    assert model.engine is not engine and model.engine.decoder is model.decoder
    model.hasten(int8=True, compiled=False)
    assert model.engine.int8 and replace(model).engine is not model.engine


def test_requests_that_are_none_leave_those_that_run_alone() -> None:
    engine, good = Engine(made()), requests()[0]
    number = engine.add(good)
    for wrong, message in (
        (replace(good, limit=0), "limit is 0"),
        (replace(good, prompt=np.zeros(0, np.int64)), "the prompt has 0 ids"),
        (replace(good, prompt=np.array([1, 10**6])), "holds id 1000000"),
        (replace(good, prompt=np.array([-1])), "holds id -1"),
        (replace(good, seed=-1), "seed"),
    ):
        with pytest.raises(InputError, match=message):
            engine.add(wrong)
    while engine.busy:
        engine.step()
    same(engine.take(number), alone(made(), good))
    with pytest.raises(InputError, match="rows is 0"):
        Engine(made(), rows=0)


def test_weights_may_change_between_requests() -> None:
    decoder, asked = made(), requests()[3]
    engine = Engine(decoder)

    def added() -> Generated:
        number = engine.add(asked)
        while engine.step():
            pass
        return engine.take(number)

    first = added()
    with torch.no_grad():
        for value in decoder.parameters():
            value.mul_(1.5)
    second = added()
    same(second, alone(decoder, asked))
    assert second.ids.tolist() != first.ids.tolist() or not np.allclose(second.logprobs, first.logprobs)
