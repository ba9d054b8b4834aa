"""N-best lists, the λ formula, density ratio, pseudo-log-likelihood, the MWER head, and both oracles.

Run alone with `pytest tests/test_nbest_rescoring.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tiny_model import tiny_model
from unitok.nbest.lists import ListOptions, NBest, distinct, read_lists, write_lists
from unitok.nbest.pseudo_likelihood import cloze, hidden_both_ways, pseudo_logprobs
from unitok.nbest.rescoring import Features, Weights, best, combine, density_ratio, lm_scores, rescore, tune
from unitok.nbest.rescoring_head import RescoringHead, last_states
from unitok.pipelines.backends.interfaces import Transcript
from unitok_tokenizers.errors import InputError
from unitok_training.evaluation.nbest import (
    Terms,
    density_scores,
    list_errors,
    network,
    network_errors,
    oracle_scores,
    rescoring_scores,
)
from unitok_training.finetune.rescore import head_figures, masked_scores, rescored
from unitok_training.finetune.rescorer_training import head_scores, mwer_loss, train_head, train_masked
from unitok_training.finetune.supervised import FinetuneConfig
from unitok_training.trainer.optimizer import OptimConfig

WORDS = ["the", "green", "house", "stands", "here", "today"]


def heard(*texts: str) -> tuple[Transcript, ...]:
    return tuple(Transcript(text=text, logprob=-1.0 - index, tokens=4) for index, text in enumerate(texts))


def some_list(seed: int = 0, size: int = 4) -> NBest:
    """A reference and what a poor recognizer made of it."""
    random = np.random.default_rng(seed)
    reference = random.choice(WORDS, 5).tolist()
    texts = []
    for _ in range(size):
        words = [str(random.choice(WORDS)) if random.random() < 0.4 else word for word in reference]
        texts.append(" ".join(word for word in words if random.random() > 0.1) or "the")
    hypotheses = [Transcript(text=text, logprob=float(-random.uniform(1, 9)), tokens=5) for text in texts]
    return NBest(id=f"l{seed}", lang="en", hypotheses=distinct(hypotheses), reference=" ".join(reference))


def test_lists_are_distinct_after_the_normalizer_and_survive_their_file(tmp_path: Path) -> None:
    found = distinct(
        [Transcript(text="b", logprob=-2), Transcript(text="A cat.", logprob=-1), Transcript(text="a cat", logprob=-3)]
    )
    assert [one.text for one in found] == ["A cat.", "b"]
    lists = [some_list(seed) for seed in range(3)]
    assert write_lists(tmp_path / "l.jsonl", lists) == 3
    again = read_lists(tmp_path / "l.jsonl")
    assert [one.texts for one in again] == [one.texts for one in lists]
    assert np.allclose([h.logprob for h in again[1].hypotheses], [h.logprob for h in lists[1].hypotheses], atol=1e-5)
    with pytest.raises(InputError, match="split 'dev'"):
        read_lists(tmp_path / "l.jsonl", split="dev")
    for text in ("{}", "[]", '{"id": 1, "lang": "en", "hypotheses": []}', "x"):
        (tmp_path / "bad.jsonl").write_text(text + "\n")
        with pytest.raises(InputError, match=r"bad\.jsonl:1"):
            read_lists(tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match="beams"):
        ListOptions(size=9, beams=4)


def features(am: list[float], lm: list[float]) -> Features:
    count = len(am)
    return Features(
        am=np.asarray(am), am_tokens=np.full(count, 4), lm=np.asarray(lm), lm_tokens=np.arange(1, count + 1),
        words=np.arange(count, 0, -1),
    )  # fmt: skip


def test_the_formula_is_the_surveys_and_its_ends_are_exact() -> None:
    found = features([-3.0, -1.0, -2.0], [-1.0, -9.0, -2.0])
    for lam in (0.0, 0.25, 0.5, 1.0):
        assert np.array_equal(combine(found, Weights(lm=lam)), (1 - lam) * found.am + lam * found.lm)
    assert best(combine(found, Weights(lm=0.0))) == int(found.am.argmax()) == 1
    assert best(combine(found, Weights(lm=1.0))) == int(found.lm.argmax()) == 0
    assert best(combine(found, Weights(lm=0.5))) == 0
    longer = combine(found, Weights(lm=0.5, length=1.0, words=0.1))
    assert np.allclose(longer, 0.5 * found.am / 4 + 0.5 * found.lm / [1, 2, 3] + 0.1 * found.words)
    with pytest.raises(InputError, match="λ"):
        Weights(lm=1.5)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(-90, -1), st.integers(-90, -1)), min_size=1, max_size=6), st.floats(0, 1))
def test_a_constant_on_every_score_changes_no_choice_and_ties_keep_their_order(
    rows: list[tuple[int, int]], lam: float
) -> None:
    am, lm = [float(a) for a, _ in rows], [float(b) for _, b in rows]
    lam = round(lam * 16) / 16  # exact in binary, so that a tie stays one
    plain = best(combine(features(am, lm), Weights(lm=lam)))
    assert plain == best(combine(features([value + 64 for value in am], lm), Weights(lm=lam)))
    assert best(np.zeros(len(rows))) == 0


def test_density_ratio_without_a_source_model_is_shallow_fusion() -> None:
    found, source = features([-3.0, -1.0, -2.0], [-1.0, -9.0, -2.0]), np.asarray([-5.0, -1.0, -1.0])
    assert np.array_equal(density_ratio(found, source, source=0.0, target=0.3), found.am + 0.3 * found.lm)
    assert np.array_equal(
        density_ratio(found, source, source=0.5, target=0.3), found.am - 0.5 * source + 0.3 * found.lm
    )


def test_tuning_takes_the_middle_of_the_best_lambdas() -> None:
    # The first list needs λ > 1/3, the second λ < 2/3.
    lists = [features([-1.0, -2.0], [-4.0, -2.0]), features([-1.0, -5.0], [-3.0, -1.0])]
    errors = [np.asarray([3.0, 0.0]), np.asarray([0.0, 3.0])]
    tuned = tune(lists, errors)
    assert tuned.errors == 0 and tuned.weights.lm == 0.5 and dict(tuned.curve)[0.0] == 3 and dict(tuned.curve)[1.0] == 3
    assert tune(lists, errors, words=(0.0, 9.0)).errors == 0
    with pytest.raises(InputError, match="to tune on"):
        tune([], [])


def test_language_model_scores_sum_over_the_text_its_end_and_nothing_before() -> None:
    model = tiny_model()
    (one, count), (other, _) = lm_scores(model, ["the green house", "two books"], lang="en")
    assert lm_scores(model, ["two books"], lang="en")[0][0] == pytest.approx(other, abs=1e-4)
    assert count == len(model.tokenizers.text.encode("the green house")) + 2 and one < 0
    behind = lm_scores(model, ["two books"], lang="en", context="the green house ")[0]
    assert behind[1] == lm_scores(model, ["two books"], lang="en")[0][1] and abs(behind[0] - other) > 1e-6
    apart = lm_scores(model, ["two books"], lang="en", context="the green house")[0]
    whole = lm_scores(model, ["the green house two books"], lang="en")[0][1]
    assert apart[1] - 2 == whole - 2 - len(model.tokenizers.text.encode("the green house")), "a space stands between"
    assert lm_scores(model, [""], lang="en")[0][1] == 2


def test_oracles_bound_each_other_and_rescoring_stays_between() -> None:
    lists = [some_list(seed) for seed in range(12)]
    found = oracle_scores(lists)
    assert found["compositional"]["wer"] <= found["oracle"]["wer"] <= found["first_pass"]["wer"]
    curve = list(found["oracle"]["by_size"].values())
    assert curve == sorted(curve, reverse=True) and curve[0] == found["first_pass"]["wer"]
    scores = rescored(tiny_model(), lists[:6], lists[6:])
    assert scores["rescoring"]["wer"] >= scores["oracle"]["wer"]
    assert set(scores["rescoring"]["dev_errors_by_lambda"]) >= {"0.00", "0.50", "1.00"}
    with pytest.raises(InputError, match="no reference"):
        list_errors(NBest(id="x", lang="en", hypotheses=heard("a")))


def test_a_language_model_that_knows_the_truth_lowers_errors_with_a_lambda_inside() -> None:
    lists = [some_list(seed) for seed in range(20)]
    made = []
    for one in lists:
        noise = np.random.default_rng(len(one.texts)).normal(0, 0.5, len(one.texts))
        lm = -3 * list_errors(one) + noise
        made.append(
            Features(
                am=np.asarray([h.logprob for h in one.hypotheses]), am_tokens=np.full(len(lm), 5), lm=lm,
                lm_tokens=np.full(len(lm), 5), words=np.full(len(lm), 5),
            )
        )  # fmt: skip
    scores = rescoring_scores(lists[:10], made[:10], lists[10:], made[10:])
    assert 0 < scores["lambda"] <= 1 and scores["wer"] < oracle_scores(lists[:10])["first_pass"]["wer"]


def test_a_network_holds_every_text_and_what_they_say_together() -> None:
    texts = ["the green house stands", "a green mouse stands here", "green house"]
    slots = network(texts)
    assert all(network_errors(text.split(), slots) == 0 for text in texts)
    assert network_errors("a green house stands here".split(), slots) == 0
    assert network_errors("a green house stands here today".split(), slots) == 1
    assert network_errors([], network([""])) == 0 and network_errors(["a"], network([""])) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5), min_size=1, max_size=4))
def test_every_path_that_went_in_comes_out(words: list[list[str]]) -> None:
    slots = network([" ".join(one) for one in words])
    assert all(network_errors(one, slots) == 0 for one in words)


# -- trained scorers --------------------------------------------------------------------------------------------


def test_the_gradient_of_the_expected_errors() -> None:
    scores = torch.randn(5, dtype=torch.float64, requires_grad=True)
    errors = torch.tensor([0.0, 2.0, 1.0, 4.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda one: mwer_loss(one, errors), (scores,))
    probabilities = scores.detach().softmax(-1)
    (slope,) = torch.autograd.grad(mwer_loss(scores, errors), scores)
    expected = probabilities * (errors - (probabilities * errors).sum())
    assert torch.allclose(slope, expected)
    assert float(mwer_loss(torch.zeros(5, dtype=torch.float64), errors)) == pytest.approx(0)


def test_a_head_that_is_new_says_nothing_and_one_that_was_trained_lowers_errors() -> None:
    model = tiny_model()
    lists = [some_list(seed) for seed in range(8)]
    found, errors = rescore(model, lists), [list_errors(one) for one in lists]
    torch.manual_seed(0)
    head = RescoringHead(model.decoder.config.width)
    assert np.allclose(head_scores(model, head, lists[0], found[0]), found[0].am)
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    config = FinetuneConfig(steps=60, positions=512, optim=OptimConfig(learning_rate=3e-2, warmup_steps=1))
    losses = train_head(model, head, lists, found, errors, config)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in model.decoder.state_dict().items())
    picked = [best(head_scores(model, head, one, part)) for one, part in zip(lists, found)]
    assert sum(e[i] for e, i in zip(errors, picked)) < sum(e[0] for e in errors)
    assert last_states(model, ["the", "green house"], lang="en").shape == (2, model.decoder.config.width)
    with pytest.raises(InputError, match="as many"):
        train_head(model, head, lists, found, errors[:1], config)


def test_the_density_ratio_takes_the_source_away_where_that_helps() -> None:
    """A recognizer that always says what its own text says most, and a development set that knows better."""
    lists = [replace(some_list(seed), id=str(seed)) for seed in range(6)]
    truth = [-list_errors(one) for one in lists]
    source = [-50.0 * np.arange(len(one.hypotheses))[::-1] for one in lists]
    found = [features((right + own).tolist(), [0.0] * len(right)) for own, right in zip(source, truth)]
    scores = density_scores(lists[:3], found[:3], lists[3:], found[3:], source[:3], source[3:])
    assert scores["wer"] == pytest.approx(oracle_scores(lists[:3])["oracle"]["wer"]) and scores["mu"] == 1
    same = [replace(one, id="a") for one in lists]  # one recording in several languages
    assert density_scores(same[:3], found[:3], same[3:], found[3:], source[:3], source[3:]) == scores
    nothing = [np.zeros(len(one.hypotheses)) for one in lists]
    assert density_scores(lists[:3], found[:3], lists[3:], found[3:], nothing[:3], nothing[3:])["mu"] == 0


def test_lengths_and_words_are_tried_where_they_are_asked_for() -> None:
    model, lists = tiny_model(), [some_list(seed) for seed in range(6)]
    plain = rescored(model, lists[:3], lists[3:])
    assert plain["rescoring"]["length"] == plain["rescoring"]["word"] == 0 and "density_ratio" not in plain
    more = rescored(model, lists[:3], lists[3:], terms=Terms(lengths=(0.0, 1.0), words=(0.0, 50.0)), source=model)
    assert min(more["rescoring"]["dev_errors_by_lambda"].values()) <= min(
        plain["rescoring"]["dev_errors_by_lambda"].values()
    )
    assert 0 <= more["density_ratio"]["mu"] <= 1


def test_trained_scorers_rescore_lists_that_they_did_not_learn_from() -> None:
    model, lists = tiny_model(), [some_list(seed) for seed in range(9)]
    test, dev, learnt = lists[:3], lists[3:6], lists[6:]
    masked = masked_scores(model, test, dev, learnt, steps=2)
    head = head_figures(model, test, dev, learnt, steps=2)
    floor = oracle_scores(test)["oracle"]["wer"]
    assert floor <= masked["wer"] and 0 <= masked["lambda"] <= 1 and floor <= head["wer"]
    assert head["dev_wer"] >= oracle_scores(dev)["oracle"]["wer"]


def test_pseudo_log_likelihood_sums_one_masked_token_after_another() -> None:
    model = tiny_model()
    text = "the green house"
    ids, places = cloze(model, text, "en")
    total = 0.0
    for place in places:
        masked = ids.copy()
        masked[place] = model.vocabulary.control("<mask>")
        with torch.inference_mode():
            logits = model.decoder.logits(hidden_both_ways(model.decoder, [masked])[int(place)])
        total += float(logits.log_softmax(-1)[int(ids[place])])
    scores = pseudo_logprobs(model, [text, "", "two books"], lang="en")
    assert scores[0] == (pytest.approx(total, abs=1e-4), len(places)) and scores[1][1] == 1 and scores[1][0] < 0
    assert places[-1] == len(ids) - 2 and len(places) == len(model.tokenizers.text.encode(text)) + 1, "the closer too"


def test_a_model_that_learnt_to_fill_in_prefers_sentences_to_their_permutations() -> None:
    model = tiny_model()
    texts = ["the green house stands here today", "now she sings the two books", "we buy two books now"]
    before = model.decoder.embedding.detach().clone()
    config = FinetuneConfig(steps=60, positions=128, optim=OptimConfig(learning_rate=1e-2, warmup_steps=5))
    made, losses = train_masked(model, [(text, "en") for text in texts], config)
    assert losses[-1] < losses[0] / 2 and torch.equal(model.decoder.embedding, before)
    real = [value for value, _ in pseudo_logprobs(made, texts, lang="en")]
    mixed = [" ".join(text.split()[::-1]) for text in texts]
    assert all(a > b for a, b in zip(real, [value for value, _ in pseudo_logprobs(made, mixed, lang="en")]))
    with pytest.raises(InputError, match="no text"):
        train_masked(model, [("", "en")], config)
