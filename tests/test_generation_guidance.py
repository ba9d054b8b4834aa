"""Classifier-free guidance: two rows a sequence give what their logits say, in any batch, with vectors, streamed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.support import toy_shards
from tests.support.tiny_model import tiny_model
from unitok.decoder.kv_cache import KVCache, PrefillAttend
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.frontends.prompt_vectors import PromptVectors, joined, placed
from unitok.generation.batch import Batch
from unitok.generation.engine import Engine
from unitok.generation.sampling import GREEDY, Sampling
from unitok.generation.token_request import TokenRequest, UnguidedPrompt
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest, without_conditions
from unitok.requests.request import GenerationConfig, Request
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.render import render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span

VOCABULARY = toy_shards.vocabulary()
LIMIT = 14
GUIDED = Sampling(temperature=0.0, guidance=2.5)
DRAWN = Sampling(temperature=1.2, guidance=1.7, top_p=0.95)


@pytest.fixture(scope="module", params=[False, True], ids=["causal", "prefix"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    config = DecoderConfig(
        vocab_size=VOCABULARY.size, width=32, layers=2, heads=4, kv_heads=2, tied=False, prefix_lm=request.param
    )
    made = Decoder(config, generator=torch.Generator().manual_seed(0))
    for weights in made.parameters():
        weights.data.mul_(6)  # random weights at their usual scale hardly prefer anything, and hear little
    return made.eval()


def lat_plan(count: int) -> SequenceSpec:
    return SequenceSpec("asr", "en", conditions=(Span("lat", np.zeros(count)), Span("text", np.arange(3))))


def units_plan(count: int, seed: int) -> SequenceSpec:
    return SequenceSpec("asr", "en", conditions=(Span("units", np.random.default_rng(seed).integers(0, 16, count)),))


def asked(plan: SequenceSpec, sampling: Sampling, *, kinds: Sequence[str] = (), seed: int = 0) -> TokenRequest:
    """A request with its second row; a `lat` condition holds vectors of its own."""
    prompt, rest = (render_prompt(one, VOCABULARY) for one in (plan, without_conditions(plan, kinds)))
    count = sum(len(span) for span in plan.conditions if span.kind == "lat")
    vectors = torch.randn(count, 32, generator=torch.Generator().manual_seed(7))

    def of(ids: np.ndarray) -> PromptVectors | None:
        lat = VOCABULARY.control("<lat>")
        return placed(ids, lat, vectors) if (ids == lat).any() else None

    return TokenRequest(
        prompt=prompt, limit=LIMIT, automaton=Automaton(VOCABULARY, prompt, max_new_tokens=LIMIT), sampling=sampling,
        seed=seed, vectors=of(prompt), without=UnguidedPrompt(ids=rest, vectors=of(rest)),
    )  # fmt: skip


def last_logits(
    decoder: Decoder, prompt: np.ndarray, ids: Sequence[int], given: int, vectors: PromptVectors | None
) -> torch.Tensor:
    """(V,) behind a prompt and what followed, by a full forward."""
    packed = pack_documents([np.concatenate([prompt, np.asarray(ids, dtype=np.int64)])])
    lengths = torch.tensor([given])
    both = decoder.prefix(packed.cu_seqlens, lengths, len(packed.ids))
    x = decoder.embed(packed.ids, *joined([vectors], [0], torch.device("cpu")))
    cache = KVCache(decoder.config, 1, len(packed.ids), dtype=torch.float32)
    attend = PrefillAttend(cache, packed.cu_seqlens, packed.max_seqlen, 0, both, packed.lengths)
    return decoder.logits(decoder.run(x, packed.positions, attend)[-1:])[0]


@pytest.mark.parametrize(
    ("plan", "kinds"), [(units_plan(9, 0), ()), (lat_plan(5), ()), (lat_plan(5), ("text",)), (lat_plan(5), ("lat",))]
)
@torch.inference_mode()
def test_every_id_is_the_best_of_what_two_full_forwards_say(
    decoder: Decoder, plan: SequenceSpec, kinds: tuple[str, ...]
) -> None:
    request = asked(plan, GUIDED, kinds=kinds)
    assert request.without is not None and request.automaton is not None
    follower = request.automaton.copy()
    (found,) = Engine(decoder).run([request])
    shorter = len(request.prompt) - len(request.without.ids)
    assert shorter > 0
    for step, token in enumerate(found.ids.tolist()):
        before = found.ids[:step].tolist()
        given = last_logits(decoder, request.prompt, before, follower.given, request.vectors)
        without = last_logits(decoder, request.without.ids, before, follower.given - shorter, request.without.vectors)
        logits = without + 2.5 * (given - without)
        allowed = torch.from_numpy(follower.mask(VOCABULARY.size))
        logprobs = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        assert int(logprobs.argmax()) == token
        assert float(logprobs[token]) == pytest.approx(float(found.logprobs[step]), abs=1e-3)
        follower.advance(token)
    plain = Engine(decoder).run([asked(plan, GREEDY, kinds=kinds)])[0]
    assert abs(float(plain.logprobs[0] - found.logprobs[0])) > 0.02, "guidance has changed nothing"


def mixed() -> list[TokenRequest]:
    """Guided and others, of different lengths, some with vectors."""
    ways = (DRAWN, GREEDY, GUIDED, Sampling(temperature=0.9), DRAWN)
    plans = [units_plan(9, 1), units_plan(2, 2), lat_plan(4), units_plan(12, 3), units_plan(5, 4)]
    return [asked(plan, way, seed=seed) for seed, (plan, way) in enumerate(zip(plans, ways))]


def test_a_batch_gives_what_each_gives_alone(decoder: Decoder) -> None:
    together = Engine(decoder).run(mixed())
    slow = Batch(decoder, None)  # through `Decoder.run`
    numbers = [slow.add(one) for one in mixed()]
    while slow.step():
        pass
    for found, number, one in zip(together, numbers, mixed()):
        (alone,) = Engine(decoder).run([one])
        for other in (alone, slow.take(number)):
            assert found.ids.tolist() == other.ids.tolist() and found.finish_reason == other.finish_reason
            np.testing.assert_allclose(found.logprobs, other.logprobs, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_sequences_come_and_go_with_their_second_rows(decoder: Decoder, rows: int) -> None:
    alone = [Engine(decoder).run([one])[0] for one in mixed()]
    engine = Engine(decoder, rows=rows)
    numbers = [engine.add(one) for one in mixed()]
    engine.step()
    assert engine._shared is not None
    assert len(engine._shared.alive) <= max(rows, 2)
    gone = engine.add(asked(units_plan(7, 9), DRAWN, seed=9))
    engine.step()
    engine.cancel(gone)
    while engine.busy:
        engine.step()
    assert engine.take(gone).finish_reason == "cancelled"
    for number, one in zip(numbers, alone):
        assert engine.take(number).ids.tolist() == one.ids.tolist()
    assert engine._shared.alive == []


def test_a_scale_of_one_is_off_and_of_none_forgets_the_conditions(decoder: Decoder) -> None:
    plan = units_plan(9, 0)
    off = Engine(decoder).run([asked(plan, Sampling(temperature=0.0, guidance=1.0))])[0]
    assert off.ids.tolist() == Engine(decoder).run([asked(plan, GREEDY)])[0].ids.tolist()
    nothing = [
        Engine(decoder).run([asked(units_plan(9, seed), Sampling(temperature=0.0, guidance=0.0))])[0].ids.tolist()
        for seed in (0, 1)
    ]
    assert nothing[0] == nothing[1]  # whatever was given


def test_guidance_without_a_prompt_to_compare_with_is_refused(decoder: Decoder) -> None:
    prompt = render_prompt(units_plan(3, 0), VOCABULARY)
    batch = Engine(decoder).batch()
    for without in (None, UnguidedPrompt(ids=np.append(prompt, prompt[-1]))):
        with pytest.raises(InputError, match="guidance compares"):
            batch.add(TokenRequest(prompt=prompt, limit=4, sampling=GUIDED, without=without))
    with pytest.raises(InputError, match="without guidance"):
        Engine(decoder).search(asked(units_plan(3, 0), GUIDED), beams=2)


# -- requests -----------------------------------------------------------------------------------------------------

WORDS = "the green house stands here"


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def spoken(sampling: Sampling, text: str = WORDS, voice: str | None = "anna") -> Request:
    config = GenerationConfig(sampling=sampling, seed=5)
    return Request(task="tts", source="en", text=text, voice=voice, output="codes", config=config)


def test_a_request_is_guided_by_all_or_by_what_it_names(model: Model) -> None:
    ways = ((), ("text",), ("voice",), ("text", "voice"))
    answers = [model.answer(spoken(Sampling(guidance=20.0, guidance_drop=kinds))) for kinds in ways]
    plain = model.answer(spoken(Sampling()))
    ids = [tuple(one.ids.tolist()) for one in (plain, *answers)]
    assert len(set(ids)) == 4 and ids[1] == ids[4]  # all of them are text and voice
    assert all(one.outputs[-1].kind == "codes" for one in answers)


def test_many_and_streams_are_guided_as_single_ones(model: Model) -> None:
    texts = (WORDS, "she sings", "today we buy two books", "now")
    requests = [spoken(Sampling(guidance=20.0), text) for text in texts]
    alone = [model.answer(one) for one in requests]
    for place, answer in model.answer_many(requests, batch=4):
        assert not isinstance(answer, InputError) and answer.ids.tolist() == alone[place].ids.tolist()
    *_, last = model.stream(requests[0])
    assert last.result is not None and last.result.ids.tolist() == alone[0].ids.tolist()


def test_what_is_not_given_cannot_be_left_out(model: Model) -> None:
    with pytest.raises(InputError, match="without its voice; this one has text"):
        model.answer(spoken(Sampling(guidance=2.0, guidance_drop=("voice",)), voice=None))
    plan = SequenceSpec("slm", "en")
    with pytest.raises(InputError, match="without its conditions; this one has no conditions"):
        model.run([PromptRequest(plan=plan)], sampling=Sampling(guidance=2.0))


@pytest.mark.parametrize(
    "options",
    [{"guidance": -1.0}, {"guidance": float("nan")}, {"guidance_drop": ("words",)}, {"guidance_drop": "text"}],
)
def test_impossible_guidance_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        Sampling(**options)  # type: ignore[arg-type]
