"""Scores of speech that is said again, beside what was given and what the codec alone makes of the right answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.tiny_model import RATE, speech, tiny_model
from tests.test_evaluation import tiny_judge
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.audio.speech_activity import noise_db
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.mixing import CLEAN, MixConfig, write_mixed
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.grammar.sequence import SequenceSpec, Span
from unitok_training.evaluation.evaluate import REMADE, _swapped_voices, evaluate_remaking, kept_share
from unitok_training.evaluation.run import Evaluation


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder = tmp_path_factory.mktemp("remade")
    rows = []
    for number in range(8):
        audio, name = folder / f"{number}.wav", f"r{number}"
        sound = speech(0.8, seed=number)
        sound[: RATE // 4] = 0.0  # a quiet tenth, from which noise is told
        write_audio(audio, sound, RATE)
        speaker = ("anna", "bob")[number % 2]
        split = "train" if number < 4 else "test"
        rows.append(
            Row(id=name, group=name, lang="en", speaker=speaker, split=split, text="the green house", audio=audio)
        )
    return read_manifest(write_mixed(rows, folder / "mixed", MixConfig(talkers=True, snr_db=(0.0, 0.0))).path)


@pytest.fixture(scope="module")
def run(mixed: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    model = tiny_model(info={"tasks": [*REMADE, "se.text"]})
    shards = prepare_shards(mixed, model.tokenizers, tmp_path_factory.mktemp("prepared") / "shards")
    made = Evaluation(model=model, shards=shards, judge=tiny_judge())
    evaluate_remaking(made)
    return made


def test_every_task_is_scored(run: Evaluation) -> None:
    assert set(run.metrics) == set(REMADE)
    for key in REMADE:
        found: dict[str, Any] = run.metrics[key]
        assert found["count"] == 4 and {"noise_db", "judge_wer", "voice_match", "unit"} <= set(found)
        assert all(np.isfinite(value) for value in found.values() if isinstance(value, float))
        assert [one.task for one in run.examples].count(key) == 4
    assert {key for key in REMADE if "given" in run.metrics[key]} == {"se", "tse"}


def test_noise_that_was_mixed_in_is_measured(mixed: list[Row]) -> None:
    by_name = {row.id: row for row in mixed}
    pairs = [(row, by_name[row.extras[CLEAN]]) for row in mixed if CLEAN in row.extras]
    assert len(pairs) == 8
    for noisy, clean in pairs:
        assert noise_db(noisy.load(RATE), RATE) > noise_db(clean.load(RATE), RATE) + 3


def test_what_was_given_and_what_is_right_are_scored_apart_and_what_stays_stays(run: Evaluation) -> None:
    se = run.metrics["se"]  # a random codec keeps no level: only that the two are of different recordings is known
    assert se["given"]["noise_db"] != se["copied"]["noise_db"]
    assert run.metrics["edit"]["kept_share"] == 1.0
    whole = SequenceSpec("edit", "en", conditions=(Span("codes", np.zeros((2, 3))), Span("codes", np.ones((3, 3)))))
    assert kept_share(Span("codes", np.zeros((8, 3))), whole) == pytest.approx(2 / 5)


def test_voices_are_swapped_with_another_speaker() -> None:
    plans = [
        SequenceSpec("vc", "en", conditions=(Span("voice", np.full((2, 3), place)), Span("units", np.array([place]))))
        for place in range(4)
    ]
    found, wanted = _swapped_voices(plans, ["a", "a", "b", "b"])
    assert wanted == ["b", "b", "a", "a"]
    assert [int(plan.conditions[0].content[0, 0]) for plan in found] == [2, 2, 0, 0]
    assert [plan.conditions[1].content.tolist() for plan in found] == [[0], [1], [2], [3]]
    alone, own = _swapped_voices(plans[:2], ["a", "a"])
    assert own == ["a", "a"] and alone == plans[:2]


def test_what_a_model_never_learned_is_not_scored(run: Evaluation, tmp_path: Path) -> None:
    plain = Evaluation(model=tiny_model(info={"tasks": ["asr"]}), shards=run.shards, judge=run.judge)
    evaluate_remaking(plain)
    assert not plain.metrics
