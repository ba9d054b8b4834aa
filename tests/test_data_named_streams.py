"""Units and codes made elsewhere, under names of their own: by the commands of their page, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import refused, unitok, works, write_rows
from tests.support.documents import ROOT, blocks, commands, run_block, run_command
from tests.support.hf_hosts import write_host
from unitok.model import Model
from unitok_tokenizers.data.shards import Shards

PAGE = ROOT / "docs/elsewhere.md"
LETTERS = "abcde"
DESCRIBED = {"kind": "units", "fingerprint": "speller-10", "frame_rate": 43.0664, "cardinalities": [10]}
CODED = {"kind": "codes", "fingerprint": "codec", "frame_rate": "25/2", "cardinalities": [5, 7]}


@pytest.mark.slow
def test_the_page_teaches_what_units_spell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks as they stand; then what the model has learned, and that the run goes on where it stopped."""
    write_host(tmp_path / "path/to/Qwen3", "qwen3")
    page = [block for block in blocks(PAGE) if block.mark != "shown"]
    said = {block.text.strip(): run_block(block, tmp_path, tiny=False) for block in page}
    monkeypatch.chdir(tmp_path)
    found = json.loads(said["unitok evaluate runs/spelled/model spelled-shards"])
    tokens = found["tokens"]
    for line in (tokens["asr"], tokens["asr"]["codes"], tokens["tts"]["units"]):
        assert line["count"] == 40 and line["token_accuracy"] >= 0.95
    assert tokens["tts"]["units"]["by_stream"]["hubert"]["token_accuracy"] >= 0.95
    assert found["asr"]["wer"] <= 0.1 and found["asr"]["codes"]["wer"] <= 0.1
    assert "speller-12" in found["not_scored"]["tts.units"]
    asked = ("--task", "asr", "--lang", "en", "--units", "said.npy")
    for model in ("runs/spelled/model", "runs/spelled-again"):
        assert works("generate", model, *asked) == "abcd\n" and np.load("said.npy").tolist() == list(range(8))
    assert Model.load("runs/chosen/model").vocabulary.main("units").fingerprint == "speller-12"  # type: ignore[union-attr]
    whole = Model.load("runs/spelled/model").decoder.state_dict()
    shutil.rmtree("runs/spelled/model")
    shutil.rmtree("runs/spelled/checkpoints/step_00000400")
    (train,) = [words for block in page for words in commands(block.text) if "runs/spelled" in words]
    assert "continues at step 300" in run_command(train, tmp_path, "resume", tiny=False)
    for name, value in Model.load("runs/spelled/model").decoder.state_dict().items():
        assert torch.equal(whole[name], value)


def units_of(text: str) -> np.ndarray:
    return np.array([2 * LETTERS.index(letter) + part for letter in text for part in (0, 1, 1)])


def codes_of(text: str) -> np.ndarray:
    return np.array([[LETTERS.index(letter), LETTERS.index(letter) + 2] for letter in text])


