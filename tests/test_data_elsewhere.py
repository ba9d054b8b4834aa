"""Tokens made elsewhere, from the command line: prepared, trained on, evaluated, generated, exported and imported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.command import refused, unitok, works, write_rows
from tests.support.tiny_model import model_folder, speech, tiny_model
from unitok.model import Model
from unitok.requests.request import Request
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError

LETTERS = "abcde"
SIZE = 10
"""Two units a letter."""
DESCRIBED = {"kind": "units", "fingerprint": "speller-10", "frame_rate": "50", "cardinalities": [SIZE]}
CODED = {"kind": "codes", "fingerprint": "codec-2x8", "frame_rate": 12.5, "cardinalities": [8, 8]}
TEXT_ONLY = {"asr": 1.0, "tts.units": 1.0, "lm": 0.3}


def units_of(text: str) -> list[int]:
    """Units as a known function of the text: two a letter, the first of them for two frames."""
    return [unit for letter in text for unit in np.repeat(2 * LETTERS.index(letter) + np.arange(2), (2, 1)).tolist()]


def spelled(text: str) -> list[int]:
    """The same, deduplicated."""
    return [unit for letter in text for unit in (2 * LETTERS.index(letter) + np.arange(2)).tolist()]


def codes_of(text: str) -> list[list[int]]:
    return [[LETTERS.index(letter), (LETTERS.index(letter) + 3) % 8] for letter in text]


def texts(count: int, seed: int = 0) -> Iterator[str]:
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield "".join(random.choice(list(LETTERS), random.integers(2, 5)))


def write_manifest(path: Path, *, codes: bool = False) -> Path:
    rows: list[dict[str, Any]] = []
    for index, text in enumerate(texts(120)):
        split = "test" if index % 6 == 5 else "train"
        row = {"id": f"r{index}", "text": text, "units": units_of(text), "lang": "en", "split": split, "speaker": "eva"}
        rows.append({**row, "codes": codes_of(text)} if codes else row)
    return write_rows(path, rows)


def described(path: Path, value: dict[str, Any], **changes: Any) -> Path:
    path.write_text(json.dumps({**value, **changes}), encoding="utf-8")
    return path


def train(root: Path, out: Path, *more: object, steps: int = 2) -> tuple[object, ...]:
    small = ("pack_size=512", "window=64", f"steps={steps}", "checkpoint_every=1000", "log_every=50")
    sets = [part for change in small for part in ("--set", f"train.{change}")]
    mixture = ("--set", f"mixture={json.dumps({'only': TEXT_ONLY})}")
    return ("train", "tiny", "--shards", root / "shards", "-o", out, *mixture, *sets, *more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of units whose tokenizer is nowhere, and a model of two steps."""
    place = tmp_path_factory.mktemp("elsewhere")
    manifest = write_manifest(place / "m.jsonl")
    works("fit-tokenizers", manifest, place / "tokenizers", "--text-pieces", "266")
    assert not (place / "tokenizers/units").exists(), "text alone"
    stream = f"units={described(place / 'units.json', DESCRIBED, deduplicated=True)}"
    works("prepare", manifest, place / "shards", "--tokenizers", place / "tokenizers", "--stream", stream)
    for command in ("inspect", "validate"):
        assert json.loads(works(command, place / "shards"))["streams"][1]["fingerprint"] == "speller-10"
    works(*train(place, place / "run", "--tokenizers", place / "tokenizers"))
    return place


@pytest.fixture(scope="module")
def asked(root: Path) -> tuple[str, Path]:
    """A text of the test split, and its units as a file."""
    text = list(texts(120))[5]
    np.save(root / "asked.npy", np.asarray(units_of(text)))
    return text, root / "asked.npy"


def test_the_model_keeps_the_description(root: Path) -> None:
    model = Model.load(root / "run/model")
    assert model.tokenizers.unit_tokenizer is None and list(model.elsewhere) == ["units"]
    assert model.elsewhere["units"] == Shards.open(root / "shards").streams["units"]
    assert json.loads((root / "run/model/unitok.json").read_text("utf-8"))["elsewhere"] == ["units"]


