"""Mixtures of recordings, and the examples that are made of them: who is given, who answers, and who is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import toy_shards
from tests.support.command import refused, works
from tests.support.tiny_model import RATE, speech, tokenizers
from tests.support.toy_shards import ToyShards
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.audio.speech_activity import noise_db
from unitok_tokenizers.data import mixing
from unitok_tokenizers.data.manifest import Row, read_manifest, unknown_splits
from unitok_tokenizers.data.mixing import MixConfig, MixReport, beside, mixed, write_mixed
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.errors import InputError
from unitok_training.data.examples import ExampleSource
from unitok_training.data.mixture import Mixture

ALL = MixConfig(noise_rows=True, talkers=True, snr_db=(3.0, 9.0), seed=5)
CORPUS = toy_shards.corpus(4)
MIXTURES = toy_shards.mixtures(CORPUS)


def recordings(folder: Path) -> list[Row]:
    """Two speakers in training, one in the test."""
    rows = []
    for number in range(6):
        audio, split = folder / f"{number}.wav", "test" if number > 3 else "train"
        write_audio(audio, speech(0.5 + 0.1 * number, seed=number), RATE)
        speaker = ("anna", "karl")[number % 2] if split == "train" else "iris"
        rows.append(
            Row(id=f"r{number}", group=f"g{number}", lang="en", speaker=speaker, split=split, text="a", audio=audio)
        )
    return rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    return recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def report(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> MixReport:
    return write_mixed(rows, tmp_path_factory.mktemp("mixed"), ALL)


def sound(row: Row) -> np.ndarray:
    return row.load(RATE)


def test_a_mixture_is_what_it_names_and_its_noise(report: MixReport, rows: list[Row]) -> None:
    found = {row.id: row for row in read_manifest(report.path)}
    assert report.mixtures == {"test_mixed": 2 * 2, "train_mixed": 4 * 3} and report.alone == 2
    assert not unknown_splits([*found.values()])
    noisy = [row for row in found.values() if "clean" in row.extras]
    assert len(noisy) == 6 and all(found[row.extras["clean"]].split + "_mixed" == row.split for row in noisy)
    for row in noisy:
        clean, noise = sound(found[row.extras["clean"]]), sound(found[row.extras["noise"]])
        both = sound(row)
        assert len(both) == len(clean) == len(noise)
        power = float(clean @ (both - noise)) / float(clean @ clean)  # scaled down where it was too loud
        assert np.allclose(both, clean * power + noise, atol=2e-3)
        level = 10 * np.log10(np.mean((clean * power) ** 2) / np.mean(noise**2))
        assert 3 <= row.extras["snr_db"] <= 9 and abs(level - row.extras["snr_db"]) < 0.1
        assert row.text == "a" and row.speaker == found[row.extras["clean"]].speaker
        assert found[row.extras["noise"]].text is None and not found[row.extras["noise"]].speaker
    talking = [row for row in found.values() if "talker" in row.extras]
    assert {row.split for row in talking} == {"train_mixed"}, "the test has one speaker"
    for row in talking:
        wanted, other = found[row.extras["talker"]], found[row.extras["other"]]
        assert row.speaker == wanted.speaker != other.speaker and len(sound(row)) == len(sound(wanted))
    for row in rows:
        assert np.array_equal(sound(found[row.id]), sound(row)), "what was there is there still"


def test_a_mixture_belongs_to_the_seed_and_the_row(report: MixReport, rows: list[Row], tmp_path: Path) -> None:
    first = {row.id: row for row in read_manifest(report.path)}
    again = {row.id: row for row in read_manifest(write_mixed(rows, tmp_path / "a", ALL).path)}
    other = {row.id: row for row in read_manifest(write_mixed(rows, tmp_path / "b", replace(ALL, seed=6)).path)}
    assert first.keys() == again.keys() == other.keys()
    name = "r1+noise"
    assert np.array_equal(sound(first[name]), sound(again[name])) and first[name].extras == again[name].extras
    assert not np.array_equal(sound(first[name]), sound(other[name]))
    twice = write_mixed(rows, tmp_path / "c", MixConfig(copies=2))
    assert twice.mixtures == {"test_mixed": 4, "train_mixed": 8}


def test_noise_of_recordings(rows: list[Row], tmp_path: Path) -> None:
    tone = np.sin(np.arange(RATE) * 0.5).astype(np.float32)
    write_audio(tmp_path / "noises/tone.wav", tone * 0.3, RATE)
    made = write_mixed(rows[:1], tmp_path / "out", MixConfig(noises=tmp_path / "noises", noise_rows=True))
    alone = next(row for row in read_manifest(made.path) if row.id.endswith(".alone"))
    spectrum = np.abs(np.fft.rfft(sound(alone)))
    assert abs(float(np.argmax(spectrum)) / len(spectrum) * np.pi - 0.5) < 0.01, "nothing but that tone"


def test_levels() -> None:
    random = np.random.default_rng(0)
    said, noise = speech(1.0, seed=1), random.standard_normal(RATE).astype(np.float32)
    estimates = [noise_db(mixed(said, noise, level)[0], RATE) for level in (30.0, 15.0, 0.0)]
    assert estimates == sorted(estimates) and estimates[0] < estimates[2] - 1
    loud, _ = mixed(said * 3, noise, -20.0)
    assert float(np.abs(loud).max()) <= 1.0
    assert len(beside(said, 100, random)) == 100 and len(beside(said[:50], 100, random)) == 100


def test_a_manifest_names_no_sounds_that_became_others(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sounds are written again in place: a repeat that ends midway leaves none of the two manifests."""
    made = write_mixed(rows, tmp_path, ALL)

    def stop(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mixing, "write_audio", stop)
    with pytest.raises(KeyboardInterrupt):
        write_mixed(rows[::-1], tmp_path, ALL)
    assert not made.path.exists()
    monkeypatch.undo()
    assert write_mixed(rows, tmp_path, ALL).mixtures == made.mixtures