def describe(place: Path, name: str, value: dict[str, object]) -> str:
    (place / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return f"{name}={place / f'{name}.json'}"


def train(root: Path, out: Path, *more: object) -> tuple[object, ...]:
    small = ("pack_size=512", "window=64", "steps=2", "log_every=50")
    sets = [part for change in small for part in ("--set", f"train.{change}")]
    given = ("--shards", root / "shards", "--tokenizers", root / "tokenizers", "-o", out)
    return ("train", "tiny", *given, *sets, "--set", "mixture.asr.codes=1", *more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with two streams of units and one of codes, and a model of two steps that reads one of the two."""
    place = tmp_path_factory.mktemp("named")
    random = np.random.default_rng(0)
    texts = {f"r{index}": "".join(random.choice(list(LETTERS), 3)) for index in range(40)}
    rows = [
        {"id": name, "text": text, "lang": "en", "split": "test" if name.endswith("9") else "train", "speaker": "eva"}
        for name, text in texts.items()
    ]
    manifest = write_rows(place / "m.jsonl", [{**row, "km": units_of(str(row["text"])).tolist()} for row in rows])
    np.savez(place / "hubert.npz", **{name: units_of(text) for name, text in texts.items() if name != "r0"}, x=[1])
    for name, text in texts.items():
        (place / "mimi").mkdir(exist_ok=True)
        np.save(place / "mimi" / f"{name}.npy", codes_of(text))
    works("fit-tokenizers", manifest, place / "tokenizers", "--text-pieces", "266")
    wavlm = {**DESCRIBED, "frame_rate": "62.5", "deduplicated": True}
    streams = [describe(place, "hubert", DESCRIBED), describe(place, "wavlm", wavlm), describe(place, "mimi", CODED)]
    ended = unitok(
        *("prepare", manifest, place / "shards", "--tokenizers", place / "tokenizers", "--columns", "wavlm=km"),
        *(part for stream in streams for part in ("--stream", stream)),
        *("--tokens", f"hubert={place / 'hubert.npz'}", "--tokens", f"mimi={place / 'mimi'}"),
    )
    assert ended.code == 0 and "1 rows have no hubert" in ended.err and "'r0'" in ended.err, ended
    assert "1 ids of" in ended.err and "'x'" in ended.err
    works(*train(place, place / "run", "--stream", "units=wavlm"))
    return place


def test_shards_hold_every_stream(root: Path) -> None:
    for command in ("validate", "inspect"):
        streams = json.loads(works(command, root / "shards"))["streams"]
        assert [(one["name"], one["frame_rate"]) for one in streams[1:]] == [
            ("hubert", "53833/1250"),
            ("wavlm", "125/2"),
            ("mimi", "25/2"),
        ]
    shards = Shards.open(root / "shards")
    assert (shards.ragged("hubert_durations")[0] == 1).all() and (
        shards.ragged("wavlm_durations")[0] == [1, 2] * 120
    ).all()
    assert np.diff(shards.ragged("hubert")[1])[:2].tolist() == [0, 9] and shards.codes(0, "mimi").shape == (3, 2)


def test_one_of_several_must_be_chosen_and_the_model_keeps_it(root: Path, tmp_path: Path) -> None:
    refused(*train(root, tmp_path / "run"), saying=("'hubert'", "'wavlm'", "--stream units=", "leave out"))
    refused(*train(root, tmp_path / "run", "--stream", "units=mimi"), saying=("units=mimi", "hubert, wavlm"))
    refused(*train(root, tmp_path / "run", "--stream", "units"), saying="KIND=NAME")
    message = refused(*train(root, root / "run", "--stream", "units=hubert"))
    assert "vocabulary" in message, "a run does not go on with other units"
    model = Model.load(root / "run/model")
    assert sorted(model.elsewhere) == ["mimi", "wavlm"] and model.prompts["eva"].shape[1] == 2
    assert json.loads((root / "run/model/unitok.json").read_text("utf-8"))["elsewhere"] == ["mimi", "wavlm"]
    found = json.loads(works("evaluate", root / "run/model", root / "shards"))
    assert set(found["tokens"]["tts"]["units"]["by_stream"]) == {"wavlm"} and "asr" in found
    assert works("evaluate", root / "run/model", root / "shards", "--safety", "2")


def test_another_of_them_joins_a_model_that_has_one(root: Path, tmp_path: Path) -> None:
    """The start's stream stays the main one unless another is chosen; its ids do not move."""
    start = ("--start", root / "run/model")
    works(*train(root, tmp_path / "same", *start))
    old, same = Model.load(root / "run/model").vocabulary, Model.load(tmp_path / "same/model").vocabulary
    assert same == old
    works(*train(root, tmp_path / "other", *start, "--stream", "units=hubert"))
    other = Model.load(tmp_path / "other/model").vocabulary
    assert other.main("units").name == "hubert" and other.extents[: len(old.extents)] == old.extents  # type: ignore[union-attr]
    assert dict(other.mains) == {"units": "hubert"}
    works("export", tmp_path / "other/model", tmp_path / "hf")
    works("import", tmp_path / "hf", tmp_path / "back")
    assert Model.load(tmp_path / "back").vocabulary == other
    found = json.loads(works("evaluate", tmp_path / "back", root / "shards"))
    assert set(found["tokens"]["tts"]["units"]["by_stream"]) == {"hubert"}


def test_shards_of_another_stream_are_refused_and_both_are_named(root: Path, tmp_path: Path) -> None:
    works(
        *("prepare", root / "m.jsonl", tmp_path / "shards", "--tokenizers", root / "tokenizers"),
        *("--stream", f"hubert={root / 'hubert.json'}", "--tokens", f"hubert={root / 'hubert.npz'}"),
    )
    refused("evaluate", root / "run/model", tmp_path / "shards", saying=("'hubert'", "'wavlm'"))
    (tmp_path / "tokenizers").symlink_to(root / "tokenizers")
    refused(*train(tmp_path, tmp_path / "run", "--set", "mixture.asr.codes=0", "--stream", "codes=mimi"), saying="mimi")


def test_folders_may_differ_in_what_they_hold_beside_the_main_stream(root: Path, tmp_path: Path) -> None:
    """One more folder without codes and without the other units; then one that has the other units instead."""
    few = (root / "m.jsonl").read_text(encoding="utf-8").splitlines()[:25]
    (tmp_path / "few.jsonl").write_text("\n".join(few), encoding="utf-8")
    for name, *given in (("wavlm", "--columns", "wavlm=km"), ("hubert", "--tokens", f"hubert={root / 'hubert.npz'}")):
        described = ("--stream", f"{name}={root / f'{name}.json'}")
        made = ("prepare", tmp_path / "few.jsonl", tmp_path / name, "--tokenizers", root / "tokenizers")
        assert unitok(*made, *described, *given).code == 0
    shutil.copytree(root / "run", tmp_path / "run")
    longer = (*train(root, tmp_path / "run", "--stream", "units=wavlm"), "--set", "train.steps=4", "--shards")
    rate = ("--set", "train.optim.learning_rate=0.0004")
    refused(*longer, root / "shards", tmp_path / "hubert", saying=(f"{tmp_path / 'hubert'} hold units", "'wavlm'"))
    both, allow = (root / "shards", f"{tmp_path / 'wavlm'}=3:asr"), ("--allow-change", "shards")
    refused(*longer, *both, saying=("is new", "--allow-change shards"))
    refused(*longer, *both, *allow, *rate, saying="--allow-change train.optim.learning_rate")
    ended = unitok(*longer, *both, *allow, *rate, "--allow-change", "train.optim.learning_rate")
    assert ended.code == 0 and "continues at step 2" in ended.out and "goes on with other shards" in ended.out, ended
    old, new = Model.load(root / "run/model"), Model.load(tmp_path / "run/model")
    assert new.vocabulary == old.vocabulary and new.limits == old.limits, "its rows are among those that were there"
    assert (new.prompts["eva"] == old.prompts["eva"]).all(), "of a voice that one folder alone has codes of"


def test_ids_in_and_out_of_files(root: Path, tmp_path: Path) -> None:
    model, asked = root / "run/model", ("--task", "asr", "--lang", "en")
    texts = {"a": "abc", "b": "dec"}
    np.savez(tmp_path / "u.npz", **{name: units_of(text) for name, text in texts.items()})
    rows = [{"id": name, "wavlm": units_of(text).tolist()} for name, text in texts.items()]
    lines = write_rows(tmp_path / "u.jsonl", rows)
    heard = works("generate", model, *asked, "--units", tmp_path / "u.npz")
    assert heard.count("\n") == 2 and works("generate", model, *asked, "--units", lines) == heard
    said = works("generate", model, *asked, "--codes", root / "mimi/r0.npy")
    assert said.count("\n") == 1
    write = ("generate", model, "--task", "slm", "--lang", "en", "--units", lines, "-o", tmp_path / "out.npz")
    works(*write)
    with np.load(tmp_path / "out.npz") as written:
        assert written.files == ["0", "1"] and all(written[name].ndim == 1 for name in written.files)
    np.savez(tmp_path / "far.npz", a=units_of("ab"), b=[3, 10])
    write_rows(tmp_path / "far.jsonl", [{"wavlm": [1]}, {"wavlm": [1, -1]}])
    np.save(tmp_path / "wide.npy", np.zeros((3, 3), int))
    for option, name, saying in (
        ("--units", "far.npz", ("far.npz['b']", "id 10")),
        ("--units", "far.jsonl", ("far.jsonl:2", "id -1")),
        ("--codes", "wide.npy", ("wide.npy", "(3, 3)", "(F, 2)")),
        ("--units", "u.csv", (".safetensors",)),
    ):
        refused("generate", model, *asked, option, tmp_path / name, saying=saying)
    refused("generate", model, "x.wav", *asked, saying=("wavlm", "--units FILE"))


def test_tokens_that_do_not_belong(root: Path, tmp_path: Path) -> None:
    command = ("prepare", root / "m.jsonl", tmp_path / "s", "--tokenizers", root / "tokenizers")
    hubert = ("--stream", f"hubert={root / 'hubert.json'}")
    np.savez(tmp_path / "none.npz", x=[1])
    np.savez(tmp_path / "far.npz", r1=[1], r2=[10])
    np.savez(tmp_path / "real.npz", r1=[1], r2=[0.5])
    for name, saying in (
        ("none.npz", ("none.npz", "'x'", "'r0'")),
        ("far.npz", ("far.npz['r2']", "id 10", "10 ids")),
        ("real.npz", ("real.npz['r2']", "float64")),
        ("no.npz", ("check the path",)),
    ):
        refused(*command, *hubert, "--tokens", f"hubert={tmp_path / name}", saying=saying)
    refused(*command, "--tokens", f"hubert={tmp_path / 'far.npz'}", saying=("hubert", "--stream hubert="))
    refused(*command, *hubert, saying=("no row has a column 'hubert'", "--tokens"))
    refused(*command, "--stream", f"u={root / 'hubert.json'}", saying="'u'")
    refused(*command, "--stream", f"split={root / 'hubert.json'}", "--columns", "split=km", saying="split")
    codes = describe(tmp_path, "mimi", {**CODED, "deduplicated": True})
    refused(*command, "--stream", codes, "--tokens", f"mimi={root / 'mimi'}", saying="only units")


def test_rows_of_nothing_but_tokens(root: Path, tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "m.jsonl", [{"id": f"r{number}", "lang": "en"} for number in range(3)])
    command = ("prepare", manifest, tmp_path / "s", "--tokenizers", root / "tokenizers")
    stream = ("--stream", f"hubert={root / 'hubert.json'}", "--tokens", f"hubert={root / 'hubert.npz'}")
    assert json.loads(works(*command, *stream))["tokens"]["hubert"] == 18
    refused(*command, saying="neither audio nor text nor tokens")