def test_what_is_scored_and_what_is_not(root: Path) -> None:
    found = json.loads(works("evaluate", root / "run/model", root / "shards"))
    assert found["asr"]["unit"] == "wer" and found["asr"]["count"] == 20 and found["lm"]["ppl"] > 1
    for line in (found["tokens"]["asr"], found["tokens"]["tts"]["units"], found["tokens"]["lm"]):
        assert line["count"] == 20 and line["ppl"] > 1 and 0 <= line["token_accuracy"] <= 1
    assert set(found["not_scored"]) == {"tts.units"} and "speller-10" in found["not_scored"]["tts.units"]


def test_ids_out(root: Path, tmp_path: Path) -> None:
    model = root / "run/model"
    said = json.loads(works("generate", model, "abc", "--task", "tts", "--lang", "en"))
    assert said and all(0 <= unit < SIZE for unit in said)
    for name in ("a.npy", "a.json", "a.jsonl"):
        out = tmp_path / name
        assert works("generate", model, "abc", "--task", "tts", "--lang", "en", "-o", out).strip() == str(out)
        works("generate", model, "--task", "asr", "--lang", "en", "--units", out)
    assert np.load(tmp_path / "a.npy").tolist() == said == json.loads((tmp_path / "a.json").read_text("utf-8"))


def test_several_utterances_are_lines(root: Path, tmp_path: Path) -> None:
    chosen = list(texts(120))[5::6][:3]
    rows = [{"text": "not read", "units": units_of(text)} for text in chosen]
    file = write_rows(tmp_path / "many.jsonl", rows)
    command = ("generate", root / "run/model", "--lang", "en", "--units", file)
    assert len(works(*command, "--task", "asr").splitlines()) == 3
    works(*command, "--task", "slm", "-o", tmp_path / "more.jsonl")
    assert len((tmp_path / "more.jsonl").read_text("utf-8").splitlines()) == 3
    refused(*command, "--task", "slm", "-o", tmp_path / "more.npy", saying=("3 answers", ".jsonl"))
    works(*command, "--task", "asr", "-o", tmp_path / "heard.jsonl")
    heard = [json.loads(line) for line in (tmp_path / "heard.jsonl").read_text("utf-8").splitlines()]
    assert [one["text"] for one in heard] == works(*command, "--task", "asr").splitlines()


