"""The bench of flat-token systems: intervals and scores by hand, corpora of topics, what is kept; and each check, tiny.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import toy_shards
from unitok_tokenizers.corpora.toy import build_sentences, make_toy_corpus, possible_sentences, topic_of, understand
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.grammar.render import render
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_tokenizers.grammar.tasks.base import OUT_UNITS
from unitok_training.evaluation.metrics import wer
from unitok_training.evaluation.run import Evaluation
from unitok_training.systems.base.bench import Bench, SystemConfig
from unitok_training.systems.base.intervals import Counted, compared, interval, over_seeds, paired_difference
from unitok_training.systems.base.token_bench import QUICK, TokenBench, TokenBenchConfig, settings_of
from unitok_training.systems.base.token_parts import PartsConfig, TokenParts, transcribed, word_errors
from unitok_training.systems.base.token_scores import continued, halves, in_order, joined, nats, ngram_nats, topic_cloze
from unitok_training.systems.registry import SYSTEMS, run_system
from unitok_training.systems.tokens.audio_palm import AudioPalmConfig, others_of, tasks_of
from unitok_training.systems.tokens.gslm import GslmConfig, auto_bleu, self_bleu, texts_perplexity
from unitok_training.systems.tokens.languages import LanguagesConfig, gains, limited
from unitok_training.systems.tokens.languages import tasks_of as languages_tasks
from unitok_training.systems.tokens.made_speech import MadeSpeechConfig, made_speech, untranscribed
from unitok_training.systems.tokens.speech_gpt import answer_to
from unitok_training.systems.tokens.twist import reached
from unitok_training.systems.tokens.viola import in_language, without
from unitok_training.systems.tokens.voxtlm import VoxtlmConfig

TINY = SystemConfig(sentences=12, test_sentences=8, limit=2, overrides=QUICK)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> TokenBench:
    """Parts that are made once for the tests below."""
    given = Bench(tmp_path_factory.mktemp("bench"), TINY, lambda said: None)
    return TokenBench(given, settings_of(given, TokenBenchConfig))


# -- intervals ----------------------------------------------------------------------------------------------------


def counted(*pairs: tuple[float, float]) -> Counted:
    return Counted(counts=np.array([one for one, _ in pairs]), sizes=np.array([size for _, size in pairs]))


def test_intervals_over_seeds_and_over_sentences() -> None:
    assert over_seeds("a", [2.0]) == {"a": 2.0} and interval([1.0, 3.0])[0] == 2.0
    assert over_seeds("a", [1.0, 3.0])["a.interval"] == pytest.approx(12.706, rel=1e-3)
    random = np.random.default_rng(0)
    sizes = random.integers(3, 9, 200).astype(float)
    worse = Counted(counts=random.binomial(sizes.astype(int), 0.5).astype(float), sizes=sizes)
    better = Counted(counts=np.maximum(worse.counts - (random.random(200) < 0.5), 0), sizes=sizes)
    found, low, high = paired_difference(better, worse, resamples=500, seed=0)
    assert found == pytest.approx(better.rate - worse.rate) and low < found < high < 0, "the same sentences, always"
    shuffled = random.permutation(200)
    other = Counted(counts=better.counts[shuffled], sizes=sizes[shuffled])
    wide = paired_difference(other, worse, resamples=500, seed=0)
    assert wide[2] - wide[1] > 2 * (high - low), "sentences that are not the same tell less"
    assert paired_difference(worse, worse, resamples=50, seed=0) == (0.0, 0.0, 0.0)


def test_what_several_voices_say_of_one_sentence_is_drawn_as_one() -> None:
    random = np.random.default_rng(0)
    alone, other = (
        Counted(counts=random.binomial(5, share, 60).astype(float), sizes=np.full(60, 5.0)) for share in (0.5, 0.4)
    )
    names = [f"s{number:02d}" for number in range(60)]
    twice, others = (Counted.joined([one.of(names), one.of(names)]) for one in (alone, other))
    assert twice.rate == alone.rate and len(twice.sentences) == 120
    found, low, high = paired_difference(twice, others, resamples=400, seed=0)
    assert (found, low, high) == pytest.approx(paired_difference(alone, other, resamples=400, seed=0)), "no surer"
    without = paired_difference(replace(twice, sentences=()), replace(others, sentences=()), resamples=400, seed=0)
    assert without[2] - without[1] < 0.85 * (high - low), "as if 120 sentences had been read"


def test_readers_of_vectors_are_trained_as_readers_of_tokens_are(bench: TokenBench) -> None:
    from unitok_training.systems.tokens.vector_reading import Reading, vector_recipe

    train = replace(bench.config.train, packs_per_step=3, label_smoothing=0.1, eval_every=5, take_best=True)
    other = TokenBench(Bench(bench.run, TINY, lambda said: None), replace(bench.config, train=train))
    found = vector_recipe(other, "vectors", 7, Reading(steps=9, pack_size=64)).train
    assert (found.packs_per_step, found.label_smoothing, found.eval_every, found.take_best) == (3, 0.1, 5, True)
    assert (found.steps, found.pack_size, found.seed, found.ctc_weight, found.augment) == (9, 64, 7, 0.0, False)


def test_seeds_are_pooled_before_sentences_are_drawn() -> None:
    one, other = [counted((1, 2), (0, 4)), counted((2, 2), (1, 4))], [counted((0, 2), (0, 4))]
    found = compared("x", one, other, resamples=20, seed=0)
    assert found["x"] == pytest.approx(4 / 12) and found["x.low"] <= found["x"] <= found["x.high"]
    assert Counted.pooled(one).sizes.tolist() == [4, 8]


def test_word_errors_are_those_of_jiwer() -> None:
    references, outputs = ["a b c", "d e", "f"], ["a x c d", "", "f"]
    assert word_errors(references, outputs).rate == pytest.approx(wer(references, outputs))


# -- corpora ------------------------------------------------------------------------------------------------------


def test_all_words_of_a_sentence_are_of_its_topic() -> None:
    found = build_sentences(train=60, test=10, dev=2, seed=3, topics=2)
    for one in found:
        assert {word % 2 for word in one.meaning.values()} == {topic_of(one.meaning, 2)}
    assert {topic_of(one.meaning, 2) for one in found} == {0, 1}
    plain = build_sentences(train=60, test=10, dev=2, seed=3)
    assert plain == build_sentences(train=60, test=10, dev=2, seed=3, topics=1), "one topic is none"
    assert any(len({word % 2 for word in one.meaning.values()}) == 2 for one in plain)
    assert possible_sentences(2) < possible_sentences()
    for wrong in (0, 9):
        with pytest.raises(InputError, match=f"topics is {wrong}"):
            build_sentences(train=1, test=1, dev=0, seed=0, topics=wrong)


def test_texts_beside_the_corpus_are_further_sentences(bench: TokenBench) -> None:
    spoken = {row.text for row in bench.parts.rows}
    spoken |= {row.text for row in bench.parts.spoken(3)}
    assert len(bench.parts.spoken(3)) == 3 and bench.parts.spoken(0) == []
    texts = bench.parts.texts(3, 30)
    assert len({row.text for row in texts}) == 30 and not {row.text for row in texts} & spoken
    assert not any(row.recorded for row in texts) and {row.split for row in texts} == {"train"}
    assert {topic_of(understand(row.text or "", row.lang), 2) for row in texts} == {0, 1}


def test_only_some_keep_their_text(bench: TokenBench) -> None:
    rows = transcribed(bench.parts.rows, 3)
    train = [row for row in rows if row.split == "train"]
    assert sum(row.text is not None for row in train) == 3 and all(bool(row.words) == bool(row.text) for row in train)
    assert [row for row in rows if row.split != "train"] == [row for row in bench.parts.rows if row.split != "train"]
    assert transcribed(rows, 0) == rows


def test_parts_are_kept_and_shared_by_runs_of_the_same_settings(bench: TokenBench) -> None:
    _, said = bench.parts.vocoder, list[str]()
    again = TokenParts(bench.parts.folder.parent, bench.config.parts, report=said.append)
    assert again.folder == bench.parts.folder and again.oracle_accuracy(1) == bench.parts.oracle_accuracy(1)
    assert said == []
    other = TokenParts(bench.parts.folder.parent, replace(bench.config.parts, clusters=13), report=said.append)
    assert other.folder != bench.parts.folder
    with pytest.raises(InputError, match="parts.clusters is 0"):
        PartsConfig(clusters=0)


# -- scores -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(bench: TokenBench) -> Evaluation:
    """A model of units and texts in turn."""
    return bench.evaluation(bench.train("all", {"slm": 1.0, "ilm": 1.0, "asr": 1.0}, seed=0, steps=3))


def test_every_sentence_is_scored_and_the_sum_is_that_of_the_evaluation(run: Evaluation) -> None:
    from unitok_training.evaluation.language import evaluate_speech_lm

    rows = run.rows(run.split, "units")
    found = nats(run, continued(run, "slm", "units", rows))
    assert len(found.counts) == len(rows) and found.sizes.tolist() == [len(run.cell("units", row)) + 1 for row in rows]
    evaluate_speech_lm(run)
    assert np.exp(found.rate) == pytest.approx(run.metrics["slm"]["ppl"], rel=1e-4)
    assert in_order(run, rows).rate == pytest.approx(run.metrics["slm"]["order_accuracy"], abs=0.5)
    grams = ngram_nats(run, rows, "units", order=2)
    assert grams.sizes.tolist() == found.sizes.tolist() and 0 < grams.rate < np.log(13)


def test_a_cloze_has_two_halves_of_one_sentence(run: Evaluation) -> None:
    rows = run.rows(run.split, "units", "text_ids")
    for first, second in (("text", "units"), ("units", "text")):
        found = halves(run, rows, first=first, second=second, topics=2)
        assert found and all((one.first.kind, one.second.kind) == (first, second) for one in found)
        for one in found:
            words = run.text(one.row).split()
            part = " ".join(words[: len(words) // 2] if first == "text" else words[len(words) // 2 :])
            said = one.first if first == "text" else one.second
            assert run.model.tokenizers.text.decode(said.content.tolist()) == part
        right = topic_cloze(run, found, foils=3)
        assert right.sizes.tolist() == [3.0] * len(found) and 0 <= right.rate <= 1


def test_a_cloze_is_won_by_what_the_context_says(run: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that favor the halves of the context's topic win every choice; those that do not look at it win none."""
    rows = run.rows(run.split, "units", "text_ids")
    found = halves(run, rows, first="text", second="units", topics=2)
    own = {id(one.second): one.topic for one in found}
    asked = {id(one.first): one.topic for one in found}

    def knowing(_: Evaluation, specs: list[SequenceSpec]) -> list[np.ndarray]:
        return [np.array([float(asked[id(a)] == own[id(b)])]) for a, b in (one.outputs for one in specs)]

    place = "unitok_training.systems.base.token_scores.log_probabilities"
    monkeypatch.setattr(place, knowing)
    assert topic_cloze(run, found, foils=4).rate == 1.0
    monkeypatch.setattr(place, lambda _, specs: [np.zeros(1) for _ in specs])
    assert topic_cloze(run, found, foils=4).rate == 0.0, "a tie is not right"


