"""Systems that write codes in stages, or spectrograms: sentences that nobody asked for, scales, first codebooks.

The checks themselves run with all others in `test_systems.py`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from unitok.model_parts import SECOND_PASS
from unitok.second_passes.base import SecondPass
from unitok_tokenizers.corpora.toy import LANGUAGES, build_sentences, lexicon
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.semantic.kmeans_units import deduplicate
from unitok_training.evaluation.run import Evaluation
from unitok_training.fitting.tokenizers import load_recordings
from unitok_training.systems.base.bench import Bench, SystemConfig
from unitok_training.systems.base.code_bench import QUICK_CODES, CodeBench
from unitok_training.systems.base.token_bench import QUICK, settings_of
from unitok_training.systems.codes.audio_lm import AudioLmConfig, Judge, beginning, pattern_errors, sentence_errors
from unitok_training.systems.codes.dmel import DmelBench, DmelBenchConfig, DmelParts
from unitok_training.systems.codes.laura_gpt import (
    LAYOUTS,
    PLAIN,
    LauraConfig,
    builds,
    distances,
    finished,
    first_alone,
    log_mels,
    vocoded,
)
from unitok_training.tokbench.distance import signal_to_noise

TINY = SystemConfig(sentences=12, test_sentences=4, limit=2, overrides=QUICK_CODES)
QAA = LANGUAGES[0]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> CodeBench:
    """Parts that are made once for the tests below."""
    given = Bench(tmp_path_factory.mktemp("stages"), TINY, lambda said: None)
    return CodeBench(given, settings_of(given, LauraConfig))


@pytest.fixture(scope="module")
def runs(bench: CodeBench) -> dict[str, Evaluation]:
    """Models with either second pass, hardly trained."""
    return {
        arm: bench.evaluation(bench.train(arm, {"vtts": 1.0}, seed=0, steps=1, options=PLAIN, build=build))
        for arm, build in builds(bench).items()
    }


# -- sentences that nobody asked for ------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_of_a_corpus_is_one(lang: str) -> None:
    texts = [one.text(lang) for one in build_sentences(train=60, test=0, dev=0, seed=3, topics=2)]
    found = sentence_errors(texts, [lang] * len(texts), 2)
    assert not found.counts.any() and found.sizes.tolist() == [len(text.split()) for text in texts]


def test_what_is_no_sentence_is_so_many_words_away() -> None:
    words = lexicon(QAA)
    (noun, other), verb = words["noun"][:3:2], words["verb"][0]  # of one topic of two
    strange, time = words["verb"][1], words["time"][0]
    for text, errors, size in (
        (f"{noun} {verb} {other}", 0, 3),
        (f"{noun} {verb} {other} {time}", 0, 4),
        (f"{noun} {strange} {other}", 1, 3),  # a verb of the other topic
        (f"{noun} {verb}", 1, 3),
        (f"{noun} {noun} {verb} {other}", 1, 4),  # an adjective could stand there
        (f"{verb} {noun} {other}", 2, 4),  # order tells who does it: an adjective, a noun, a verb, a noun
        ("", 3, 3),
    ):
        found = sentence_errors([text], [QAA], 2)
        assert (found.counts[0], found.sizes[0]) == (errors, size), text
    assert sentence_errors([f"{noun} {strange} {other}"], [QAA], 1).counts[0] == 0, "of one topic are all words"


def test_distances_from_patterns() -> None:
    a, b = frozenset("ax"), frozenset("b")
    for words, pattern, errors in (
        ("ab", (a, b), 0), ("xb", (a, b), 0), ("b", (a, b), 1), ("aab", (a, b), 1), ("ba", (a, b), 2), ("", (a, b), 2),
        ("ab", (), 2), ("bbb", (b,), 2), ("cb", (a, a, b), 2),
    ):  # fmt: skip
        assert pattern_errors(list(words), pattern) == errors, (words, pattern)


def test_a_beginning_ends_where_its_last_word_does(bench: CodeBench, runs: dict[str, Evaluation]) -> None:
    run = replace(runs["refine"], split="test_seen")
    for row in bench.some(run, "codes"):
        codes, found = run.codes(row), beginning(run, row, 2)
        end = run.shards.row(row)["words"][1][2]
        assert abs(len(found.codes) / 25 - end) <= 0.02 + 1e-6 and len(found.rest) >= 1
        assert np.array_equal(np.concatenate([found.codes, found.rest]), codes)
        again = deduplicate(np.concatenate([found.units, deduplicate(found.rest[:, 0])[0]]))[0]
        assert np.array_equal(again, run.cell("units", row)), "the first codebook is the units"


def test_a_continuation_that_is_nothing_keeps_no_voice(bench: CodeBench, runs: dict[str, Evaluation]) -> None:
    run = replace(runs["refine"], split="test_seen")
    known = [beginning(run, row, 1) for row in bench.some(run, "codes")]
    judge = Judge(bench.parts, 8)
    nothing = judge.continued(known, [one.rest[:0] for one in known])
    assert not nothing.kept.counts.any() and nothing.seconds == 0
    rest = judge.continued(known, [one.rest for one in known])
    assert rest.seconds == pytest.approx(np.mean([len(one.rest) / 25 for one in known]))
    voices = [judge.voices.predict([bench.parts.resynthesized(row)]) for row in bench.parts.rows[:8]]
    assert all(len(one) == 1 for one in voices)


# -- one step behind the first codebook ---------------------------------------------------------------------------


def test_both_passes_are_given_the_same_first_codebook_and_nothing_more(
    bench: CodeBench, runs: dict[str, Evaluation]
) -> None:
    spans = {}
    for arm, run in runs.items():
        second = run.model.parts[SECOND_PASS]
        assert isinstance(second, SecondPass) and second.pattern.layout == LAYOUTS[arm]
        rows = bench.some(run, "codes", "text_ids")
        spans[arm] = first_alone(run, rows, second)
        for row, one in zip(rows, spans[arm]):
            assert np.array_equal(one.codes[:, 0], run.codes(row)[:, 0]) and (one.codes[:, 1:] == -1).all()
            assert len(one.conditions) == 1 + len(run.cell("text_ids", row)) and not len(one.prompt)
    for one, other in zip(spans["regress"], spans["refine"], strict=True):
        assert np.array_equal(one.codes, other.codes) and np.array_equal(one.conditions, other.conditions)


def test_a_pass_that_finds_what_was_there_is_at_no_distance(bench: CodeBench, runs: dict[str, Evaluation]) -> None:
    codec = bench.parts.codec
    for arm, run in runs.items():
        rows, second = bench.some(run, "codes", "text_ids"), run.model.parts[SECOND_PASS]
        assert isinstance(second, SecondPass)
        codes = [run.codes(row) for row in rows]
        wanted = [codec.decode_features(one) for one in codes]
        true = [codec.latents(one) if arm == "regress" else one for one in codes]
        near = distances([log_mels(second, one, codec) for one in true], wanted)
        assert near.rate == pytest.approx(0, abs=1e-5) and near.sizes.tolist() == [len(one) * 4 * 80 for one in codes]
        assert distances([one + 0.5 for one in wanted], wanted).rate == pytest.approx(0.5, abs=1e-5)
        made, seconds = finished(second, first_alone(run, rows, second), 1)
        assert [len(one) for one in made] == [len(one) for one in codes] and seconds > 0
        assert arm == "regress" or all(np.array_equal(one[:, 0], other[:, 0]) for one, other in zip(made, codes))
        found = vocoded(bench, run, rows, 1)
        assert found.distance.rate > 0.01 and found.errors.sizes.tolist() == [
            len(run.text(row).split()) for row in rows
        ]


# -- scales -------------------------------------------------------------------------------------------------------


def test_a_scale_spans_the_training_and_twice_the_bins_are_six_decibels(tmp_path: Path) -> None:
    given = Bench(tmp_path, replace(TINY, overrides=QUICK), lambda said: None)
    parts = DmelParts(tmp_path / "parts", settings_of(given, DmelBenchConfig).parts)
    low, high = parts.span
    training = np.concatenate([parts.mels(row) for row in parts.rows if row.split == "train"])
    assert (low, high) == (training.min(), training.max())
    rows = [row for row in parts.rows if row.split == "test"]
    found = [signal_to_noise(parts.scaled(bins), load_recordings(rows)) for bins in (16, 32, 64)]
    assert all(5 < other - one < 7 for one, other in pairwise(found))
    step = (high - low) / 64
    signal = np.concatenate([parts.mels(row) for row in rows]).var()
    assert found[-1] == pytest.approx(10 * np.log10(12 * signal / step**2), abs=0.5), "noise of a step is step² ÷ 12"


def test_packs_of_units_hold_as_many_utterances(tmp_path: Path) -> None:
    given = Bench(tmp_path, replace(TINY, overrides=QUICK), lambda said: None)
    bench = DmelBench(given, settings_of(given, DmelBenchConfig))
    assert bench.build("codes").model.layout == "channels" and bench.build("codes").pack_size == 0
    assert 0 < bench.build("units").pack_size < bench.config.train.pack_size
    assert bench.parts.codec.cardinalities == (16,) * 80


def test_settings_that_cannot_be() -> None:
    for make, wrong, said in (
        (AudioLmConfig, {"prompt_words": 3}, "prompt_words is 3"), (AudioLmConfig, {"voices": 1}, "voices is 1"),
        (LauraConfig, {"reading": 0}, "reading is 0"), (LauraConfig, {"rounds": 0}, "rounds is 0"),
        (DmelBenchConfig, {"bins": (8,)}, "bins is"), (DmelBenchConfig, {"bins": (8, 24)}, "bins is"),
        (DmelBenchConfig, {"temperature": 0.0}, "temperature is 0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            make(**wrong)