def test_what_it_cannot_do_is_said(root: Path, asked: tuple[str, Path], tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", speech(), 16000)
    model, (_, file) = root / "run/model", asked
    lang = ("--lang", "en")
    for task in ("asr", "slm", "chat"):
        refused("generate", model, tmp_path / "a.wav", "--task", task, *lang, saying=("speller-10", "--units FILE"))
    refused("generate", model, "ab", "--task", "tts", *lang, "-o", tmp_path / "b.wav", saying=("speller-10", ".npy"))
    refused("generate", model, "--task", "tts", *lang, "--units", file, saying="reads text")
    refused("generate", model, "x.wav", "--task", "asr", *lang, "--units", file, saying="give one of")
    refused("generate", model, "--task", "asr", *lang, "--units", file, "x.wav", saying="give one of")
    assert unitok("generate", model, "--task", "asr", *lang).code == 2
    refused("generate", model, "--task", "asr", *lang, "--codes", file, saying=("codes (F, Q)", "units"))
    refused("generate", model, "--task", "asr", *lang, "--units", tmp_path / "no.npy", saying="check the path")
    refused("generate", model, "--task", "asr", *lang, "--units", file, "-o", "x.npy", saying="whose answer is text")
    assert works("evaluate", model, root / "shards", "--safety", "2")


def test_python_takes_arrays(root: Path, asked: tuple[str, Path]) -> None:
    model, (text, file) = Model.load(root / "run/model"), asked
    units = np.load(file)
    assert model.transcribe(units, lang="en").text is not None
    (span, vectors), *_ = model.heard([units])
    assert span.kind == "units" and span.content.tolist() == spelled(text) and vectors is None
    spoken = model.synthesize(text, lang="en")
    assert spoken.audio is None and spoken.outputs[-1].kind == "units"
    with pytest.raises(InputError, match="no audio"):
        spoken.save("never.wav")
    with pytest.raises(InputError, match="integer array"):
        model.transcribe(speech(), lang="en")
    with pytest.raises(InputError, match="ids below"):
        model.transcribe(units + SIZE, lang="en")
    chunks = list(model.stream(Request(task="tts", source="en", text=text)))
    assert chunks[-1].result is not None and (chunks[-1].result.ids == spoken.ids).all()


@pytest.mark.parametrize("name", ["list.json", "object.json", "lines.jsonl"])
def test_files_that_hold_no_units(root: Path, tmp_path: Path, name: str) -> None:
    values = {"list.json": [[1, 2], [3, 4]], "object.json": {"ids": [1]}, "lines.jsonl": [1.5, 2]}
    (tmp_path / name).write_text(json.dumps(values[name]), encoding="utf-8")
    command = ("generate", root / "run/model", "--task", "asr", "--lang", "en", "--units")
    refused(*command, tmp_path / name, saying=(name, "units"))


def test_exported_and_imported_it_is_the_same(root: Path, asked: tuple[str, Path], tmp_path: Path) -> None:
    _, file = asked
    works("export", root / "run/model", tmp_path / "hf")
    works("import", tmp_path / "hf", tmp_path / "back")
    command = ("--task", "asr", "--lang", "en", "--units", file)
    assert works("generate", tmp_path / "back", *command) == works("generate", root / "run/model", *command)
    before, after = Model.load(root / "run/model"), Model.load(tmp_path / "back")
    assert after.vocabulary == before.vocabulary and list(after.elsewhere) == ["units"]
    for name, value in before.decoder.state_dict().items():
        assert torch.equal(after.decoder.state_dict()[name], value)


def test_a_run_that_stopped_continues(root: Path, tmp_path: Path) -> None:
    """The last checkpoint and the model are taken away: the same command makes the same model again."""
    command = train(root, tmp_path / "run", "--tokenizers", root / "tokenizers", steps=4)
    command = (*command, "--set", "train.checkpoint_every=2")
    works(*command)
    whole = Model.load(tmp_path / "run/model").decoder.state_dict()
    shutil.rmtree(tmp_path / "run/model")
    shutil.rmtree(tmp_path / "run/checkpoints/step_00000004")
    ended = unitok(*command)
    assert ended.code == 0 and "continues at step 2" in ended.out
    for name, value in Model.load(tmp_path / "run/model").decoder.state_dict().items():
        assert torch.equal(whole[name], value)


def test_another_origin_is_refused_and_both_are_named(root: Path, tmp_path: Path) -> None:
    manifest, bundle = root / "m.jsonl", root / "tokenizers"
    other = described(tmp_path / "units.json", DESCRIBED, fingerprint="other-10", deduplicated=True)
    works("prepare", manifest, tmp_path / "shards", "--tokenizers", bundle, "--stream", f"units={other}")
    both = ("speller-10", "other-10")
    refused("evaluate", root / "run/model", tmp_path / "shards", saying=both)
    start = ("--start", root / "run/model")
    refused(*train(root, tmp_path / "run", *start, "--shards", tmp_path / "shards"), saying=(*both, root / "run/model"))
    message = refused(*train(root, root / "run", "--tokenizers", bundle, "--shards", tmp_path / "shards"))
    assert "vocabulary" in message, "a run does not go on with other units"


def test_a_model_takes_on_units(root: Path, tmp_path: Path) -> None:
    """From a model of text alone: its rows stay, those of the units come behind them."""
    lines = [{"id": str(index), "text": text, "lang": "en"} for index, text in enumerate(texts(40))]
    manifest = write_rows(tmp_path / "t.jsonl", lines)
    works("prepare", manifest, tmp_path / "shards", "--tokenizers", root / "tokenizers")
    given = ("--tokenizers", root / "tokenizers", "--set", 'mixture={"only": {"lm": 1}}')
    works(*train(tmp_path, tmp_path / "text", *given))
    start = tmp_path / "text/model"
    works(*train(root, tmp_path / "run", "--start", start, "--set", "train.optim.learning_rate=1e-9"))
    old, new = Model.load(start), Model.load(tmp_path / "run/model")
    size = old.vocabulary.size
    assert new.vocabulary.size == size + SIZE and list(new.elsewhere) == ["units"]
    torch.testing.assert_close(new.decoder.embedding[:size], old.decoder.embedding, rtol=0, atol=1e-6)


def test_codes_too(root: Path, tmp_path: Path) -> None:
    """Codes of two codebooks: read, and answered with, by a model that has no codec."""
    manifest = write_manifest(tmp_path / "m.jsonl", codes=True)
    units = described(tmp_path / "units.json", DESCRIBED, deduplicated=True)
    codes = described(tmp_path / "codes.json", CODED)
    streams = ("--stream", f"units={units}", "--stream", f"codes={codes}")
    works("prepare", manifest, tmp_path / "shards", "--tokenizers", root / "tokenizers", *streams)
    tasks = {"only": {"asr.codes": 1, "tts.codes": 1}}
    works(
        *train(tmp_path, tmp_path / "run", "--tokenizers", root / "tokenizers", steps=4),
        *("--set", f"mixture={json.dumps(tasks)}", "--set", "train.pack_size=256"),
    )
    model = tmp_path / "run/model"
    said = works("generate", model, "ab", "--task", "tts", "--lang", "en", "--voice", "eva").splitlines()
    assert len(said) == 2 and all(len(frame) == 2 for frame in json.loads(said[1])), "units, then frames of codes"
    works("generate", model, "ab", "--task", "tts", "--lang", "en", "-o", tmp_path / "c.npy")
    assert np.load(tmp_path / "c.npy").shape[1] == 2
    assert works("generate", model, "--task", "asr", "--lang", "en", "--codes", tmp_path / "c.npy")
    found = json.loads(works("evaluate", model, tmp_path / "shards", "--limit", "3"))
    assert found["tokens"]["tts"]["codes"]["count"] == 3 and "codec-2x8" in found["not_scored"]["tts.codes"]
    write_audio(tmp_path / "v.wav", speech(), 16000)
    refused(
        *("generate", model, "ab", "--task", "tts", "--lang", "en", "--voice", tmp_path / "v.wav"),
        saying=("codec-2x8", "eva"),
    )
    chosen = Model.load(model)
    assert chosen.synthesize("ab", lang="en", voice=np.asarray(codes_of("abc"))).outputs[-1].kind == "codes"


def test_codes_alone(root: Path, tmp_path: Path) -> None:
    """A model that knows codes of one codebook and no units."""
    rows = [{"text": text, "codes": [[unit] for unit in units_of(text)], "lang": "en"} for text in texts(30)]
    stream = f"codes={described(tmp_path / 'codes.json', CODED, cardinalities=[SIZE])}"
    manifest = write_rows(tmp_path / "m.jsonl", rows)
    works("prepare", manifest, tmp_path / "shards", "--tokenizers", root / "tokenizers", "--stream", stream)
    mixture = ("--set", f"mixture={json.dumps({'only': {'asr.codes': 1}})}")
    works(*train(tmp_path, tmp_path / "run", "--tokenizers", root / "tokenizers", *mixture))
    np.save(tmp_path / "c.npy", np.asarray(units_of("abc")))
    works("generate", tmp_path / "run/model", "--task", "asr", "--lang", "en", "--codes", tmp_path / "c.npy")
    (span, _), *_ = Model.load(tmp_path / "run/model").heard([np.asarray(units_of("abc"))[:, None]])
    assert span.kind == "codes" and span.content.shape == (9, 1)


def test_units_that_keep_their_runs(root: Path, tmp_path: Path) -> None:
    keep = described(tmp_path / "units.json", DESCRIBED)
    works(
        *("prepare", root / "m.jsonl", tmp_path / "shards", "--tokenizers", root / "tokenizers"),
        *("--stream", f"units={keep}"),
    )
    shards = Shards.open(tmp_path / "shards")
    values, offsets = shards.ragged("units")
    assert values[: offsets[1]].tolist() == units_of(next(texts(1)))
    assert (shards.ragged("units_durations")[0] == 1).all()
    works("validate", tmp_path / "shards")
    works(*train(tmp_path, tmp_path / "run", "--tokenizers", root / "tokenizers"))
    model = Model.load(tmp_path / "run/model")
    assert model.units_of([np.array([1, 1, 2])])[0].tolist() == [1, 1, 2]


WRONG = (
    ({"kind": "codes"}, ("kind", "'units'")),
    ({"frame_rate": "fast"}, ("frame_rate", "75/2")),
    ({"frame_rate": 0}, ("frame_rate",)),
    ({"cardinalities": 10}, ("cardinalities", "[500]")),
    ({"cardinalities": [10, 10]}, ("one codebook",)),
    ({"cardinalities": [7]}, ("row r0", "ids")),
    ({"fingerprint": ""}, ("fingerprint",)),
    ({"deduplicated": "yes"}, ("deduplicated",)),
    ({"dedup": True}, ("'dedup'", "deduplicated")),
    ({"name": "hubert"}, ("'hubert'",)),
    ({"views": "codes"}, ("'codes'", "described")),
)


@pytest.mark.parametrize(("change", "saying"), WRONG, ids=[str(change) for change, _ in WRONG])
def test_a_wrong_description_is_refused(root: Path, tmp_path: Path, change: dict[str, Any], saying: Any) -> None:
    stream = f"units={described(tmp_path / 'units.json', DESCRIBED, **change)}"
    command = ("prepare", root / "m.jsonl", tmp_path / "s", "--tokenizers", root / "tokenizers", "--stream")
    refused(*command, stream, saying=saying)


def test_missing_fields_and_other_names_are_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "short.json").write_text('{"kind": "units"}', encoding="utf-8")
    good = described(tmp_path / "units.json", DESCRIBED)
    command = ("prepare", root / "m.jsonl", tmp_path / "s", "--tokenizers", root / "tokenizers", "--stream")
    refused(*command, f"units={tmp_path / 'short.json'}", saying=("fingerprint", "frame_rate", "cardinalities"))
    refused(*command, f"hubert={good}", saying=("hubert", "no row has a column"))
    refused(*command, f"units={good}", "--stream", f"units={good}", saying="twice")