def test_equal_units_of_two_words_are_one() -> None:
    assert joined([np.array([1, 2]), np.array([2, 3]), np.array([1])]).tolist() == [1, 2, 3, 1]


# -- systems ------------------------------------------------------------------------------------------------------


def test_a_check_that_is_repeated_keeps_what_it_has(tmp_path: Path) -> None:
    said: list[str] = []
    parts = f"parts_folder={tmp_path / 'parts'}"
    config = replace(TINY, overrides=(*QUICK, parts, "temperatures=[0.5, 1]"))
    first = run_system("gslm", tmp_path / "run", config, report=said.append)
    assert sum("steps" in line for line in said) == 4 and "c15.t0.5.ppx" in first
    said.clear()
    assert run_system("gslm", tmp_path / "run", config, report=said.append) == first
    assert not any("steps" in line for line in said)
    with pytest.raises(InputError, match="two temperatures"):
        GslmConfig(temperatures=(1.0,))


def test_how_alike_and_how_likely_texts_are() -> None:
    assert self_bleu(["a b c", "a b c"]) == pytest.approx(1.0) and self_bleu(["a b c", "d e f"]) < 0.1
    assert (
        auto_bleu(["a b a b"]) == pytest.approx(2 / 3) and auto_bleu(["a b c", "a"]) == 0.0 and auto_bleu([""]) == 0.0
    )
    training = ["a b c", "a b d"] * 10
    assert texts_perplexity(["a b c"], training) < texts_perplexity(["c b a"], training)
    assert texts_perplexity(["a b x"], training) > texts_perplexity(["a b c"], training), "an unknown word"


