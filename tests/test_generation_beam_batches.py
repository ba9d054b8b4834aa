"""Beam searches that run together find what each finds alone, to the id."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.test_generation import VOCABULARY, automata, prompts
from tests.test_generation_fast_step import PLAIN, made
from unitok.decoder.model import Decoder
from unitok.generation.beam_search import BeamBatch, Hypothesis, SearchRequest, _Beam, _Search, beam_search
from unitok.generation.engine import Engine
from unitok.generation.prefill import stepper_of
from unitok.generation.token_request import TokenRequest
from unitok_tokenizers.compute import find_compiler
from unitok_tokenizers.errors import InputError


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return made(replace(PLAIN, vocab_size=VOCABULARY.size))


def requests() -> list[SearchRequest]:
    """Unlike prompts, numbers of beams, lists and penalties."""
    chosen = prompts()
    ways = [(1, 1, 1.0), (2, 2, 0.0), (5, 3, 1.0), (3, 3, 0.5)]
    return [
        SearchRequest(prompt=prompt, automaton=one, beams=beams, n_best=best, length_penalty=penalty)
        for number, (prompt, one) in enumerate(zip(chosen, automata(chosen)))
        for beams, best, penalty in [ways[number % len(ways)]]
    ]


def alone(decoder: Decoder, request: SearchRequest) -> list[Hypothesis]:
    return beam_search(
        decoder, request.prompt, request.automaton, beams=request.beams, n_best=request.n_best,
        length_penalty=request.length_penalty,
    )  # fmt: skip


def same(found: list[Hypothesis], wanted: list[Hypothesis]) -> None:
    assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in wanted]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in wanted], atol=1e-4)


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "general"])
@pytest.mark.parametrize("every", [0, 2], ids=["at once", "one after another"])
def test_searches_find_what_each_finds_alone(decoder: Decoder, quick: bool, every: int) -> None:
    batch = BeamBatch(decoder, stepper_of(decoder) if quick else None)
    waiting, numbers, steps, ended = requests(), [], 0, set[int]()
    assert len(waiting) >= 4
    while waiting or batch.busy:
        while waiting and (not every or steps % every == 0):
            numbers.append(batch.add(waiting.pop(0)))
            if every:
                break
        found = batch.step()
        assert not ended & set(found)
        ended |= set(found)
        steps += 1
    assert ended == set(numbers) and batch.step() == []
    for number, request in zip(numbers, requests(), strict=True):
        same(batch.take(number), alone(decoder, request))


def test_a_search_goes_on_until_as_many_have_ended_as_are_asked_for() -> None:
    chosen = prompts()[:1]
    (automaton,) = automata(chosen)
    ended = [Hypothesis(np.asarray([1, 2]), -1.0, -0.5), Hypothesis(np.asarray([1, 3]), -1.5, -0.75)]
    for n_best, settled in ((1, True), (2, True), (4, False)):
        request = SearchRequest(prompt=chosen[0], automaton=automaton, beams=2, n_best=n_best)
        search = _Search(request, [_Beam([4], -90.0, automaton)], list(ended))
        assert search._settled() == settled, "what still runs is worse than both"


def test_an_engine_searches_for_all(decoder: Decoder) -> None:
    asked = [
        TokenRequest(prompt=one.prompt, limit=one.automaton.remaining, automaton=one.automaton) for one in requests()
    ]
    engine = Engine(decoder)
    for found, one in zip(engine.search_all(asked, beams=4), requests(), strict=True):
        same(found, alone(decoder, replace(one, beams=4, n_best=4, length_penalty=1.0)))
    assert engine.search_all([], beams=2) == []
    with pytest.raises(InputError, match="beams is 0"):
        engine.search_all(asked, beams=0)
    with pytest.raises(InputError, match="give an automaton"):
        engine.search_all([replace(asked[0], automaton=None)], beams=2)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_a_compiled_step_takes_a_search_of_one_beam(decoder: Decoder) -> None:
    request = requests()[0]
    engine = Engine(decoder, compiled=True)
    asked = TokenRequest(prompt=request.prompt, limit=request.automaton.remaining, automaton=request.automaton)
    for beams in (1, 3):
        same(engine.search(asked, beams=beams, n_best=1), alone(decoder, replace(request, beams=beams, n_best=1)))
