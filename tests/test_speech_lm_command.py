"""`unitok score-lm`: everything that can be measured of a model by one command, and what was measured is kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command import refused, works, write_rows
from tests.support.prosody import gliding, voice
from tests.support.tiny_model import RATE, model_folder
from unitok.model import Model
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.files import read_json
from unitok_training.speech_lm.pairs import UnitPair, pair_fits
from unitok_training.speech_lm.run import METRICS
from unitok_training.speech_lm.spoken import Speaking, _content, content

SAID = ("loli haru tases woru", "haru woru loli velo", "tases velo haru sile", "velo sile woru tases")
"""Of letters that the toy corpus has sounds for."""


def write_corpus(folder: Path) -> Path:
    rows: list[dict[str, Any]] = []
    for number in range(24):
        text, moved = SAID[(number + number // 12) % 4], number // 4 % 2  # two documents that end differently
        name, seconds = f"a{number}", 1.2
        sound = voice(gliding(110.0 + 12 * (number % 5), 0.3 if moved else 0.01, seconds), seconds)
        write_audio(folder / f"{name}.wav", sound, RATE)
        edges = np.linspace(0, seconds, len(text.split()) + 1)
        rows.append(
            {"id": name, "audio": f"{name}.wav", "text": text, "lang": "en", "speaker": "anna",
             "split": "test" if number % 3 == 2 else "train", "group": f"g{number}", "document": f"d{number // 12}",
             "prosody": "moved" if moved else "calm",
             "words": [[w, float(a), float(b)] for w, a, b in zip(text.split(), edges, edges[1:])]}
        )  # fmt: skip
    return write_rows(folder / "m.jsonl", rows)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    model_folder(folder / "model")
    write_corpus(folder)
    return folder


def command(place: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("score-lm", place / "model", place / "m.jsonl", "-o", out, *more)


TOY = ("--synthesizer", "toy")
SMALL = ("--limit", 4, "--samples", 3, "--temperatures", 0.5, 1.0)


@pytest.fixture(scope="module")
def scored(place: Path) -> Path:
    """Everything at once, from recordings on."""
    works(*command(place, place / "out", "--document-key", "document", *TOY, *SMALL))
    return place / "out"


def test_everything_is_measured_by_one_command(scored: Path) -> None:
    results = read_json(scored / "results.json")
    assert set(results["metrics"]) == set(METRICS) - {"pairs"}
    assert set(results["not_measured"]) == {"pairs"}
    table = (scored / "table.md").read_text("utf-8")
    for title in ("words over pseudo-words", "cloze, text → speech", "PPX, temperature 0.5", "not measured: pairs"):
        assert title in table
    assert set(results["metrics"]["prosody"]["units"]) == {"likelihood", "sound"}
    sound = results["metrics"]["prosody"]["units"]["sound"]
    assert sound["recordings"]["accuracy"] >= 0.75 and sound["generated"]["chance"] == 0.5
    words = results["metrics"]["words"]
    assert words["per_id"]["count"] == 4 and words["per_id"]["low"] < 0.5 < words["per_id"]["high"]
    assert "n_gram" in words and words["letters"] >= 0
    curve = results["metrics"]["curve"]
    assert set(curve["temperatures"]) == {"0.5", "1"} and curve["recognized_by"] == "the model's own asr"
    assert curve["real_texts"]["ppx"] < 60 and "NaN" not in (scored / "results.json").read_text("utf-8")
    assert len(list((scored / "spoken").glob("*.flac"))) >= 8, "what was spoken can be listened to"


def test_what_was_measured_is_kept_and_what_changed_is_not(place: Path, scored: Path) -> None:
    told = read_json(scored / "order.json")
    (scored / "order.json").write_text(json.dumps({**told, "figures": {**told["figures"], "left_out": 77}}), "utf-8")
    before = {path: path.stat().st_mtime_ns for path in (scored / "spoken").iterdir()}
    again = (*TOY, "--metrics", "order", "words", "--limit", 4)
    works(*command(place, scored, *again))
    assert read_json(scored / "results.json")["metrics"]["order"]["left_out"] == 77, "read, not made again"
    assert {path: path.stat().st_mtime_ns for path in (scored / "spoken").iterdir()} == before
    works(*command(place, scored, "--metrics", "order", "--limit", 4, "--seed", 9))
    assert read_json(scored / "results.json")["metrics"]["order"]["left_out"] == 0


def test_a_seed_and_a_voice_change_what_is_spoken(place: Path, tmp_path: Path) -> None:
    found = {}
    for name, more in {"a": (), "b": ("--seed", 5), "c": ("--voices", "ada", "bo")}.items():
        works(*command(place, tmp_path / name, *TOY, "--metrics", "words", "--limit", 4, *more))
        found[name] = {path.name for path in (tmp_path / name / "spoken").iterdir()}
    assert found["a"] != found["b"] and not found["a"] & found["c"]


def test_sentences_and_known_words_come_from_files(place: Path, tmp_path: Path) -> None:
    lines = [{"UID": "order", "good": "loli haru", "bad": "haru loli"}, {"uid": "more", "good": "velo", "bad": "sile"}]
    write_rows(tmp_path / "pairs.jsonl", lines)
    works(*command(place, tmp_path / "a", *TOY, "--metrics", "sentences", "--sentences", tmp_path / "pairs.jsonl"))
    figures = read_json(tmp_path / "a/results.json")["metrics"]["sentences"]
    assert set(figures["by_set"]) == {"order", "more"} and figures["per_id"]["count"] == 2
    (tmp_path / "words.txt").write_text("Saru\nlosi\n", "utf-8")
    words = (*TOY, "--metrics", "words", "--limit", 2)
    works(*command(place, tmp_path / "b", *words, "--known-words", tmp_path / "words.txt"))
    assert read_json(tmp_path / "b/results.json")["metrics"]["words"]["per_id"]["count"] == 2


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "unknown metric": (("--metrics", "blimp"), "unknown metric 'blimp'"),
    "nobody speaks": (("--metrics", "words", "--synthesizer", "none"), "nothing speaks"),
    "no recorded pairs": (("--metrics", "pairs"), "no recorded pairs"),
    "idle": (("--metrics", "order", "--samples", "4"), "--samples changes nothing"),
    "another idle one": (("--voices", "ada", "--synthesizer", "none"), "--voices changes nothing"),
    "no such split": (("--metrics", "order", "--split", "dev"), "no rows of split 'dev'"),
    "no such file": (("--metrics", "sentences", "--sentences", "nowhere.jsonl"), "no file nowhere.jsonl"),
    "no such language": (("--metrics", "words", "--lang", "xx"), "xx"),
    "one sample": (("--metrics", "curve", "--samples", "1"), "give 2 or more"),
    "an idle key": (("--metrics", "order", "--document-key", "book"), "--document-key changes nothing"),
    "no class": (("--metrics", "prosody", "--label", "mood"), "'mood'"),
    "below nothing": (("--limit", "-1"), "--limit: '-1'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_measured_is_refused(name: str, place: Path, tmp_path: Path) -> None:
    more, message = REFUSED[name]
    refused(*command(place, tmp_path / "out", *more), saying=message)


def test_a_model_that_knows_no_speech_says_why_nothing_was_measured(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    model_folder(copy)
    found = read_json(copy / "unitok.json")
    (copy / "unitok.json").write_text(json.dumps({**found, "info": {"tasks": ["asr", "lm"]}}), "utf-8")
    works("score-lm", copy, place / "m.jsonl", "-o", tmp_path / "none", "--limit", 2, "--synthesizer", "none")
    results = read_json(tmp_path / "none/results.json")
    assert set(results["metrics"]) == {"cloze"} and "not trained on slm" in results["not_measured"]["order"]
    assert set(results["metrics"]["cloze"]["not_measured"]) == {"s_s", "t_s", "s_t"}


def test_pairs_that_no_decoder_has_positions_for_are_left_out(place: Path, tmp_path: Path) -> None:
    model = Model.load(place / "model")
    model.decoder.config = replace(model.decoder.config, max_positions=24)
    short, long = np.arange(8) % 12, np.arange(40) % 12
    sides = [(one, other) for one in (short, long) for other in (short, long)]
    pairs = [UnitPair(name="", set="", lang="en", good=one, bad=other) for one, other in sides]
    assert [pair_fits(model, pair) for pair in pairs] == [True, False, False, False]
    model.save(tmp_path / "small")
    refused(
        "score-lm", tmp_path / "small", place / "m.jsonl", "-o", tmp_path / "o", "--metrics", "sentences", *TOY,
        *SMALL[:2], saying="none of the 4 pairs fits",
    )  # fmt: skip


def test_nothing_to_compare_and_nobody_who_speaks_is_refused(place: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    model = Model.load(place / "model")
    model.vocoder = None
    model.save(silent)
    rows = [{**row, "text": f"{row['text']} {number}"} for number, row in enumerate(read_rows(place / "m.jsonl"))]
    manifest = write_rows(place / "alone.jsonl", rows)
    refused(
        "score-lm", silent, manifest, "-o", tmp_path / "o", "--metrics", "prosody",
        saying=("nothing can be measured", "no sentence is spoken in two classes", "does not speak units"),
    )  # fmt: skip


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_what_another_model_says_is_another_recording(place: Path) -> None:
    one, other = (Model.load(place / "model") for _ in range(2))
    assert _content("unitok", one) == _content("unitok", other)
    with torch.no_grad():
        other.decoder.norm.mul_(2)
    assert _content("unitok", one) != _content("unitok", other) and _content("espeak", one) == ["espeak"]
    before = _content(str(place / "model"), one)
    os.utime(place / "model/unitok.json", ns=(1, 1))
    after = _content(str(place / "model"), one)
    assert after != before and after == content(Speaking(synthesizer=str(place / "model")), one)
    assert content(Speaking(synthesizer="none"), one) == []