def test_when_one_training_reaches_the_best_of_another() -> None:
    cold = [{"step": 10, "loss": 3.0}, {"step": 20, "loss": 2.0}, {"step": 30, "loss": 2.1}]
    warm = [{"step": 10, "loss": 1.9}, {"step": 20, "loss": 2.5}]
    assert reached(warm, cold).share == 0.5 and reached(warm, cold).there
    late = reached([{"step": 30, "loss": 2.01}], cold)
    assert late.share == 1.5 and not late.there


def test_the_four_tokens_of_voxtlm() -> None:
    """<startoftext>, <startofspeech>, <generatetext> and <generatespeech> each have one token here."""
    vocabulary = toy_shards.vocabulary()
    text, units = Span("text", np.array([5, 6])), Span("units", np.array([3, 4]))
    plans = {
        ("<units>", "<gen:text>"): SequenceSpec("asr", "en", None, (), (units,), (text,)),
        ("<text>", "<gen:units>"): SequenceSpec("tts", "en", None, (OUT_UNITS,), (text,), (units,)),
        ("<gen:text>",): SequenceSpec("lm", "en", outputs=(text,)),
        ("<gen:units>",): SequenceSpec("slm", "en", outputs=(units,)),
    }
    four = {vocabulary.control(name): name for name in ("<text>", "<units>", "<gen:text>", "<gen:units>")}
    for marks, plan in plans.items():
        made = render(plan, vocabulary)
        assert tuple(four[one] for one in made.ids.tolist() if one in four) == marks
        begin = made.ids.tolist().index(vocabulary.control(marks[-1]))
        assert not made.loss_weight[: begin + 1].any() and made.loss_weight[begin + 1 :].all(), "loss behind generate"
    with pytest.raises(InputError, match="singles holds 'mt'"):
        VoxtlmConfig(singles=("mt",))