def test_what_cannot_be_mixed_is_refused(report: MixReport, rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a mixture already"):
        write_mixed(read_manifest(report.path), tmp_path)
    (tmp_path / "own").mkdir()
    table = tmp_path / "own" / "manifest.jsonl"
    table.write_text(json.dumps({"text": "a", "lang": "en", "mood": "calm"}) + "\n")
    with pytest.raises(InputError, match="is there already and has no mixtures"):
        write_mixed(rows, table.parent, ALL)
    assert "calm" in table.read_text() and len(list(table.parent.iterdir())) == 1
    with pytest.raises(InputError, match="no row of the manifest has a recording"):
        write_mixed([replace(rows[0], audio=None)], tmp_path)
    with pytest.raises(InputError, match="no split of the manifest has two speakers"):
        write_mixed(rows[4:], tmp_path, MixConfig(noise=False, talkers=True))
    for given in (
        {"snr_db": (9.0, 3.0)},
        {"copies": 0},
        {"noise": False},
        {"noise": False, "talkers": True, "noise_rows": True},
    ):
        with pytest.raises(InputError):
            MixConfig(**given)  # type: ignore[arg-type]


def test_the_command_makes_what_prepare_and_training_take(rows: list[Row], tmp_path: Path) -> None:
    lines = [
        {"id": row.id, "audio": str(row.audio), "text": "the green house", "speaker": row.speaker, "split": row.split}
        for row in rows
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    told = works("mix", tmp_path / "m.jsonl", tmp_path / "out", "--talkers", "--noise-rows", "--noise-snr", "0", "5")
    assert str(tmp_path / "out/manifest.jsonl") in told and '"train_mixed": 12' in told
    refused(
        "mix", tmp_path / "m.jsonl", tmp_path / "out", "--no-noise", "--talkers", "--noise-rows", saying="--noise-rows"
    )
    refused("mix", tmp_path / "m.jsonl", tmp_path / "out", "--talker-snr", "0", "1", saying="without --talkers")
    bundle = tokenizers()
    shards = prepare_shards(read_manifest(tmp_path / "out/manifest.jsonl"), bundle, tmp_path / "shards")
    keys = ("se", "se.text", "sr", "tse", "tse.text")
    plans = ExampleSource(shards, bundle.vocabulary(["en"]), Mixture(tasks=dict.fromkeys(keys, 1.0)), seed=0)
    assert plans.usable() == {"se": 4, "se.text": 4, "sr": 4, "tse": 4, "tse.text": 4}
    row = next(row for row in read_manifest(tmp_path / "out/manifest.jsonl") if row.id == "r1+noise")
    assert row.audio is not None and bundle.codec is not None
    given = {one.conditions[0].content.tobytes() for one in map(plans.plan, range(40)) if one.task == "se"}
    assert bundle.codec.encode(read_audio(row.audio, sample_rate=RATE)).astype(np.int64).tobytes() in given


# -- examples -----------------------------------------------------------------------------------------------------


def source(key: str, rows: list[dict[str, Any]], **more: Any) -> ExampleSource:
    shards: Any = ToyShards(rows)
    return ExampleSource(shards, toy_shards.vocabulary(), Mixture(tasks={key: 1.0}), seed=2, **more)


@pytest.mark.parametrize("key", ["se", "se.text", "sr", "tse", "tse.text"])
def test_the_row_that_a_mixture_names_answers(key: str) -> None:
    row_of = {row["id"]: row for row in (*CORPUS, *MIXTURES)}
    name = {"se": "clean", "sr": "noise", "tse": "talker"}[key.partition(".")[0]]
    plans = source(key, [*CORPUS, *MIXTURES])
    for index in range(30):
        plan, given = plans.plan(index), row_of[plans.document(index).name.rpartition(" ")[2]]
        wanted = row_of[given["extras"][name]]
        *voices, said = (span for span in plan.conditions if span.kind != "text")
        assert np.array_equal(said.content, given["codes"])
        assert np.array_equal(plan.outputs[0].content, wanted["codes"])
        texts = [span.content.tolist() for span in plan.conditions if span.kind == "text"]
        assert texts == ([wanted["text_ids"].tolist()] if key.endswith(".text") else [])
        assert len(voices) == key.startswith("tse")
        for voice in voices:  # of the wanted talker, from another row than the answer
            others = [row["codes"] for row in CORPUS if row["speaker"] == wanted["speaker"] and row is not wanted]
            length = len(voice)
            assert any(
                np.array_equal(codes[start : start + length], voice.content)
                for codes in others
                for start in range(len(codes) - length + 1)
            )


def test_mixtures_are_given_to_no_other_task() -> None:
    for key in ("asr", "tts.codes", "vtts.voice", "slm", "lm", "edit", "vc", "s2st.codes"):
        alone, beside_them = source(key, CORPUS), source(key, [*CORPUS, *MIXTURES])
        assert alone.usable() == beside_them.usable(), key
        for index in range(10):
            assert np.array_equal(alone.document(index).ids, beside_them.document(index).ids), key


def test_a_voice_is_always_there_where_a_task_needs_one() -> None:
    lonely = [{**row, "speaker": "c"} if row["id"] == "0-en-a" else row for row in CORPUS]
    plans = source("vc", lonely)
    assert plans.usable()["vc"] == len(CORPUS) - 1
    assert any("no other utterance of its speaker" in line for line in plans.report())
    assert all([span.kind for span in plans.plan(index).conditions] == ["voice", "units"] for index in range(40))
    with pytest.raises(InputError, match="extras name no usable row as 'talker', or no other utterance"):
        source("tse", [*CORPUS[:1], *toy_shards.mixtures(CORPUS[:1])])
    with pytest.raises(InputError, match="none of the 0 rows of split 'train_mixed' .*`unitok mix`"):
        source("se", CORPUS)


def test_a_stretch_and_what_stands_around_it_are_the_row() -> None:
    plans, row_of = source("edit", CORPUS), {row["id"]: row for row in CORPUS}
    lengths = set()
    for index in range(60):
        plan, row = plans.plan(index), row_of[plans.document(index).name.rpartition(" ")[2]]
        text, before, behind = (span.content for span in plan.conditions)
        (stretch,) = (span.content for span in plan.outputs)
        assert np.array_equal(text, row["text_ids"])
        assert np.array_equal(np.concatenate([before, stretch, behind]), row["codes"])
        assert min(len(before), len(stretch), len(behind)) >= 1
        lengths.add(len(stretch))
    assert len(lengths) > 3
    short = [{**row, "codes": row["codes"][: 2 + (row["speaker"] == "a")]} for row in CORPUS]
    assert source("edit", short).usable()["edit"] == len(CORPUS) // 2
