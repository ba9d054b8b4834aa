"""Training that starts from a trained model, on new shards: same ids, voices kept, new ones added."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.tiny_model import model_folder
from tests.test_docs import write_recordings
from unitok.cli.main import main
from unitok.model import Model
from unitok_tokenizers.grammar.vocabulary import Vocabulary

STEPS = ["train.steps=2", "train.pack_size=512", "train.window=64", "train.optim.learning_rate=1e-4"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of English and German with the voice anna, and shards of one new voice in English and French."""
    root = tmp_path_factory.mktemp("adaptation")
    model_folder(root / "model")
    (root / "my").mkdir()
    write_recordings(root / "my")
    lines = (root / "my/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{**json.loads(line), "speaker": "lena"} for line in lines]
    for row in rows:
        row["lang"] = {"de": "fr"}.get(row["lang"], row["lang"])
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "my/metadata.jsonl").write_text(text, encoding="utf-8")
    shards = ["prepare", str(root / "my/metadata.jsonl"), str(root / "shards")]
    assert main([*shards, "--tokenizers", str(root / "model/tokenizers")]) == 0
    return root


def train(base: Path, out: Path, *more: str, start: Path | None = None) -> int:
    """`unitok train` from the model of `base`."""
    settings = [word for value in STEPS for word in ("--set", value)]
    where = ["--shards", str(base / "shards"), "-o", str(out), "--start", str(start or base / "model")]
    return main(["train", "tiny", *where, *settings, *more])


def test_a_model_learns_on_with_its_own_ids_and_new_voices(base: Path, tmp_path: Path) -> None:
    assert train(base, tmp_path / "run") == 0
    before, after = Model.load(base / "model"), Model.load(tmp_path / "run/model")
    assert after.vocabulary.languages == (*before.vocabulary.languages, "fr")
    assert after.vocabulary.extents == before.vocabulary.extents
    assert after.voices == ["anna", "lena"]
    assert after.decoder.config == before.decoder.config
    shape = json.loads((tmp_path / "run/recipe.json").read_text(encoding="utf-8"))["decoder"]
    assert shape["width"] == before.decoder.config.width
    moved = (after.decoder.embedding - before.decoder.embedding).detach().abs().max()
    assert 0 < float(moved) < 0.01, "two small steps away from the start, not from random weights"
    for name in ("text_per_unit", "units_per_text", "frames_per_unit"):
        assert getattr(after.limits, name) >= getattr(before.limits, name)
    assert after.info["tasks"] == ["asr", "tts.units"]
    assert after.synthesize("the house", lang="en", voice="lena").audio is not None


def test_a_repeat_finishes_the_same_way(base: Path, tmp_path: Path) -> None:
    assert train(base, tmp_path / "one") == 0
    assert train(base, tmp_path / "two", "--set", "train.checkpoint_every=1") == 0
    shutil.rmtree(tmp_path / "two/model")
    shutil.rmtree(tmp_path / "two/checkpoints/step_00000002")
    settings = ("--tokenizers", str(base / "model/tokenizers"), "--set", "train.checkpoint_every=1")
    assert train(base, tmp_path / "two", *settings) == 0
    one, two = Model.load(tmp_path / "one/model"), Model.load(tmp_path / "two/model")
    assert all(torch.equal(a, b) for a, b in zip(one.decoder.parameters(), two.decoder.parameters()))


def test_what_is_needed_is_said(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [word for value in STEPS for word in ("--set", value)]
    command = ["train", "tiny", "--shards", str(base / "shards"), "-o", str(tmp_path / "run"), *settings]
    assert main(command) == 2
    assert "--tokenizers DIR" in capsys.readouterr().err
    shutil.copytree(base / "model", tmp_path / "other")
    vocabulary = Vocabulary.load(tmp_path / "other/vocabulary.json")
    assert vocabulary.languages == ("de", "en")
    assert main([*command, "--start", str(tmp_path / "other")]) == 0


def test_a_model_trained_from_nothing_speaks_codes_with_the_voices_of_its_shards(base: Path, tmp_path: Path) -> None:
    where = ["--shards", str(base / "shards"), "--tokenizers", str(base / "model/tokenizers"), "-o", str(tmp_path)]
    settings = [word for value in STEPS for word in ("--set", value)]
    assert main(["train", "tiny", *where, *settings, "--set", "mixture.only={tts.codes: 1}"]) == 0
    model = Model.load(tmp_path / "model")
    assert model.voices == ["lena"]
    known = "".join(sorted(set(model.characters["fr"]) - {" "}))  # of the few texts that it was given
    result = model.synthesize(known, lang="fr", voice="lena")
    assert result.audio is not None and len(result.audio)