def test_one_language_is_never_translated_from_speech() -> None:
    tasks = tasks_of(("qaa", "qab", "qac"), texts=True)
    assert not any("@qac-" in key for key in tasks) and "s2tt@qaa-qac" in tasks and tasks["mt"] and tasks["asr"]
    assert "mt" not in tasks_of(("qaa", "qab", "qac"), texts=False)
    assert others_of(["a", "x", "b", "y", "c"], ["1", "2", "1", "2", "1"]) == ["b", "y", "c", "x", "a"]
    with pytest.raises(InputError, match="fewer than three"):
        AudioPalmConfig(parts=PartsConfig())


def test_ids_that_are_taken_away_are_all_one(run: Evaluation) -> None:
    ids = [run.model.vocabulary.control(name) for name in ("<asr>", "<slm>")]
    before = run.model.decoder.embedding.detach().clone()
    found = without(run, ids).model.decoder.embedding
    assert (found[ids[0]] == found[ids[1]]).all() and (before[ids[0]] != before[ids[1]]).any()
    assert (run.model.decoder.embedding == before).all(), "of a copy"
    kept = np.setdiff1d(np.arange(len(before)), ids)
    assert (found[kept] == before[kept]).all()
    share = in_language(["jul zzz", ""], "qaa")
    assert share.sizes.tolist() == [2, 0] and share.counts[0] <= 1


