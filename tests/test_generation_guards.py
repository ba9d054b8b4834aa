"""Loops end, text and speech are drawn in their own ways, what is banned is not written; all else stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from tests.support.tiny_model import speech, tiny_model
from unitok.generation.guards import LEAST_RUNS, LoopGuard, goes_round
from unitok.generation.length_limits import Limits
from unitok.generation.sampling import GREEDY, Sampling, sample
from unitok.model import Model
from unitok.requests.long_text import cut_lines
from unitok.requests.prompt_request import PromptRequest, seeded
from unitok.requests.request import GenerationConfig, Request
from unitok.results import Result
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.safety import generation_health

UNGUARDED = Sampling(temperature=0.0, loop_guard=False)


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights, which repeat themselves for ever where the most probable id is taken; nearly uniform draws."""
    return tiny_model(limits=Limits(units_per_text=60.0, frames_per_unit=8.0))


# -- cycles -------------------------------------------------------------------------------------------------------


def test_a_cycle_is_exact_long_and_at_the_end() -> None:
    start, random = list(range(100, 130)), np.random.default_rng(0).integers(8, size=400).tolist()
    for period in (1, 2, 3, 7, 20, 64):
        cycle = list(range(period))
        needed = max(48, 4 * period)
        turning = (cycle * needed)[:needed]
        assert goes_round([*start, *turning], 1, 48)
        assert not goes_round([*start, *turning[1:]], 1, 48) and not goes_round([*turning, *start], 1, 48)
        assert not goes_round([*start, *turning[: needed // 2], 99, *turning[needed // 2 + 1 :]], 1, 48)
    assert not goes_round((list(range(65)) * 9)[: 4 * 65], 1, 48)  # longer than any period that is looked for
    assert not goes_round(random, 1, 48)


def test_frames_are_compared_whole() -> None:
    frames = [[7, 10 + step % 3, 20] for step in range(60)]
    ids = [token for frame in frames for token in frame]
    assert goes_round(ids, 3, 60) and not goes_round(ids, 3, 61)
    ids[-2] = 19  # one codebook of the last frame
    assert not goes_round(ids, 3, 48)


def test_codes_beside_ids_are_heard(model: Model) -> None:
    """One id at every position goes round, unless the codes beside it do not."""
    prompt = render_prompt(SequenceSpec("tts", "en", conditions=(Span("text", np.arange(4)),)), model.vocabulary)
    still = int(model.vocabulary.to_ids("units", 3))
    other = int(model.vocabulary.to_ids("units", 4))

    def heard(beside: Callable[[int], list[int] | None]) -> bool:
        guard, automaton = LoopGuard(model.vocabulary), Automaton(model.vocabulary, prompt, max_new_tokens=900)
        found = False
        for step in range(400):
            token = still if step % 2 else other
            automaton.advance(token)
            found = found or guard.push(token, automaton, beside(step))
        return found

    assert heard(lambda step: None) and heard(lambda step: [step % 4, 7])
    assert not heard(lambda step: [step, 7])


def asked(task: str, **flags: tuple[str, ...]) -> PromptRequest:
    text = Span("text", np.arange(6) + 300)
    return PromptRequest(plan=SequenceSpec(task, "en", conditions=(text,), **flags))  # type: ignore[arg-type]


@pytest.mark.parametrize("output", ["<out:units>", "<out:codes>"])
def test_a_looping_decoder_ends(model: Model, output: str) -> None:
    request = asked("tts", flags=(output,))
    (endless,), (ended,) = (model.run([request], sampling=way) for way in (UNGUARDED, GREEDY))
    units, whole = ended.outputs[0].content, endless.outputs[0].content
    assert endless.finish_reason == "length" and ended.finish_reason == "loop" and ended.cut
    assert LEAST_RUNS <= len(units) < len(whole) and np.array_equal(units, whole[: len(units)])
    assert len(ended.ids) < len(endless.ids) and ended.ids[-1] == model.vocabulary.eos
    assert "loop" in cut_lines(ended)[0] and "length limit" in cut_lines(endless)[0]


def test_codes_that_stand_still_end_later(model: Model) -> None:
    """A cycle of frames may be silence: six seconds of it are too much."""
    automaton, vocabulary = model.token_request(asked("tts", flags=("<out:codes>",))).automaton, model.vocabulary
    guard, stream = LoopGuard(vocabulary), vocabulary.main("codes")
    assert automaton is not None and stream is not None and stream.frame_rate is not None
    for token in (automaton.allowed()[0][0], vocabulary.control("</units>"), vocabulary.control("<gen:codes>")):
        automaton.advance(token)
        assert not guard.push(token, automaton)
    count, looped = 0, False
    while not looped:
        token = automaton.allowed()[-1][0]  # a code, not the closer
        automaton.advance(token)
        count, looped = count + 1, guard.push(token, automaton)
    assert 6 * stream.frame_rate <= count / automaton.width <= 6 * stream.frame_rate + 16
    automaton.close()
    ended = []
    while not automaton.finished:
        ((start, stop),) = automaton.allowed()
        assert stop == start + 1
        ended.append(start)
        automaton.advance(start)
    assert automaton.cut and ended[-1] == vocabulary.eos


def test_interleaved_loops_end(model: Model) -> None:
    plan = SequenceSpec("ilm", "en", outputs=(Span("units", np.arange(4)),))
    request = PromptRequest(plan=plan, limit=400)
    (endless,), (ended,) = (model.run([request], sampling=way) for way in (UNGUARDED, GREEDY))
    if endless.finish_reason == "length":  # what these weights do: the same unit for ever
        assert ended.finish_reason == "loop" and len(ended.ids) < len(endless.ids) == 400
    assert ended.ids[-1] == model.vocabulary.eos


WAYS = (Sampling(), Sampling(temperature=1.3, top_p=0.9, repetition_window=10))
PLANS = [
    SequenceSpec("tts", "en", flags=(flag,), conditions=(Span("text", np.arange(6) + 300),))
    for flag in ("<out:units>", "<out:codes>")
] + [SequenceSpec("slm", "en"), SequenceSpec("ilm", "en"), SequenceSpec("lm", "en")]


@pytest.mark.parametrize("way", WAYS)
def test_what_does_not_loop_is_unchanged(model: Model, way: Sampling) -> None:
    requests = seeded([PromptRequest(plan=plan) for plan in PLANS for _ in range(3)], 1)
    guarded, free = (model.run(requests, sampling=one) for one in (way, replace(way, loop_guard=False)))
    for one, other in zip(guarded, free):
        assert one.ids.tolist() == other.ids.tolist() and one.finish_reason == other.finish_reason != "loop"


def test_a_loop_in_a_batch_ends_as_alone(model: Model) -> None:
    requests = [asked("tts", flags=("<out:units>",)), PromptRequest(plan=PLANS[2]), PromptRequest(plan=PLANS[0])]
    together = model.run(requests)
    for one, request in zip(together, requests):
        (alone,) = model.run([request])
        assert one.ids.tolist() == alone.ids.tolist() and one.finish_reason == alone.finish_reason


def test_loops_runaways_and_empties_are_counted(model: Model) -> None:
    requests = [asked("tts", flags=("<out:units>",))] * 3
    eos = model.vocabulary.eos
    free = generation_health(model.run(requests, sampling=UNGUARDED), eos=eos)
    assert (free.count, free.loops, free.cut, free.loops_cut, free.runaways, free.empties) == (3, 3, 3, 0, 0, 0)
    held = generation_health(model.run(requests), eos=eos)
    assert (held.loops, held.cut, held.loops_cut, held.healthy, free.healthy) == (0, 0, 3, True, False)
    bad = [Result(ids=np.array([eos]), outputs=(Span("units", np.zeros(0)),)), Result(ids=np.array([5]))]
    found = generation_health(bad, eos=eos)
    assert (found.runaways, found.empties, found.healthy) == (1, 2, False)


# -- temperatures -------------------------------------------------------------------------------------------------


def chained(model: Model, temperature: float, speech_temperature: float | None, seed: int) -> Result:
    sampling = Sampling(temperature=temperature, speech_temperature=speech_temperature)
    config = GenerationConfig(sampling=sampling, seed=seed)
    units = model.units_of([(speech(), 16000)])[0]
    return model.answer(Request(task="s2st", source="en", target="de", audio=units, chain=True, config=config))


def test_text_and_speech_have_their_own_temperature(model: Model) -> None:
    quiet = [chained(model, 0.0, 1.0, seed) for seed in (1, 2)]
    greedy, loud = chained(model, 0.0, None, 0), [chained(model, 1.0, 0.0, seed) for seed in (1, 2)]
    assert quiet[0].texts == quiet[1].texts == greedy.texts
    assert quiet[0].outputs[-1] != quiet[1].outputs[-1]
    assert loud[0].texts != loud[1].texts
    for one in loud:  # each unit is the most probable one, as greedy search has it
        assert len(set(one.outputs[-1].content[8:].tolist())) <= 2
    same = chained(model, 1.0, 1.0, 3)
    assert same.ids.tolist() == chained(model, 1.0, None, 3).ids.tolist()


def test_drawn_speech_beside_greedy_text_in_a_batch(model: Model) -> None:
    way = Sampling(temperature=0.0, speech_temperature=1.0)
    requests = seeded([PromptRequest(plan=plan) for plan in (PLANS[0], PLANS[2], PLANS[4], PLANS[3])], 4)
    for one, request in zip(model.run(requests, sampling=way), requests):
        assert one.ids.tolist() == model.run([request], sampling=way)[0].ids.tolist()


# -- bans ---------------------------------------------------------------------------------------------------------


def interleaved(model: Model, ban: tuple[str, ...], outputs: tuple[Span, ...] = ()) -> list[Result]:
    plan = SequenceSpec("ilm", "en", outputs=outputs)
    requests = [PromptRequest(plan=plan, seed=seed, limit=40) for seed in range(8)]
    return model.run(requests, sampling=Sampling(ban=ban))


@pytest.mark.parametrize(("ban", "other"), [("text", "units"), ("units", "text")])
def test_what_is_banned_is_not_written(model: Model, ban: str, other: str) -> None:
    assert {span.kind for one in interleaved(model, ()) for span in one.outputs} == {"text", "units"}
    given = Span(ban, np.arange(3) + 2)
    for found, after in zip(interleaved(model, (ban,)), interleaved(model, (ban,), (given,))):
        assert [span.kind for span in found.outputs] == [other] and found.ids[-1] == model.vocabulary.eos
        assert [span.kind for span in after.outputs] == [ban, other]
        assert after.outputs[0] == given  # nothing was added to it


@pytest.mark.parametrize("ban", ["text", "units"])
def test_a_banned_sequence_is_whole_within_any_limit(ban: str) -> None:
    vocabulary, random = toy_shards.vocabulary(), np.random.default_rng(0)
    for outputs in ((), (Span("text", np.arange(2)),), (Span("units", np.arange(2)),)):
        prompt = render_prompt(SequenceSpec("ilm", "en", outputs=outputs), vocabulary)
        for limit in range(1, 9):
            try:
                automaton = Automaton(vocabulary, prompt, max_new_tokens=limit, banned=(ban,))
            except InputError as error:
                least = 1 if outputs and outputs[0].kind != ban else 3
                assert limit < least and "allow more tokens" in str(error)
                continue
            made: list[int] = []
            while not automaton.finished:
                start, stop = automaton.allowed()[int(random.integers(len(automaton.allowed())))]
                made.append(int(random.integers(start, stop)))
                automaton.advance(made[-1])
            assert len(made) <= limit
            found = parse(np.concatenate([prompt, made]), vocabulary)
            assert found.complete and ban not in [span.kind for span in found.outputs[len(outputs) :]]


def test_bans_that_leave_nothing_or_do_not_apply_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="text and units banned from ilm"):
        interleaved(model, ("text", "units"))
    with pytest.raises(InputError, match="banned from slm"):
        model.run([PromptRequest(plan=PLANS[2])], sampling=Sampling(ban=("text",)))
    for wrong in (("codes",), "text", ("",)):
        with pytest.raises(InputError, match="ban is"):
            Sampling(ban=wrong)  # type: ignore[arg-type]
    assert Sampling(ban=["text"]) == Sampling(ban=("text",))  # type: ignore[arg-type]


# -- repetition-aware sampling ------------------------------------------------------------------------------------

AWARE = Sampling(top_p=0.8, repetition_window=10, repetition_share=0.1)
"""As VALL-E 2's public descendants have it."""
NUCLEUS = Sampling(top_p=0.8)


def test_what_fills_no_more_than_its_share_is_drawn_as_before() -> None:
    """Where nothing repeats itself, the ids are those of nucleus sampling, draw for draw."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 20, generator=random) * 2
    uniform = torch.rand(500, 2, generator=random)
    once = [[*range(20, 29), token % 20] for token in range(500)]  # any id at most once in ten: its share
    assert torch.equal(sample(logits, AWARE, uniform, once), sample(logits, NUCLEUS, uniform, once))
    few = [[token % 20] for token in range(500)]
    assert torch.equal(sample(logits, AWARE, uniform, few), sample(logits, NUCLEUS, uniform, few))


def test_what_exceeds_its_share_is_drawn_from_the_whole_distribution() -> None:
    logits = torch.tensor([[4.0, 1.0, 1.0]]).log_softmax(-1).expand(2000, 3)
    uniform = torch.stack([torch.linspace(0, 1 - 1e-6, 2000), torch.linspace(0, 1 - 1e-6, 2000)], dim=1)
    within, beyond = [[0, *range(3, 12)]] * 2000, [[0, 0, *range(3, 11)]] * 2000
    assert set(sample(logits, AWARE, uniform, within).tolist()) == {0}  # the nucleus
    shares = torch.bincount(sample(logits, AWARE, uniform, beyond)) / 2000
    torch.testing.assert_close(shares, logits[0].exp(), atol=2e-3, rtol=0)


def test_a_decoder_that_repeats_its_last_id_gets_out_of_its_loop() -> None:
    """The next id is the last one with 90 %: the nucleus is that alone, and never ends."""

    def longest_run(sampling: Sampling, steps: int = 300) -> int:
        random, past, run, longest = np.random.default_rng(1), [0], 1, 1
        for _ in range(steps):
            probabilities = torch.full((1, 20), 0.1 / 19)
            probabilities[0, past[-1]] = 0.9
            token = int(sample(probabilities.log(), sampling, torch.from_numpy(random.random((1, 2))), [past])[0])
            run = run + 1 if token == past[-1] else 1
            longest = max(longest, run)
            past.append(token)
        return longest

    assert longest_run(NUCLEUS) == 301 and longest_run(AWARE) < 75
