"""What is given sees itself in both directions: against a dense mask, without a leak, and the same when generating."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import toy_shards
from tests.support.tiny_model import tiny_model
from tests.support.toy_plans import LINES, line_name, own
from tests.support.toy_shards import ToyShards
from tests.test_grammar_automaton import prompt_of
from unitok.decoder.attention import (
    Prefix,
    prefix_attention,
    reference_varlen_attention,
    split_attention,
    varlen_attention,
)
from unitok.decoder.dense_attention import padded_attention
from unitok.decoder.model import Decoder, DecoderConfig, pack_documents
from unitok.export import export_hf
from unitok.generation.beam_search import beam_search
from unitok.generation.generate import generate, score
from unitok.generation.sampling import Sampling
from unitok.model import Model
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.automaton import Automaton
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture
from unitok_training.trainer.config import TrainConfig
from unitok_training.trainer.decoder import train

LENGTHS = [5, 1, 9, 3, 8]
GIVEN = torch.tensor([3, 1, 0, 3, 5], dtype=torch.int32)
TOTAL, LONGEST = sum(LENGTHS), max(LENGTHS)
BOUNDS = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
PREFIX = Prefix.of(BOUNDS, GIVEN, TOTAL)
SIZES = DecoderConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=2, prefix_lm=True)


def inputs(groups: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(TOTAL, count, 8) for count in (4, groups, groups)]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One softmax over a mask written position by position."""
    allowed = torch.zeros(TOTAL, TOTAL, dtype=torch.bool)
    for start, length, given in zip(BOUNDS.tolist(), LENGTHS, GIVEN.tolist()):
        for query in range(length):
            for key in range(length):
                allowed[start + query, start + key] = key <= query or (key < given and query < given)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[2] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~allowed, -torch.inf).softmax(-1), v)


