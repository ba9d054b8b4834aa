"""Steps over buffers that stay where they are, equal to eager ones; captured as CUDA graphs where there is a GPU."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.tiny_model import tiny_model
from tests.test_generation import LIMIT, VOCABULARY, automata, prompts
from tests.test_generation_fast_step import PLAIN, made, ragged
from unitok.decoder.lora import LoraConfig, add_lora, lora_tensors
from unitok.generation.cuda_graphs import CudaGraphs
from unitok.generation.generate import generate
from unitok.generation.sampling import GREEDY, Sampling
from unitok.requests.request import Request

DRAWN = Sampling(temperature=0.9, top_k=30, top_p=0.95)
LENGTHS, LIMITS = (3, 9, 5, 4, 8), [4, 1, 9, 2, 6]


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_a_fixed_batch_gives_what_an_eager_one_gives_as_its_rows_end(sampling: Sampling) -> None:
    decoder = made()
    graphs = CudaGraphs(decoder, capacity=18, sizes=(1, 2, 4, 8), sampling=sampling)
    for start in (0, 2):  # the second generation finds the memory as the first has left it
        chosen, limits = ragged(*LENGTHS)[start:], LIMITS[start:]
        assert graphs.fit(decoder, len(chosen), 18, sampling)
        eager = generate(decoder, chosen, max_new_tokens=limits, sampling=sampling, seed=4)
        fixed = generate(decoder, chosen, max_new_tokens=limits, sampling=sampling, seed=4, graphs=graphs)
        for one, other, limit in zip(fixed, eager, limits):
            assert np.array_equal(one.ids, other.ids) and len(one.ids) == limit
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_the_steps_of_a_batch_of_64_with_a_grammar_are_the_graphs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = made(replace(PLAIN, vocab_size=VOCABULARY.size))
    chosen = [prompts()[index % 4] for index in range(64)]
    eager = generate(decoder, chosen, automata=automata(chosen), max_new_tokens=LIMIT)
    graphs = CudaGraphs(decoder, capacity=max(map(len, chosen)) + LIMIT)
    monkeypatch.setattr("unitok.generation.prefill.decode_step", lambda *_: pytest.fail("an eager step was taken"))
    fixed = generate(decoder, chosen, automata=automata(chosen), max_new_tokens=LIMIT, graphs=graphs)
    assert [one.ids.tolist() for one in fixed] == [one.ids.tolist() for one in eager]


def test_what_the_steps_were_not_made_for_goes_the_eager_way() -> None:
    decoder = made()
    graphs = CudaGraphs(decoder, capacity=12, sizes=(1, 2))
    assert graphs.fit(decoder, 2, 12, GREEDY)
    assert not graphs.fit(decoder, 3, 12, GREEDY) and not graphs.fit(decoder, 2, 13, GREEDY)
    assert not graphs.fit(decoder, 2, 12, DRAWN) and not graphs.fit(made(seed=1), 2, 12, GREEDY)
    eager = generate(decoder, ragged(9), max_new_tokens=9)[0]
    assert np.array_equal(generate(decoder, ragged(9), max_new_tokens=9, graphs=graphs)[0].ids, eager.ids)
    with torch.no_grad():
        decoder.blocks[0].qkv.mul_(-1)
    assert graphs.fit(decoder, 1, 12, GREEDY), "weights that change in place are read by the next step"
    changed = generate(decoder, ragged(4), max_new_tokens=8)[0]
    assert np.array_equal(generate(decoder, ragged(4), max_new_tokens=8, graphs=graphs)[0].ids, changed.ids)


def test_steps_with_low_rank_updates_end_when_these_move() -> None:
    decoder = made()
    add_lora(decoder, LoraConfig(rank=2))
    graphs = CudaGraphs(decoder, capacity=12, sizes=(1,))
    assert graphs.fit(decoder, 1, 12, GREEDY)
    with torch.no_grad():
        for value in lora_tensors(decoder).values():
            value.normal_(generator=torch.Generator().manual_seed(0))
    assert not graphs.fit(decoder, 1, 12, GREEDY), "the updates were added into copies of the weights"


def test_a_model_that_captured_its_steps_answers_and_streams_the_same() -> None:
    model = tiny_model()
    plain = model.translate("we buy two books", source="en", target="de")
    model.engine.capture(capacity=512, sizes=(1, 2))
    assert model.engine.graphs is not None and not model.engine.graphs.cache.kv.any()
    assert np.array_equal(model.translate("we buy two books", source="en", target="de").ids, plain.ids)
    assert model.engine.graphs.cache.kv.any(), "the answer was written where the captured steps are"
    *_, last = model.stream(Request(task="mt", source="en", target="de", text="we buy two books"))
    assert last.result is not None and np.array_equal(last.result.ids, plain.ids)


@pytest.mark.gpu
# Float32 takes another kernel than half precision, and says so.
@pytest.mark.filterwarnings("ignore:attention. .* is used instead:UserWarning")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures CUDA graphs: needs a GPU")
@pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
def test_graphs_replay_what_the_processor_computes(sampling: Sampling) -> None:
    eager = generate(made(), ragged(*LENGTHS), max_new_tokens=LIMITS, sampling=sampling, seed=4)
    decoder = made().cuda()
    graphs = CudaGraphs(decoder, capacity=18, sizes=(1, 2, 4, 8), sampling=sampling)
    for _ in range(2):
        found = generate(decoder, ragged(*LENGTHS), max_new_tokens=LIMITS, sampling=sampling, seed=4, graphs=graphs)
        assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in eager]


def test_answers_that_overlap_leave_one_another_alone() -> None:
    """The captured cache is one batch's at a time; others take ordinary steps meanwhile."""
    model = tiny_model()
    first = Request(task="mt", source="en", target="de", text="we buy two books")
    other = Request(task="mt", source="en", target="de", text="the green house stands here")
    wanted = [model.answer(one).ids for one in (first, other)]
    model.engine.capture(capacity=512, sizes=(1, 2))
    stream = model.stream(first)
    next(stream)
    assert np.array_equal(model.answer(other).ids, wanted[1])
    *_, last = stream
    assert last.result is not None and np.array_equal(last.result.ids, wanted[0])
    assert np.array_equal(model.answer(other).ids, wanted[1])
    abandoned = model.stream(first)
    next(abandoned)
    del abandoned
    gc.collect()
    assert model.engine.graphs is not None and model.engine.graphs.user is not None
    assert model.engine.graphs.user() is None
