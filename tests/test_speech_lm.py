"""Metrics of speech language models: what is known of each beforehand, and a model that learns a small language."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import spoken_grammar, toy_shards
from tests.support.command import write_rows
from tests.support.prosody import RATE, gliding, voice
from tests.support.spoken_grammar import WORDS, units_of
from tests.support.toy_shards import ToyShards
from unitok.decoder.model import pack_documents
from unitok.model import Model
from unitok_tokenizers.corpora import phrases, toy
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.parse import parse
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.language import evaluate_speech_lm
from unitok_training.evaluation.run import Evaluation
from unitok_training.speech_lm.cloze import DIRECTIONS, cloze_figures, meeting, stories
from unitok_training.speech_lm.curve import crossing
from unitok_training.speech_lm.diversity import auto_bleu, self_bleu, vert
from unitok_training.speech_lm.intervals import bootstrap_mean, preferred, wilson
from unitok_training.speech_lm.manner import MannerClassifier, manner
from unitok_training.speech_lm.pairs import pair_figures, read_pairs
from unitok_training.speech_lm.prediction import order_figures, prediction_figures, unit_grams
from unitok_training.speech_lm.prosody import Spoken, prosody_figures, scored, uses_prosody
from unitok_training.speech_lm.pseudo_words import SHORTEST, pseudo_words, word_list
from unitok_training.speech_lm.scoring import alone, behind, log_probabilities
from unitok_training.speech_lm.spoken import ToySynthesizer, swapped_pairs

# -- figures ---------------------------------------------------------------------------------------------------------


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)  # Newcombe 1998
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_tie_is_half_right() -> None:
    found = preferred([1.0, 2.0, 0.0], [0.0, 2.0, 1.0])
    assert (found.right, found.count, found.chance) == (1.5, 3, 0.5)


def test_a_bootstrap_interval_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    low, high = bootstrap_mean(values.tolist(), seed=1)
    assert low < values.mean() < high and high - low == pytest.approx(4 / 20, rel=0.15)


def test_variety_is_what_the_definitions_say() -> None:
    assert auto_bleu("a b a b".split()) == pytest.approx((4 / 4 + 2 / 3) / 2)
    assert auto_bleu("a a a".split()) == pytest.approx((1 + 0) / 2), "an n-gram is not repeated by one that overlaps it"
    texts = ["the cat sat".split(), "the cat ran".split(), "a dog".split()]
    assert self_bleu(texts) == pytest.approx([(2 / 3 + 1 / 2) / 2, (2 / 3 + 1 / 2) / 2, 0.0])
    assert self_bleu(["a a a".split(), "a a".split()])[0] == pytest.approx((2 / 3 + 1 / 2) / 2), "clipped"
    found = vert(["the cat sat the cat".split()] * 2)
    assert found["self_bleu"] == 100 and found["vert"] == pytest.approx((100 * found["auto_bleu"]) ** 0.5)


def test_self_bleu_is_that_of_each_text_against_all_others() -> None:
    random = np.random.default_rng(0)
    texts = [random.choice(list("abcd"), random.integers(2, 9)).tolist() for _ in range(12)]
    for number, found in enumerate(self_bleu(texts)):
        shares = []
        for size in (1, 2):
            grams = [
                Counter(tuple(text[at : at + size]) for at in range(len(text) - size + 1)) for text in texts
            ]  # fmt: skip
            own, others = grams[number], [one for at, one in enumerate(grams) if at != number]
            known = sum(min(count, max(one[gram] for one in others)) for gram, count in own.items())
            shares.append(known / max(sum(own.values()), 1))
        assert found == pytest.approx(np.mean(shares))


def test_a_curve_is_read_between_its_points() -> None:
    points: list[dict[str, float | None]] = [{"vert": 100.0, "ppx": 1.0}, {"vert": 1.0, "ppx": 100.0}]
    assert crossing(points, "vert", "ppx", 10.0) == pytest.approx(10.0)
    assert crossing(points, "vert", "ppx", 200.0) is None and crossing(points, "vert", "ppx", None) is None


# -- pseudo-words ----------------------------------------------------------------------------------------------------


def test_pseudo_words_are_spelled_like_words_and_are_none() -> None:
    texts = [one.text["en"] for one in phrases.build_sentences(train=200, test=1, dev=0, seed=0)]
    known = word_list(texts)
    assert min(map(len, known)) >= SHORTEST and known[0] == "the"
    chosen = known[:40]
    found = pseudo_words(chosen, known, seed=0)
    trigrams = {f"  {word} "[at : at + 3] for word in known for at in range(len(word) + 1)}
    assert [one.word for one in found] == chosen and len({one.pseudo for one in found}) == len(found)
    for one in found:
        grams = [f"  {one.pseudo} "[at : at + 3] for at in range(len(one.pseudo) + 1)]
        assert len(one.pseudo) == len(one.word) and one.pseudo not in known
        assert sum(gram not in trigrams for gram in grams) == one.unseen
    assert np.mean([one.unseen > 0 for one in found]) < 0.1
    assert np.mean([abs(one.difference) for one in found]) < 0.1
    assert pseudo_words(chosen, known, seed=0) == found != pseudo_words(chosen, known, seed=1)
    barred = pseudo_words(chosen, known, seed=0, other={found[0].pseudo})
    assert found[0].pseudo not in {one.pseudo for one in barred}


def test_texts_without_words_are_refused() -> None:
    assert word_list(["a b 12 it's 我 们"]) == []
    with pytest.raises(InputError, match="no words of 3 letters"):
        pseudo_words([], [], seed=0)


def test_swapped_sentences_have_the_same_words() -> None:
    texts = ["the house stands here", "we buy books", "no no no", "two words"]
    found = swapped_pairs(texts, "en", limit=0, seed=0)
    assert [one.good for one in found] == texts[:2]
    for one in found:
        assert one.good != one.bad and sorted(one.good.split()) == sorted(one.bad.split())


def test_the_toy_voice_says_words_that_there_are_not() -> None:
    (one,) = ToySynthesizer().speak(["losa"], lang="qaa", voice="gus")
    assert one.sample_rate == toy.SAMPLE_RATE and len(one.samples) > 3000
    with pytest.raises(InputError, match="no voice 'max'"):
        ToySynthesizer().speak(["losa"], lang="qaa", voice="max")


# -- prosody by sound ------------------------------------------------------------------------------------------------


def test_a_classifier_hears_how_the_pitch_moves() -> None:
    random = np.random.default_rng(0)

    def spoken(swing: float) -> np.ndarray:
        return manner(voice(gliding(float(random.uniform(100, 220)), swing, 1.5), 1.5), RATE)

    features = np.stack([spoken(0.3 if at % 2 else 0.01) for at in range(16)])
    labels = ["moved" if at % 2 else "calm" for at in range(16)]
    classifier = MannerClassifier.fit(features[:10], labels[:10])
    assert classifier.predict(features[10:]) == labels[10:]
    with pytest.raises(InputError, match="one class"):
        MannerClassifier.fit(features[:1], labels[:1])


def test_tokens_of_prosody_are_scored_at_the_second_half(unlearned: Model) -> None:
    """Units and durations of the second half, behind style and pitch of the first: not one id of the first half."""
    rows = [{**toy_shards.row(number, "en", "a", split="test"), "text": ""} for number in (3, 4)]
    shards, vocabulary = ToyShards(rows), toy_shards.vocabulary()
    run = Evaluation(model=replace(unlearned, vocabulary=vocabulary, info={}), shards=shards)
    assert uses_prosody(run)
    one, other = (Spoken(row=at, label=str(at), cut=2 + at, seconds=0.4) for at in (0, 1))
    then = run.cell("units", 1)[3:]
    kept = meeting(run.stream("units"), run.cell("units", 0)[:2], then)
    asked, places = scored(run, one, other, prosody=True)
    lasting = run.cell("durations", 1)[3:][len(then) - len(kept) :]
    wanted = [*vocabulary.to_ids("units", kept), *vocabulary.to_ids("durations", lasting)]
    assert asked.rest[places].tolist() == wanted and len(places) == 2 * len(kept)
    prompt = parse(asked.prompt, vocabulary)
    assert [span.kind for span in prompt.conditions] == ["style", "pitch"]
    assert prompt.outputs[0].content.tolist() == run.cell("units", 0)[:2].tolist()
    asked, places = scored(run, one, other, prosody=False)
    assert asked.rest[places].tolist() == vocabulary.to_ids("units", kept).tolist()


# -- a model ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shards, Any, Any]:
    return spoken_grammar.made(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="module")
def unlearned(made: tuple[Shards, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Model:
    return spoken_grammar.model_of(*made, tmp_path_factory.mktemp("unlearned"), steps=0)


@pytest.fixture(scope="module")
def learned(made: tuple[Shards, Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Model:
    return spoken_grammar.model_of(*made, tmp_path_factory.mktemp("learned"), steps=spoken_grammar.STEPS)


def word_manifest(folder: Path) -> Path:
    """Words of the language against their letters in an order that no word has."""
    known = [word for topic in WORDS for kind in topic for word in kind]
    pairs, rows = pseudo_words(known, known, seed=0), []
    assert len(pairs) >= 6
    for number, one in enumerate(pairs):
        for manner_of, name in enumerate(spoken_grammar.CLASSES):
            for good, word in ((True, one.word), (False, one.pseudo)):
                rows.append(
                    {"id": f"{number}{name}{good}", "pair": f"{number}{name}", "good": good, "set": name, "lang": "en",
                     "units": units_of(word, manner_of).tolist(), "text": word}
                )  # fmt: skip
    return write_rows(folder / "pairs.jsonl", rows)


def every_share(model: Model, shards: Shards, folder: Path) -> dict[str, dict[str, Any]]:
    run = Evaluation(model=model, shards=shards)
    words = pair_figures(model, read_pairs(word_manifest(folder), model, lang="en"), {})
    cloze = cloze_figures(run, document="")
    found = {
        "words": words["per_id"],
        "order": order_figures(run)["per_id"],
        "prosody": prosody_figures(run, label="prosody")["units"]["likelihood"]["per_id"],
    }
    return found | {name: cloze[name]["per_id"] for name in DIRECTIONS}


def test_random_weights_are_at_chance(unlearned: Model, made: tuple[Shards, Any, Any], tmp_path: Path) -> None:
    found = every_share(unlearned, made[0], tmp_path)
    assert {name: one["chance"] for name, one in found.items()} == dict.fromkeys(found, 0.5)
    outside = [name for name, one in found.items() if not one["low"] <= 0.5 <= one["high"]]
    assert len(outside) <= 1, {name: found[name] for name in outside}


@pytest.mark.slow
def test_a_model_that_has_learned_is_above_chance(
    learned: Model, made: tuple[Shards, Any, Any], tmp_path: Path
) -> None:
    found = every_share(learned, made[0], tmp_path)
    assert [name for name, one in found.items() if one["low"] <= 0.5] == [], found
    assert found["prosody"]["accuracy"] >= 0.9 and found["s_s"]["accuracy"] >= 0.8
    predicted = prediction_figures(Evaluation(model=learned, shards=made[0]))
    assert predicted["model"]["ppl"] < predicted["1_gram"]["ppl"] / 3


def test_prediction_is_that_of_evaluate(unlearned: Model, made: tuple[Shards, Any, Any]) -> None:
    run = Evaluation(model=unlearned, shards=made[0])
    evaluate_speech_lm(run)
    found = prediction_figures(run)
    assert found["model"]["ppl"] == pytest.approx(run.metrics["slm"]["ppl"], rel=1e-5)
    assert found["model"]["bits_per_second"] == pytest.approx(run.metrics["slm"]["bits_per_second"], rel=1e-5)
    assert found["5_gram"]["ppl"] < found["2_gram"]["ppl"] < found["1_gram"]["ppl"] < found["model"]["ppl"]
    assert found["less_than_n_gram"]["of"] == "5_gram" and found["less_than_n_gram"]["high"] < 0


def brute_force(model: Model, prompt: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Log-probability of one id after another, each by a pass of its own."""
    found = []
    for at in range(len(rest)):
        ids = np.concatenate([prompt, rest[:at]])
        packed = pack_documents([ids], torch.device("cpu"))
        with torch.no_grad():
            hidden = model.decoder(packed.ids, packed.positions, packed.cu_seqlens, packed.max_seqlen)
            found.append(float(model.decoder.logits(hidden[-1:]).float().log_softmax(-1)[0, int(rest[at])]))
    return np.asarray(found)