def two_calls(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return varlen_attention(q, k, v, BOUNDS, BOUNDS, LONGEST, LONGEST, causal=True, prefix=PREFIX)


def one_call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return padded_attention(q, k, v, BOUNDS, BOUNDS, LONGEST, LONGEST, causal=True, prefix_lengths=GIVEN)


def oracle(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return reference_varlen_attention(q, k, v, BOUNDS, BOUNDS, LONGEST, LONGEST, causal=True, prefix=PREFIX)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("way", [two_calls, one_call, oracle])
def test_every_way_equals_a_dense_mask_forward_and_backward(way: Any, groups: int) -> None:
    parts = inputs(groups)
    out, wanted = way(*parts), dense(*parts)
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(out)
    found = torch.autograd.grad((out * weight).sum(), parts)
    for one, other in zip(found, torch.autograd.grad((wanted * weight).sum(), parts)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    causal = split_attention(*parts, BOUNDS, BOUNDS, LONGEST, LONGEST, causal=True)
    assert not torch.allclose(out, causal, atol=1e-2), "the prefix changes something"


def test_short_documents_in_bfloat16_take_the_dense_way() -> None:
    parts = [x.detach().bfloat16().requires_grad_() for x in inputs()]
    found = prefix_attention(*parts, BOUNDS, LONGEST, PREFIX)
    assert torch.equal(found, one_call(*parts))
    torch.testing.assert_close(found.float(), dense(*(x.float() for x in parts)), atol=3e-2, rtol=3e-2)


def test_an_answer_sees_no_later_id_and_what_is_given_sees_all_that_is_given() -> None:
    q, k, v = (x.detach() for x in inputs())
    before = two_calls(q, k, v)
    start, given = BOUNDS.tolist()[4], int(GIVEN[4])
    for key, seen in ((start + 2, range(start, TOTAL)), (start + given + 1, range(start + given + 1, TOTAL))):
        other = k.clone()
        other[key] += 3.0
        changed = (two_calls(q, other, v) - before).abs().amax((1, 2)) > 1e-6
        assert changed.nonzero().squeeze(-1).tolist() == list(seen)


def test_packed_documents_equal_each_alone() -> None:
    decoder = Decoder(SIZES, generator=torch.Generator().manual_seed(1))
    documents = [np.random.default_rng(i).integers(0, 50, n) for i, n in enumerate(LENGTHS)]
    packed = pack_documents(documents)
    together = decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=GIVEN)
    for index, document in enumerate(documents):
        one = pack_documents([document])
        alone = decoder(one.ids, one.positions, one.cu_seqlens, one.max_seqlen, prefix_lengths=GIVEN[index : index + 1])
        start = int(BOUNDS[index])
        torch.testing.assert_close(together[start : start + len(document)], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("line", LINES, ids=line_name)
def test_training_and_generation_give_the_same_part(line: tuple[str, tuple[str, ...]]) -> None:
    vocabulary, rng = own(), np.random.default_rng(1)
    prompt = prompt_of(line, vocabulary, rng)
    start = parse(prompt, vocabulary).start
    assert start is not None and Automaton(vocabulary, prompt, max_new_tokens=500).given == start


def test_a_rendered_example_knows_what_is_given() -> None:
    vocabulary = own()
    for plan in (
        SequenceSpec(
            "asr", "en", conditions=(Span("units", np.arange(6)),), outputs=(Span("text", np.arange(30, 34)),)
        ),
        SequenceSpec("slm", "en", outputs=(Span("units", np.arange(5)),), forced=2),
        SequenceSpec("ilm", "en", outputs=(Span("text", np.arange(30, 33)), Span("units", np.arange(4)))),
    ):
        rendered = render(plan, vocabulary)
        bare = render_prompt(SequenceSpec(plan.task, plan.source, conditions=plan.conditions), vocabulary)
        assert rendered.prefix_length == parse(rendered.ids, vocabulary).start == len(bare)
        assert not rendered.loss_weight[: rendered.prefix_length].any(), "nothing is predicted that is seen"


def test_generation_computes_what_training_does() -> None:
    """Greedy ids are those that teacher forcing finds most likely; alone, in a batch, and as a beam."""
    decoder = Decoder(SIZES, generator=torch.Generator().manual_seed(2)).eval()
    shared = np.arange(20)
    prompts = [np.concatenate([shared, np.asarray(rest)]) for rest in ([7, 8], [9, 9, 3], [1])]
    made = generate(decoder, prompts, max_new_tokens=6)
    for prompt, one in zip(prompts, made):
        (alone,) = generate(decoder, [prompt], max_new_tokens=6)
        assert alone.ids.tolist() == one.ids.tolist()
        (scores,) = score(decoder, [prompt], [one.ids])
        torch.testing.assert_close(torch.from_numpy(scores), torch.from_numpy(one.logprobs), atol=1e-4, rtol=1e-4)
    causal = Decoder(replace(SIZES, prefix_lm=False))
    causal.load_state_dict(decoder.state_dict())
    (other,) = score(causal.eval(), prompts[:1], [made[0].ids])
    assert np.abs(other - made[0].logprobs).max() > 1e-4


def test_the_beginning_of_an_answer_is_not_what_is_given() -> None:
    model = prefix_model()
    begun = SequenceSpec("slm", "en", outputs=(Span("units", np.arange(6)),))
    (result,) = model.run([PromptRequest(plan=begun)], sampling=Sampling(temperature=0.0, loop_guard=False))
    prompt = render_prompt(begun, model.vocabulary)
    automaton = model.token_request(PromptRequest(plan=begun)).automaton
    assert automaton is not None
    assert automaton.given == len(prompt) - 6
    (scores,) = score(model.decoder, [prompt], [result.ids], automata=[automaton])
    assert float(scores.sum()) == pytest.approx(result.score, abs=1e-3)
    best = beam_search(model.decoder, prompt, automaton, beams=1)[0]
    assert best.ids.tolist() == result.ids.tolist()


def prefix_model() -> Model:
    model = tiny_model()
    decoder = Decoder(replace(model.decoder.config, prefix_lm=True), generator=torch.Generator().manual_seed(1))
    return replace(model, decoder=decoder.eval())


def test_a_model_remembers_and_is_not_exported_to_classes_that_cannot(tmp_path: Path) -> None:
    prefix_model().save(tmp_path / "model")
    assert Model.load(tmp_path / "model").decoder.config.prefix_lm
    with pytest.raises(InputError, match="in both directions .* no stock class does"):
        export_hf(tmp_path / "model", tmp_path / "out")


def test_a_run_trains_with_it_and_is_not_continued_without(tmp_path: Path) -> None:
    vocabulary, shards = toy_shards.vocabulary(), ToyShards(toy_shards.corpus())
    config = TrainConfig(steps=2, pack_size=256, packs_per_step=1, window=64, precision="bf16", log_every=1)
    sizes = DecoderConfig(vocab_size=vocabulary.size, width=32, layers=2, heads=2, kv_heads=1)
    mixture, losses = Mixture(tasks={"asr": 1.0}), {}
    for prefix_lm in (True, False):
        decoder = Decoder(replace(sizes, prefix_lm=prefix_lm), generator=torch.Generator().manual_seed(0))
        rows: list[dict[str, Any]] = []
        out = tmp_path / str(prefix_lm)
        train(config, decoder, shards, vocabulary, out, mixture=mixture, on_row=rows.append)  # type: ignore[arg-type]
        losses[prefix_lm] = [row["loss"] for row in rows]
    assert losses[True][0] != losses[False][0], "from the second block on"
    with pytest.raises(InputError, match="prefix_lm"):
        train(config, Decoder(sizes), shards, vocabulary, tmp_path / "True", mixture=mixture)  # type: ignore[arg-type]


def test_documents_of_a_mixture_are_told_their_prefix() -> None:
    vocabulary, shards = toy_shards.vocabulary(), ToyShards(toy_shards.corpus())
    source = ExampleSource(shards, vocabulary, Mixture(tasks={"asr": 1.0, "slm": 1.0, "mt": 1.0}), seed=0)  # type: ignore[arg-type]
    for index in range(20):
        document = source.document(index)
        assert document.prefix_length == parse(document.ids, vocabulary).start
