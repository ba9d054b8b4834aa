"""Generation: the cache gives what a full forward gives, a batch what each gives alone, beams what scoring gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.generation.beam_search import beam_search
from unitok.generation.generate import SCORED_AT_ONCE, generate, score
from unitok.generation.sampling import GREEDY, Sampling, draw, filter_logits, sample
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span

VOCABULARY = toy_shards.vocabulary()
LIMIT = 16


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    config = DecoderConfig(vocab_size=VOCABULARY.size, width=32, layers=2, heads=4, kv_heads=2, qk_norm=True)
    made = Decoder(config, generator=torch.Generator().manual_seed(0))
    made.embedding.data.mul_(30)  # random weights at their usual scale hardly prefer anything
    return made.eval()


def prompts() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    plans = [SequenceSpec("asr", "en", conditions=(Span("units", random.integers(0, 16, n)),)) for n in (3, 9, 5, 1)]
    return [render_prompt(plan, VOCABULARY) for plan in plans]


def automata(chosen: list[np.ndarray]) -> list[Automaton]:
    return [Automaton(VOCABULARY, prompt, max_new_tokens=LIMIT) for prompt in chosen]


def test_cached_greedy_decoding_equals_full_forwards(decoder: Decoder) -> None:
    found = generate(decoder, prompts(), max_new_tokens=LIMIT)
    for prompt, one in zip(prompts(), found):
        ids = prompt.tolist()
        for token in one.ids.tolist():
            packed = pack_documents([ids])
            hidden = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
            assert int(decoder.logits(hidden[-1:]).argmax()) == token
            ids.append(token)
        assert one.finish_reason == "length" and len(one.ids) == LIMIT


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=0.8, top_k=20, top_p=0.9, repetition_window=4)])
def test_a_batch_gives_what_its_first_member_gives_alone(decoder: Decoder, sampling: Sampling) -> None:
    chosen = prompts()
    batch = generate(decoder, chosen, automata=automata(chosen), sampling=sampling, max_new_tokens=LIMIT, seed=3)
    alone = generate(
        decoder, chosen[:1], automata=automata(chosen[:1]), sampling=sampling, max_new_tokens=LIMIT, seed=3
    )
    assert np.array_equal(batch[0].ids, alone[0].ids)
    np.testing.assert_allclose(batch[0].logprobs, alone[0].logprobs, atol=1e-5)


def test_outputs_are_well_formed_and_their_log_probabilities_are_reproduced(decoder: Decoder) -> None:
    chosen = prompts()
    found = generate(decoder, chosen, automata=automata(chosen), sampling=Sampling(), max_new_tokens=LIMIT, seed=1)
    for prompt, one in zip(chosen, found):
        assert parse(np.concatenate([prompt, one.ids]), VOCABULARY).complete and one.finish_reason == "eos"
    again = score(decoder, chosen, [one.ids for one in found], automata=automata(chosen))
    for one, logprobs in zip(found, again):
        np.testing.assert_allclose(one.logprobs, logprobs, atol=1e-4)


def test_a_seed_decides_what_is_drawn(decoder: Decoder) -> None:
    def ids(seed: int) -> list[list[int]]:
        chosen = prompts()
        made = generate(
            decoder, chosen, automata=automata(chosen), sampling=Sampling(), max_new_tokens=LIMIT, seed=seed
        )
        return [one.ids.tolist() for one in made]

    assert ids(5) == ids(5) != ids(6)


def test_beam_scores_are_reproduced_and_sorted(decoder: Decoder) -> None:
    prompt = prompts()[1]
    found = beam_search(decoder, prompt, automata([prompt])[0], beams=5, n_best=5)
    assert len({tuple(one.ids.tolist()) for one in found}) == len(found) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    again = score(decoder, [prompt] * 5, [one.ids for one in found], automata=automata([prompt] * 5))
    for one, logprobs in zip(found, again):
        assert one.logprob == pytest.approx(float(logprobs.sum()), abs=1e-4)


def test_a_wide_beam_finds_at_least_what_greedy_finds(decoder: Decoder) -> None:
    prompt = prompts()[0]
    (greedy,) = generate(decoder, [prompt], automata=automata([prompt]), max_new_tokens=LIMIT)
    best = beam_search(decoder, prompt, automata([prompt])[0], beams=16, n_best=1, length_penalty=0.0)[0]
    assert best.logprob >= greedy.score - 1e-4


def test_what_does_not_fit_the_positions_is_refused(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="positions"):
        generate(decoder, prompts(), max_new_tokens=5000)


def test_top_k_and_top_p_keep_the_smallest_sets() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = filter_logits(logits, Sampling(top_k=2)).isfinite()[0]
    assert kept.tolist() == [True, True, False, False]
    kept = filter_logits(logits, Sampling(top_p=0.75)).isfinite()[0]
    assert kept.tolist() == [True, True, False, False]
    assert filter_logits(logits, Sampling(top_p=0.01)).isfinite().sum() == 1


def test_drawing_follows_the_distribution() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().expand(1000, 3)
    ids = draw(logits, torch.linspace(0, 1 - 1e-6, 1000))
    assert torch.bincount(ids).tolist() == pytest.approx([500, 300, 200], abs=2)


def test_repetition_aware_sampling_breaks_a_loop_and_leaves_the_rest_alone() -> None:
    logits = torch.tensor([[4.0, 1.0, 1.0]])
    plain = Sampling(top_p=0.5)
    aware = Sampling(top_p=0.5, repetition_window=10, repetition_share=0.3)
    uniform = torch.tensor([[0.2, 0.99]])
    assert int(sample(logits, plain, uniform, [[0] * 10])) == 0
    assert int(sample(logits, aware, uniform, [[0] * 10])) == 2
    assert int(sample(logits, aware, uniform, [[1, 2] * 5])) == 0


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}])
def test_impossible_sampling_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]


def test_scores_of_a_long_continuation_are_those_of_one_forward(decoder: Decoder) -> None:
    random = np.random.default_rng(0)
    prompt, rest = prompts()[0], random.integers(0, decoder.config.vocab_size, SCORED_AT_ONCE + 40)
    packed = pack_documents([[*prompt.tolist(), *rest.tolist()]])
    logs = decoder.logits(decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)).log_softmax(-1)
    wanted = logs[len(prompt) - 1 : -1].gather(1, torch.from_numpy(rest)[:, None])[:, 0]
    (found,) = score(decoder, [prompt], [rest])
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-4)
    assert [len(one) for one in score(decoder, [prompt], [rest[:0]])] == [0]
