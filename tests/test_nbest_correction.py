"""Generative error correction: held to the list, free, by prompts, with noise vectors, with recordings, with experts.

Run alone with `pytest tests/test_nbest_correction.py`.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.tiny_model import tiny_model
from unitok.decoder.cross_attention import CrossAttentionAdapter, CrossAttentionConfig
from unitok.decoder.model import Decoder, pack_documents
from unitok.decoder.moe import MixtureConfig, balance_loss, expand, first_experts, mixtures, told_experts
from unitok.decoder.noise_vector import NoiseVector, NoiseVectorConfig
from unitok.model import Model
from unitok.nbest.correction import Corrector, correction_plan, edits, majority, nearest
from unitok.nbest.lists import NBest
from unitok.nbest.prompting import (
    PromptCorrector,
    few_shot_prompt,
    local_language_model,
    own_language_model,
    read_answer,
    tap_prompt,
)
from unitok.pipelines.backends.interfaces import Transcript
from unitok.pipelines.router import Call, Router
from unitok.requests.prompt_request import PromptRequest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render, render_prompt
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.trie import ListedAutomaton
from unitok_training.data.documents import Document
from unitok_training.evaluation.metrics import bleu
from unitok_training.evaluation.nbest import correction_scores, oracle_scores, translation_scores
from unitok_training.finetune.correct import corrected
from unitok_training.finetune.corrector_training import (
    CorrectionDocuments,
    hidden_with_frames,
    list_differences,
    noise_vectors_of,
    train_corrector,
    train_noise_corrector,
)
from unitok_training.finetune.moe import balanced, expert_information, hidden_with_experts
from unitok_training.finetune.supervised import FinetuneConfig, finetune, packs
from unitok_training.trainer.optimizer import OptimConfig

SENTENCES = ["the green house stands here today", "we buy two books now", "now she sings the green books"]
QUICK = FinetuneConfig(steps=50, positions=256, optim=OptimConfig(learning_rate=1e-2, warmup_steps=5))


def wrong_lists(target: str | None = None) -> list[NBest]:
    """Lists of a recognizer that always hears "house" as "heute" and "books" as "buy": the truth is in none."""
    found = []
    for index, text in enumerate(SENTENCES):
        spoilt = text.replace("house", "heute").replace("books", "buy")
        texts = [spoilt, spoilt.replace("the", "she"), spoilt.replace("now", "two")]
        hypotheses = tuple(
            Transcript(text=one, logprob=-1.0 - n, tokens=6) for n, one in enumerate(dict.fromkeys(texts))
        )
        found.append(NBest(id=str(index), lang="en", target=target, hypotheses=hypotheses, reference=text))
    return found


def test_held_to_the_list_every_answer_is_of_the_list() -> None:
    model, lists = tiny_model(), wrong_lists()
    answers = Corrector(model, constrained=True).correct(lists)
    assert all(answer in one.texts for answer, one in zip(answers, lists))
    assert correction_scores(lists, answers)["outside_list_share"] == 0
    near = Corrector(model, closest=True).correct(lists)
    assert all(answer in one.texts for answer, one in zip(near, lists))
    empty = NBest(id="e", lang="en", hypotheses=(Transcript(text=""), Transcript(text=" ")))
    late = replace(
        empty, hypotheses=(*empty.hypotheses, Transcript(text="the green house")), reference="the green house"
    )
    assert Corrector(model).correct([empty]) == Corrector(model, most=2).correct([late]) == [""]
    with pytest.raises(InputError, match="a hypothesis to learn from"):
        train_corrector(model, [late], QUICK, most=2)
    with pytest.raises(InputError, match="nothing to correct"):
        correction_plan([[]], lang="en")


def test_the_trie_allows_exactly_the_listed_texts() -> None:
    model = tiny_model()
    vocabulary, encode = model.vocabulary, model.tokenizers.text.encode
    prompt = render_prompt(SequenceSpec("ger", "en", conditions=(Span("hyp", np.asarray(encode("the"))),)), vocabulary)
    choices = [encode("the green house"), encode("the green"), encode("we buy")]
    automaton = ListedAutomaton(vocabulary, prompt, choices)
    made: set[tuple[int, ...]] = set()

    def walk(one: ListedAutomaton, ids: tuple[int, ...]) -> None:
        if one.finished:
            made.add(ids)
            return
        for start, stop in one.allowed():
            for token in range(start, stop):
                twin = one.copy()
                twin.advance(token)
                walk(twin, (*ids, token))  # type: ignore[arg-type]

    walk(automaton, ())
    end = (vocabulary.control("</text>"), vocabulary.eos)
    assert made == {(*vocabulary.to_ids("text", np.asarray(one)).tolist(), *end) for one in choices}
    with pytest.raises(InputError, match="none of them empty"):
        ListedAutomaton(vocabulary, prompt, [[]])


def test_fine_tuning_corrects_what_no_hypothesis_says() -> None:
    model, lists = tiny_model(), wrong_lists()
    losses = train_corrector(model, lists, QUICK)
    assert losses[-1] < losses[0] / 4 and "ger" in model.info["tasks"]
    answers = Corrector(model).correct(lists)
    found = correction_scores(lists, answers)
    assert found["wer"] < oracle_scores(lists)["oracle"]["wer"] and found["outside_list_share"] > 0


def test_translations_of_a_list_become_one() -> None:
    lists = [replace(one, target="de") for one in wrong_lists()]
    model = tiny_model()
    train_corrector(model, lists, QUICK)
    assert "gtr" in model.info["tasks"]
    figures, texts = corrected(model, lists, read=3)
    assert figures["ger"]["wer"] < 0.3 and majority(lists[0]) in lists[0].texts
    assert figures["ger"]["bleu"] > figures["oracle"]["bleu"] >= figures["first_pass"]["bleu"]
    assert [one["ger_first"] for one in texts] == Corrector(model, most=1).correct(lists)
    assert "bleu" not in corrected(model, wrong_lists(), read=3)[0]["ger"]


def test_bleu_of_the_first_of_the_majority_and_of_the_best() -> None:
    texts = ["we buy one book now", "she sings the green books now", "she sings the old books now"]
    lists = [
        NBest(
            id="a", lang="en", target="de", hypotheses=tuple(Transcript(text=one) for one in texts), reference=texts[2]
        )
    ]
    found = {name: scores["bleu"] for name, scores in translation_scores(lists).items()}
    assert majority(lists[0]) == texts[1]
    assert found == {
        "first_pass": bleu(texts[2:], texts[:1]),
        "majority": bleu(texts[2:], texts[1:2]),
        "oracle": bleu(texts, texts),
    }


def test_distances() -> None:
    assert edits("a b c".split(), "a x c d".split()) == 2 and edits([], ["a"]) == 1
    assert nearest("the green", ["a", "the green house", "the grey"]) == "the green house"


# -- prompts ----------------------------------------------------------------------------------------------------


def test_prompts_show_examples_and_leave_the_question_open() -> None:
    lists = wrong_lists()
    plain = few_shot_prompt(lists[0], lists[1:], most=2)
    assert plain.count("said:") == 3 and plain.endswith("said:") and "we buy two books now" in plain
    assert SENTENCES[0] not in plain and plain.count("guess 2") == 3 and "guess 3" not in plain
    tap = tap_prompt(lists[0], lists[1:])
    assert tap.endswith("Assistant: said:") and "n-best list" in tap and SENTENCES[0] not in tap
    assert read_answer(" the green house \nguess 1: x") == "the green house" and read_answer("\n") == ""
    assert read_answer("said: hi") == "hi"


def test_a_frozen_model_answers_in_context_and_never_sees_the_answer() -> None:
    lists, seen = wrong_lists(), list[str]()

    def write(prompt: str) -> str:
        seen.append(prompt)
        return " " + SENTENCES[2] + "\n\n" if len(seen) == 3 else ""

    corrector = PromptCorrector(write, lists, template=tap_prompt, shots=2)
    assert corrector.correct(lists) == [lists[0].texts[0], lists[1].texts[0], SENTENCES[2]]
    assert all(sentence not in prompt for sentence, prompt in zip(SENTENCES, seen))
    assert corrector.prompt(0, lists[0]) == seen[0]
    with pytest.raises(InputError, match="3 examples"):
        PromptCorrector(write, lists, shots=3).correct(lists)
    assert isinstance(own_language_model(tiny_model(), "en")("the green house"), str)
    with pytest.raises(InputError, match=r"config\.json"):
        local_language_model("gpt2")


# -- noise vectors ----------------------------------------------------------------------------------------------


def test_noise_vectors_say_how_a_list_disagrees_and_learn_with_the_model() -> None:
    model, lists = tiny_model(), wrong_lists()
    agreed = NBest(id="a", lang="en", hypotheses=(Transcript(text="now"), Transcript(text="now")), reference="now")
    assert not list_differences(model, replace(agreed, hypotheses=agreed.hypotheses[:1]), 5).any()
    assert not list_differences(model, agreed, 5).any()
    assert list_differences(model, lists[0], 5).norm() > 0
    torch.manual_seed(0)
    adapter = NoiseVector(NoiseVectorConfig(width=model.decoder.config.width, vectors=2))
    before = adapter.outer.weight.detach().clone()
    losses = train_noise_corrector(model, adapter, lists, QUICK)
    assert losses[-1] < losses[0] / 4 and not torch.equal(adapter.outer.weight, before)
    own = Corrector(model, vectors_of=noise_vectors_of(model, adapter))
    assert correction_scores(lists, own.correct(lists))["wer"] < 0.3
    held = Corrector(model, constrained=True, vectors_of=noise_vectors_of(model, adapter, shuffle_seed=1))
    assert all(answer in one.texts for answer, one in zip(held.correct(lists), lists))
    texts = [f"the {word} stands" for word in "green house here today we buy two".split()]
    apart = [
        NBest(id=text, lang="en", hypotheses=(Transcript(text=text), Transcript(text="now")), reference=text)
        for text in texts
    ]
    for seed in range(4):
        true, others = (noise_vectors_of(model, adapter, shuffle_seed=one) for one in (None, seed))
        for some in (apart[:2], apart, apart[3:4]):  # the last is asked alone
            with torch.no_grad():
                pairs = zip(true(some), others(some))
            assert not any(torch.allclose(own, other) for own, other in pairs), "no list gets its own"


# -- recordings beside the list ---------------------------------------------------------------------------------


def adapter_of(model: Model, width: int = 6) -> CrossAttentionAdapter:
    torch.manual_seed(3)
    return CrossAttentionAdapter(CrossAttentionConfig(frames=width, size=8), model.decoder.config)


def forward(decoder: Decoder, documents: list[np.ndarray]) -> torch.Tensor:
    packed = pack_documents(documents)
    lengths = torch.zeros(len(documents), dtype=torch.int64)
    return decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen, prefix_lengths=lengths)


@torch.no_grad()
def test_a_closed_gate_leaves_every_bit_and_an_open_one_listens_to_its_own_recording() -> None:
    model = tiny_model()
    adapter = adapter_of(model)
    documents = [np.asarray([1, 2, 3, 4]), np.asarray([5, 6, 7])]
    frames = [torch.randn(9, 6), torch.randn(4, 6)]
    plain = forward(model.decoder, documents)
    with adapter.attend(model.decoder, frames, [4, 3]):
        assert torch.equal(forward(model.decoder, documents), plain)
    for layer in adapter.layers:
        layer.gate.fill_(1.0)  # type: ignore[operator, union-attr]
    with adapter.attend(model.decoder, frames, [4, 3]):
        opened = forward(model.decoder, documents)
    with adapter.attend(model.decoder, [frames[0], torch.randn(4, 6)], [4, 3]):
        other = forward(model.decoder, documents)
    assert not torch.allclose(opened, plain) and not torch.allclose(opened[4:], other[4:])
    assert torch.allclose(opened[:4], other[:4], atol=1e-6)
    assert torch.equal(forward(model.decoder, documents), plain)  # the hooks are gone


def test_generation_looks_at_the_recording_in_every_step() -> None:
    model = tiny_model()
    adapter = adapter_of(model)
    request = PromptRequest(plan=correction_plan([model.tokenizers.text.encode("the green")], lang="en"))
    (plain,) = model.run([request])  # also makes the stepper that knows no hooks
    frames = torch.randn(5, 6) * 4
    with adapter.attend(model.decoder, [frames]):
        assert np.array_equal(model.run([request])[0].ids, plain.ids)
    with torch.no_grad():
        for layer in adapter.layers:
            layer.gate.fill_(3.0)  # type: ignore[operator, union-attr]
            layer.out.weight.mul_(20)  # type: ignore[operator, union-attr]
    with adapter.attend(model.decoder, [frames]):
        (heard,) = model.run([request])
    assert not np.array_equal(heard.ids, plain.ids)
    assert np.array_equal(model.run([request])[0].ids, plain.ids)


def test_only_the_adapter_learns_and_what_it_hears_decides() -> None:
    """Two equal lists with two truths: only the recording tells them apart."""
    model = tiny_model()
    same = wrong_lists()[0]
    lists = [replace(same, id="0", reference=SENTENCES[0]), replace(same, id="1", reference=SENTENCES[1])]
    train_corrector(model, lists, QUICK)
    adapter = adapter_of(model)
    documents = CorrectionDocuments(model, lists)
    frames = {"0": torch.randn(7, 6) + 1, "1": torch.randn(5, 6) - 1}
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    slower = replace(QUICK, steps=80, optim=OptimConfig(learning_rate=1e-2, warmup_steps=5))
    losses = finetune(
        model.decoder, documents, slower, pad=model.vocabulary.pad,
        parameters=list(adapter.parameters()),
        hidden_of=hidden_with_frames(
            model.decoder, adapter, lambda indices: [frames[documents.item(index).id] for index in indices]
        ),
    )  # fmt: skip
    assert losses[-1] < 0.85 * losses[0]  # all but the first word is known without listening
    assert all(torch.equal(value, before[name]) for name, value in model.decoder.state_dict().items())
    for one in lists:
        with adapter.attend(model.decoder, [frames[one.id]]):
            assert Corrector(model).correct([one]) == [one.reference]


# -- experts ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_copies_of_a_dense_feed_forward_answer_as_it_does() -> None:
    model = tiny_model()
    documents = [np.asarray([1, 2, 3, 4]), np.asarray([5, 6, 7])]
    plain = forward(model.decoder, documents)
    for mixture in (MixtureConfig(experts=1, chosen=1), MixtureConfig(experts=4, chosen=2)):
        wide = expand(model.decoder, mixture)
        assert torch.allclose(forward(wide, documents), plain, atol=1e-5)
    for block in model.decoder.blocks:  # as of an imported Llama
        block.out_bias = torch.nn.Parameter(torch.randn(model.decoder.config.width))
    biased, wide = forward(model.decoder, documents), expand(model.decoder, MixtureConfig(experts=2))
    assert not torch.allclose(biased, plain, atol=1e-2) and torch.allclose(forward(wide, documents), biased, atol=1e-5)
    assert torch.allclose(forward(first_experts(wide), documents), biased, atol=1e-5)
    one = replace(model, decoder=expand(model.decoder, MixtureConfig(experts=3)))
    request = PromptRequest(plan=correction_plan([model.tokenizers.text.encode("the green")], lang="en"))
    assert np.array_equal(one.run([request])[0].ids, model.run([request])[0].ids)
    with pytest.raises(InputError, match="chosen"):
        MixtureConfig(experts=2, chosen=3)


def test_a_position_that_is_told_its_expert_gets_it_beside_the_routers() -> None:
    decoder = expand(tiny_model().decoder, MixtureConfig(experts=4, chosen=2))
    told = torch.tensor([3, 3, 0, -1])
    with torch.no_grad(), told_experts(decoder, told):
        forward(decoder, [np.asarray([1, 2, 3, 4])])
    for feed in mixtures(decoder):
        assert feed.picked is not None and feed.probabilities is not None and feed.forced is None
        assert all(int(expert) in row.tolist() for expert, row in zip(told[:3], feed.picked[:3]))
        assert int(feed.probabilities[3].argmax()) in feed.picked[3].tolist()
    assert 1 <= float(balance_loss(decoder)) <= 4


def test_with_the_map_experts_know_their_tasks() -> None:
    model = tiny_model()
    decoder = expand(model.decoder, MixtureConfig(experts=2, chosen=1), generator=torch.Generator().manual_seed(0))
    lists = wrong_lists() + [replace(one, id=f"t{one.id}", target="de") for one in wrong_lists()]
    documents = CorrectionDocuments(model, lists, task_of=lambda one: int(one.target is not None))
    losses = finetune(
        decoder, documents, replace(QUICK, steps=40), pad=model.vocabulary.pad,
        hidden_of=hidden_with_experts(decoder, [0, 1]), extra=balanced(decoder),
    )  # fmt: skip
    assert losses[-1] < losses[0]
    pack, _ = next(packs(documents, replace(QUICK, positions=512), pad=model.vocabulary.pad))
    with torch.no_grad(), told_experts(decoder, pack.task_ids):
        decoder(
            pack.ids, pack.positions, pack.sequences, pack.max_seqlen,
            prefix_lengths=pack.prefix_lengths[: pack.num_sequences],
        )  # fmt: skip
    picked = mixtures(decoder)[0].picked
    assert picked is not None
    assert expert_information(pack.task_ids.numpy(), picked[:, 0].numpy()) == pytest.approx(1.0)
    assert expert_information(np.asarray([0, 1, 0, 1]), np.asarray([0, 0, 1, 1])) == pytest.approx(0.0)
    with pytest.raises(InputError, match="0 to 1"):
        hidden_with_experts(decoder, [0, 5])


# -- routing ----------------------------------------------------------------------------------------------------


def test_a_trained_router_sends_paraphrases_to_the_right_tool() -> None:
    calls = [Call("recognise", (("lang", "en"),)), Call("translate", (("target", "de"),)), Call("speak")]
    asked = {calls[0]: ["she stands here", "the house stands"], calls[1]: ["we buy now", "two books we buy"]}
    asked[calls[2]] = ["sings today", "now she sings"]
    model = tiny_model()
    encode = model.tokenizers.text.encode
    rows = [(text, call) for call, texts in asked.items() for text in texts]

    def document(index: int) -> Document:
        text, call = rows[index % len(rows)]
        answer = Span("tool", np.asarray(encode(str(call))))
        made = render(
            SequenceSpec("route", "en", conditions=(model.text_span(text),), outputs=(answer,)), model.vocabulary
        )
        return Document(ids=made.ids, loss_weight=made.loss_weight, task=0)

    finetune(model.decoder, document, replace(QUICK, steps=60), pad=model.vocabulary.pad)
    router = Router(model, calls)
    assert router.route([text for text, _ in rows]) == [call for _, call in rows]
    assert router("today she sings") == calls[2]


def test_a_loss_that_is_not_finite_stops_before_it_ruins_anything() -> None:
    model = tiny_model()
    documents = CorrectionDocuments(model, wrong_lists())
    before = copy.deepcopy(model.decoder.state_dict())
    broken: dict[str, Any] = {"extra": lambda: torch.tensor(float("nan"))}
    with pytest.raises(InputError, match="learning rate"):
        finetune(model.decoder, documents, QUICK, pad=model.vocabulary.pad, **broken)
    assert all(torch.equal(value, before[name]) for name, value in model.decoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.decoder.parameters())


def test_a_script_without_spaces_is_scored_by_characters() -> None:
    heard = tuple(Transcript(text=text, logprob=-1.0) for text in ("你好世", "你世界"))
    one = NBest(id="z", lang="zh", hypotheses=heard, reference="你好世界")
    assert correction_scores([one], ["你好世界"])["wer"] == 0.0
    assert correction_scores([one], ["你好世"])["wer"] == 0.25
