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
from unitok_tokenizers.stored_tensors import StoredTensor
from unitok_training.reports.beside import beside
from unitok_training.run_models.language_rows import JoiningLanguages

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
    french = after.vocabulary.language("fr")  # which begins elsewhere
    old = [row for row in range(len(before.decoder.embedding)) if row != french]
    moved = (after.decoder.embedding - before.decoder.embedding).detach()[old].abs().max()
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


# -- a language that joins --------------------------------------------------------------------------------------


def test_a_language_begins_at_the_mean_of_those_that_are_known(base: Path, tmp_path: Path) -> None:
    """Beside other rows nothing moves, and the weights of a decoder that is split begin alike, read row by row."""
    start = Model.load(base / "model")
    wider = start.vocabulary.append_language("nl").append_language("fr")
    languages = JoiningLanguages.of(start.vocabulary, wider)
    assert languages is not None
    old = start.decoder.embedding.detach().clone()
    known, new = [wider.language(code) for code in ("de", "en")], [wider.language(code) for code in ("nl", "fr")]
    stored = [("embedding", StoredTensor.of(old.clone())), ("norm", StoredTensor.of(torch.ones(3)))]
    split = {name: value for name, value in languages.begun(stored) if isinstance(value, StoredTensor)}
    languages.begin(start.decoder)
    found = start.decoder.embedding.detach()
    for row in new:
        assert torch.equal(found[row], old[known].mean(0)) and not torch.equal(found[row], old[row])
    others = [row for row in range(len(old)) if row not in new]
    assert torch.equal(found[others], old[others])
    assert torch.equal(split["embedding"].whole(), found) and torch.equal(split["norm"].whole(), torch.ones(3))
    assert JoiningLanguages.of(start.vocabulary, start.vocabulary) is None
    none = Vocabulary.build(text=start.vocabulary.text)
    assert JoiningLanguages.of(none, none.append_language("nl")) is None, "there is nothing to be the mean of"


def test_training_takes_the_mean_row(base: Path, tmp_path: Path) -> None:
    still = ("--set", "tuning.decoder.full=false", "--set", "tuning.decoder.lora_rank=1")
    assert train(base, tmp_path / "run", *still) == 0
    before, after = Model.load(base / "model"), Model.load(tmp_path / "run/model")
    rows = before.decoder.embedding[[before.vocabulary.language(code) for code in ("de", "en")]]
    french = after.decoder.embedding[after.vocabulary.language("fr")]
    assert torch.allclose(french, rows.mean(0), atol=1e-7), "with tables that do not move"


def test_the_preset_for_a_trained_model(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [word for value in (*STEPS, "train.compile=false") for word in ("--set", value)]
    command = ["--shards", str(base / "shards"), "--start", str(base / "model"), *settings]
    assert main(["train", "finetune", *command, "-o", str(tmp_path / "finetune")]) == 2
    assert "preset adapt" in capsys.readouterr().err, "a trained model has no new rows"
    assert main(["train", "adapt", *command, "-o", str(tmp_path / "run")]) == 0
    before, after = Model.load(base / "model"), Model.load(tmp_path / "run/model")
    assert not torch.equal(before.decoder.blocks[0].qkv, after.decoder.blocks[0].qkv), "all of it moves"  # type: ignore
    assert after.languages == ("de", "en", "fr") and set(after.characters) == {"en", "fr"}


# -- what was lost ----------------------------------------------------------------------------------------------


def test_two_models_beside_each_other(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The older one is asked only about languages that it knows; the other's figures are those of it alone."""
    assert train(base, tmp_path / "run") == 0
    french = [line for line in (base / "my/metadata.jsonl").read_text("utf-8").splitlines() if '"fr"' in line]
    (base / "my/french.jsonl").write_text("\n".join(french) + "\n", encoding="utf-8")
    where = ["--tokenizers", str(base / "model/tokenizers")]
    assert main(["prepare", str(base / "my/french.jsonl"), str(tmp_path / "french"), *where]) == 0
    folders = [str(base / "shards"), str(tmp_path / "french")]
    model, start = str(tmp_path / "run/model"), str(base / "model")
    capsys.readouterr()
    assert main(["evaluate", start, folders[1], "--limit", "1"]) == 2
    assert "unknown language 'fr'" in capsys.readouterr().err
    assert main(["evaluate", model, *folders, "--limit", "2", "--against", start]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    old, new = found["against"]["folders"], found["folders"]
    assert set(old[folders[0]]["asr"]["by_lang"]) == {"en"} and old[folders[1]] == {}
    assert set(new[folders[1]]["asr"]["by_lang"]) == {"fr"}
    assert main(["evaluate", model, folders[0], "--limit", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == new[folders[0]]
    row = next(line.split() for line in said.err.splitlines() if line.startswith("asr.by_lang.en.cer"))
    shown = [f"{one[folders[0]]['asr']['by_lang']['en']['cer']:.4g}" for one in (old, new)]
    assert row[1:3] == shown
    assert main(["evaluate", model, "--text-evals", str(base / "my/metadata.jsonl"), "--against", start]) == 2
    assert "--against changes nothing" in capsys.readouterr().err


def test_a_table_has_what_both_know() -> None:
    old = {"asr": {"wer": 0.5, "count": 3, "unit": "wer"}, "lm": {"ppl": 7.0}}
    new = {"asr": {"wer": 0.25, "count": 4, "unit": "wer"}, "mt": {"bleu": 10.0}}
    lines = [line.split() for line in beside(old, new)]
    assert lines == [
        ["before", "after", "change"],
        ["asr.wer", "0.5", "0.25", "-0.25"],
        ["mt.bleu", "-", "10", "-"],
        ["lm.ppl", "7", "-", "-"],
    ]
