"""What text does not say: the prosody corpus, and the same question to text, units and vectors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from unitok.cli.main import main
from unitok_tokenizers.audio.io import audio_seconds
from unitok_tokenizers.corpora.phrases import TEST_VOICES
from unitok_tokenizers.corpora.prosody import CLASSES, make_prosody_corpus
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.errors import InputError
from unitok_training.systems.base.bench import SystemConfig
from unitok_training.systems.latent.prosody import ProsodyConfig
from unitok_training.systems.registry import run_system

pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed")
SIZES = ("encoder_steps=1", "clusters=8", "steps=2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prosody") / "run"


def test_the_text_says_nothing_of_the_class(run: Path) -> None:
    corpus = run.parent / "corpus"
    make_prosody_corpus(corpus, sentences=10, test_sentences=2)
    rows = read_manifest(corpus / "manifest.jsonl")
    test = [row for row in rows if row.split == "test"]
    counts = Counter((row.text, row.extras["prosody"]) for row in test)
    assert len(test) == 8 and set(counts.values()) == {1} and {name for _, name in counts} == set(CLASSES)
    held_out = {voice.name for voice in TEST_VOICES}
    assert all((row.speaker in held_out) == (row.split == "test") for row in rows)
    assert not {row.text for row in test} & {row.text for row in rows if row.split == "train"}

    def seconds(row: Row) -> float:
        assert row.audio is not None
        return audio_seconds(row.audio)

    for text in {row.text for row in test}:  # what is heard differs: the rate, for one
        lengths = {row.extras["prosody"]: seconds(row) for row in test if row.text == text}
        assert sorted(lengths, key=lengths.__getitem__) == ["hurried", "excited", "neutral", "sad"]


def test_three_arms_answer_the_same_rows_and_a_repeat_is_free(run: Path) -> None:
    config = SystemConfig(sentences=10, test_sentences=2, overrides=SIZES)
    figures = run_system("prosody", run, config)
    assert figures["e4.chance"] == 1 / len(CLASSES) and figures["e4.rows"] == 8
    assert figures["e4.cascade.accuracy"] <= 0.25  # one text, four classes: right at most once in four
    assert {f"e4.{arm}.accuracy" for arm in ("cascade", "units", "latent")} < set(figures)
    assert json.loads((run / "results.json").read_text(encoding="utf-8")) == figures
    written = (run / "latent/model/modules/latent.safetensors").read_bytes()
    assert run_system("prosody", run, config) == figures
    assert (run / "latent/model/modules/latent.safetensors").read_bytes() == written
    units = json.loads((run / "units.json").read_text(encoding="utf-8"))
    assert all(np.diff(one).all() for one in units.values())  # deduplicated, as in the demo
    with pytest.raises(InputError, match="other settings"):
        run_system("prosody", run)
    with pytest.raises(InputError, match="clusters is 0"):
        ProsodyConfig(clusters=0)


def test_the_command_refuses_a_run_of_other_sizes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--sentences", "10", "--test-sentences", "2", "--set", "encoder_steps=1", "--set", "steps=2"]
    assert main(["systems", "run", "prosody", "-o", str(run), *sizes]) == 2  # 384 units, not 8
    assert "other settings" in capsys.readouterr().err