def test_a_continuation_is_scored_as_a_part_of_the_whole(unlearned: Model, made: tuple[Shards, Any, Any]) -> None:
    """In its own kind and across kinds, in a batch and alone, by a pass for each id; and the parts make the whole."""
    units, text = Span("units", np.array([3, 1, 4, 1, 5])), Span("text", np.array([260, 262]))
    begin, then = Span("units", units.content[:2]), Span("units", units.content[2:])
    asked = [
        behind(unlearned, "slm", "en", begin, then),
        behind(unlearned, "ilm", "en", begin, then),
        behind(unlearned, "ilm", "en", text, units),
        behind(unlearned, "ilm", "en", units, text),
        alone(unlearned, SequenceSpec("slm", "en", outputs=(units,))),
        alone(unlearned, SequenceSpec("slm", "en", outputs=(begin,))),
    ]
    assert [len(one.rest) for one in asked] == [3, 3, 5, 2, 5, 2]
    together = log_probabilities(unlearned, asked)
    for one, found in zip(asked, together):
        np.testing.assert_allclose(found, brute_force(unlearned, one.prompt, one.rest), atol=1e-4)
    assert together[5].sum() + together[0].sum() == pytest.approx(together[4].sum(), abs=1e-3)


def test_stories_are_of_documents_or_of_halves(unlearned: Model, made: tuple[Shards, Any, Any]) -> None:
    run = Evaluation(model=unlearned, shards=made[0])
    halves, documents = stories(run, ""), stories(run, "document")
    assert len(halves) == 80 and len(documents) == 20
    for story in halves:
        text = run.model.tokenizers.text.decode([*story.begin.text, *story.right.text])
        assert len(text.split()) == spoken_grammar.LENGTH
        whole = np.concatenate([story.begin.units, story.right.units])
        assert any(np.array_equal(whole, run.cell("units", row)) for row in run.all_rows("test"))
    assert all(len(story.begin.units) > len(story.right.units) for story in documents)
    for story in (*halves, *documents):
        assert not np.array_equal(story.right.text, story.wrong.text), "the true end, said by another, is no wrong one"
    with pytest.raises(InputError, match="no 'chapter' in its extras"):
        stories(run, "chapter")