def test_answers_turn_the_sentence_round(tmp_path: Path) -> None:
    rows = read_manifest(make_toy_corpus(tmp_path, languages=("qab",), pairs=3, test_pairs=1))
    for row in rows:
        asked = understand(row.text or "", "qab")
        told = understand(answer_to(row.text or "", "qab"), "qab")
        assert told == {"noun1": asked["noun2"], "verb": asked["verb"], "noun2": asked["noun1"]}


def test_of_a_language_with_little_speech_only_some_sentences_are_learned_from(bench: TokenBench) -> None:
    rows = [replace(one, lang=lang) for one in bench.parts.rows for lang in ("qaa", "qab")]
    found = limited(rows, ("qab",), 3)
    train = [(one.lang, one.group) for one in found if one.split == "train"]
    assert len({group for lang, group in train if lang == "qab"}) == 3
    kept = [one for one in rows if one.split != "train" or one.lang == "qaa"]
    assert [one for one in found if one.split != "train" or one.lang == "qaa"] == kept
    assert languages_tasks("qaa", ("qab",), beside=False) == {"asr@qab": 1.0, "s2tt@qab-qaa": 1.0}
    assert languages_tasks("qaa", ("qab", "qac"), beside=True)["asr@qaa"] == 2.0
    key = "e9.6.qab.beside_over_alone.wer"
    figures = {"e9.60.qab.beside_over_alone.wer": 0.1, key: -0.2, f"{key}.high": 0.1}
    assert gains(figures, 6.0) and not gains(figures, 60.0) and not gains(figures, 6.0, ".high")
    assert set(SYSTEMS["languages"].verdicts({"e9.least": 6.0, "e9.most": 60.0}).values()) == {"not measured"}
    for wrong in ((), (5, 2), (0, 4)):
        with pytest.raises(InputError, match="amounts is"):
            LanguagesConfig(amounts=wrong)
    with pytest.raises(InputError, match="texts is 5"):
        LanguagesConfig(texts=5)


def test_what_a_synthesizer_says_has_the_text_that_it_was_given(
    run: Evaluation, bench: TokenBench, tmp_path: Path
) -> None:
    shown = transcribed(bench.parts.rows, 3)
    asked = untranscribed(bench.parts.rows, shown)
    train = [one for one in bench.parts.rows if one.split == "train"]
    assert len(asked) == len(train) - 3 and all(one.text for one in asked)
    assert not {one.id for one in asked} & {one.id for one in shown if one.text}
    run.model.vocoder = bench.parts.vocoder
    made = made_speech(run, asked[:4], tmp_path / "made")
    texts = {f"{one.id}-made": one.text for one in asked[:4]}
    assert all(texts[one.id] == one.text and one.recorded and one.split == "train" for one in made)
    assert made_speech(run, asked[:4], tmp_path / "made") == made, "made once"
    for wrong in (0.0, 1.0):
        with pytest.raises(InputError, match=f"share is {wrong}"):
            MadeSpeechConfig(share=wrong)


def test_every_system_says_when_the_oracle_may_not_judge() -> None:
    for name in (
        "gslm",
        "twist",
        "voxtlm",
        "spirit_lm",
        "audio_palm",
        "viola",
        "speech_gpt",
        "made_speech",
        "languages",
    ):
        system = SYSTEMS[name]
        row = system.row.partition(",")[0].lower()
        told = system.verdicts({f"{row}.oracle.accuracy": 0.94})
        assert told["the oracle reads resynthesized speech"] == "missed"
        assert system.verdicts({f"{row}.oracle.accuracy": 0.96})["the oracle reads resynthesized speech"] == "met"


def test_settings_that_cannot_be() -> None:
    for wrong, said in (
        ({"seeds": 11}, "seeds is 11"),
        ({"split": "train"}, "split is"),
        ({"limit": 0}, "limit is 0"),
        ({"resamples": 0}, "resamples"),
    ):
        with pytest.raises(InputError, match=said):
            TokenBenchConfig(**wrong)
    assert Row(id="1", group="1", lang="qaa").recorded is False