def test_codes_are_whole_frames(root: Path, tmp_path: Path) -> None:
    manifest = write_rows(tmp_path / "m.jsonl", [{"id": "r", "text": "ab", "codes": [[1, 2, 3]]}])
    stream = f"codes={described(tmp_path / 'codes.json', CODED)}"
    refused(
        *("prepare", manifest, tmp_path / "s", "--tokenizers", root / "tokenizers", "--stream", stream),
        saying=("row r", "(1, 3)", "(F, 2)"),
    )


def test_a_lost_tokenizer_is_not_taken_for_elsewhere(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    shutil.rmtree(tmp_path / "model/tokenizers/units")
    with pytest.raises(InputError, match="tokenizers/units is missing"):
        Model.load(tmp_path / "model")
    config = json.loads((tmp_path / "model/unitok.json").read_text("utf-8"))
    del config["elsewhere"]  # as earlier versions wrote it
    (tmp_path / "model/unitok.json").write_text(json.dumps(config), encoding="utf-8")
    assert list(Model.load(tmp_path / "model").elsewhere) == ["units"]


def test_a_model_with_tokenizers_gives_ids_too(tmp_path: Path) -> None:
    model_folder(tmp_path / "model")
    works("generate", tmp_path / "model", "we buy", "--task", "tts", "--lang", "en", "-o", tmp_path / "c.npy")
    assert np.load(tmp_path / "c.npy").shape[1] == 3
    assert tiny_model().elsewhere == {}