def test_n_grams_see_what_they_were_given(unlearned: Model, made: tuple[Shards, Any, Any]) -> None:
    """The language is as regular as a 5-gram can tell: it knows real order, whatever the decoder knows."""
    found = order_figures(Evaluation(model=unlearned, shards=made[0]))
    assert found["n_gram"]["low"] > 0.5
    grams = unit_grams(Evaluation(model=unlearned, shards=made[0]), order=2, end=False)
    follows = grams["en"].probability(units_of("a")[0], [units_of("b")[0]])
    assert follows > 0.2, "bad"


PAIR = {"pair": "p", "good": True, "units": [1, 2], "text": "ab", "lang": "en"}
BROKEN: dict[str, tuple[list[dict[str, Any]], str]] = {
    "alone": ([PAIR], "has one row"),
    "two right ones": ([PAIR, PAIR], "two rows whose good is True"),
    "neither right nor wrong": ([{**PAIR, "good": "perhaps"}], "give a name, and true or false"),
    "nothing of it": ([{"text": "ab", "units": [1]}], "give a name, and true or false"),
    "two languages": ([PAIR, {**PAIR, "good": False, "lang": "de"}], "two languages"),
    "an id too many": ([PAIR, {**PAIR, "good": False, "units": [99]}], "ids below"),
    "nothing to hear": ([PAIR, {"pair": "p", "good": False, "text": "ab", "lang": "en"}], "neither a recording"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_manifest_of_pairs_that_is_none(name: str, unlearned: Model, tmp_path: Path) -> None:
    rows, message = BROKEN[name]
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(InputError, match=message):
        read_pairs(path, unlearned, lang="en")


def test_pairs_that_sound_alike_are_ties(unlearned: Model, tmp_path: Path) -> None:
    rows = [{**PAIR, "good": good, "id": str(good)} for good in (True, False)]
    found = pair_figures(unlearned, read_pairs(write_rows(tmp_path / "p.jsonl", rows), unlearned, lang="en"), {})
    assert found["alike"] == 1 and found["per_id"]["accuracy"] == 0.5 and "n_gram" not in found
    assert json.dumps(found)
