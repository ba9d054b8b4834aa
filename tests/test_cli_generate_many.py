"""`unitok generate` of many inputs: folders, lists, manifests, texts; files of results that outlive a kill."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import COMMAND, environment, refused, unitok, works, write_rows
from tests.support.tiny_model import RATE, model_folder, speech, tiny_model
from tests.test_formats import compare, json_keys, keys
from unitok.model import Model
from unitok.requests.request import GenerationConfig, Request
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.errors import InputError

LANG = ("--lang", "en")
ASR = ("--task", "asr", *LANG)
SPEECH = ("--task", "s2st", "--source", "en", "--target", "de")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and recordings in two folders of which two have one name."""
    root = tmp_path_factory.mktemp("many")
    model_folder(root / "m")
    for number in range(4):
        write_audio(root / "f" / f"{number}.wav", speech(0.4 + 0.2 * number, number), RATE)
    write_audio(root / "f" / "sub" / "0.flac", speech(0.5, 9), RATE)
    (root / "f" / "notes.txt").write_text("not read", encoding="utf-8")
    (root / "f" / ".hidden.wav").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def counts(answered: int, skipped: int, failed: int) -> str:
    return f"answered {answered}, skipped {skipped} finished before, failed {failed}"


def partly(*arguments: object, saying: str) -> str:
    """The error output of a command of which some inputs fail."""
    ended = unitok("generate", *arguments)
    assert ended.code == 2 and saying in ended.err.splitlines()[-1] and "Traceback" not in ended.err, ended
    return ended.err


# -- what is given ------------------------------------------------------------------------------------------------


def test_folders_lists_and_manifests(place: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{place}/f/1.wav\n\n../nowhere.wav\r\n", encoding="utf-8")
    shutil.copyfile(place / "f/2.wav", tmp_path / "2.wav")
    rows = [
        {"id": "a", "audio": "2.wav", "text": "x", "lang": "de"},
        {"id": "b", "audio": "2.wav", "offset": 0.2, "duration": 0.4, "text": "x"},
        {"id": "c", "text": "no audio"},
    ]
    manifest, out = write_rows(tmp_path / "m.jsonl", rows), tmp_path / "out.jsonl"
    given = (place / "f", tmp_path / "list.txt", manifest, place / "f/0.wav")
    said = partly(place / "m", *given, *ASR, "-o", out, saying=counts(9, 0, 2))
    assert "nowhere.wav" in said and "row c has no audio" in said
    found = lines_of(out)
    first = [str(place / "f" / name) for name in ("0.wav", "1.wav", "2.wav", "3.wav", "sub/0.flac")]
    again, missing = f"{place}/f/1.wav#2", str(tmp_path / "../nowhere.wav")
    assert [one["id"] for one in found] == [*first, again, missing, "a", "b", "c", f"{first[0]}#2"]
    assert {one["id"] for one in found if "error" in one} == {missing, "c"}
    for one, name in zip(found, first):
        alone = model.transcribe(name, lang="en")
        assert (one["text"], one["texts"]) == (alone.text, list(alone.texts)) and one["input"] == name
        assert one["finish_reason"] == alone.finish_reason and one["cut"] == (alone.finish_reason == "length")
    assert [one["heard_seconds"] for one in found[:4]] == [0.4, 0.6, 0.8, 1.0]
    row = {one["id"]: one for one in found}
    assert row["a"]["text"] == model.transcribe(tmp_path / "2.wav", lang="de").text and row["b"]["heard_seconds"] == 0.4
    part = read_audio(tmp_path / "2.wav", sample_rate=RATE, offset=0.2, seconds=0.4)
    assert row["b"]["text"] == model.transcribe(part, lang="en").text
    assert row["b"]["input"] == f"{tmp_path / '2.wav'} at 0.2 s, 0.4 s"


def test_many_on_the_screen_are_in_order(place: Path) -> None:
    found = [json.loads(line) for line in works("generate", place / "m", place / "f", *ASR).splitlines()]
    assert [Path(one["id"]).name for one in found] == ["0.wav", "1.wav", "2.wav", "3.wav", "0.flac"]
    assert works("generate", place / "m", place / "f/0.wav", *ASR) == f"{found[0]['text']}\n"


def test_texts(place: Path, model: Model, tmp_path: Path) -> None:
    file, out = tmp_path / "t.txt", tmp_path / "out.jsonl"
    file.write_text("the green house\n\nwe buy two books\n", encoding="utf-8")
    mt = ("--task", "mt", "--source", "en", "--target", "de")
    works("generate", place / "m", "--texts", file, *mt, "--beams", "3", "-o", out)
    found = lines_of(out)
    assert [(one["id"], one["input"]) for one in found] == [("1", "the green house"), ("3", "we buy two books")]
    for one in found:
        request = Request(task="mt", source="en", target="de", text=one["input"], config=GenerationConfig(beams=3))
        assert one["text"] == model.answer(request).text
    rows = [{"id": "x", "text": "the green house"}, {"id": "y", "audio": "a.wav"}]
    manifest = write_rows(tmp_path / "m.jsonl", rows)
    for given in (("--texts", manifest), (manifest,)):
        assert "row y has no text" in partly(place / "m", *given, *mt, saying=counts(1, 0, 1))
    works("generate", place / "m", "one text", *mt, "-o", tmp_path / "one.jsonl")
    assert [one["input"] for one in lines_of(tmp_path / "one.jsonl")] == ["one text"]


def test_ids_of_a_file(place: Path, tmp_path: Path) -> None:
    wrong = write_rows(tmp_path / "w.jsonl", [{"units": [1, 2, 3, 1]}, {"units": [4, 99]}])
    for more in ((), ("-o", tmp_path / "o.jsonl")):
        refused("generate", place / "m", "--units", wrong, *ASR, *more, saying=(f"{wrong}:2", "99"))
    assert not (tmp_path / "o.jsonl").exists(), "nothing is answered of a file that the model cannot read"
    units = write_rows(tmp_path / "u.jsonl", [{"units": [1, 2, 3, 1]}, {"units": [5, 6]}])
    works("generate", place / "m", "--units", units, *ASR, "-o", tmp_path / "o.jsonl")
    found = lines_of(tmp_path / "o.jsonl")
    assert [one["input"] for one in found] == [f"{units}:{number}" for number in (1, 2)]


def test_speech_is_a_file_an_input(place: Path, model: Model, tmp_path: Path) -> None:
    out = tmp_path / "spoken"
    works("generate", place / "m", place / "f", *SPEECH, "-o", f"{out}/")
    found = lines_of(out / "results.jsonl")
    assert [one["audio"] for one in found] == ["0.wav", "1.wav", "2.wav", "3.wav", "0-2.wav"]
    for one in (found[0], found[4]):
        alone = model.translate_speech(one["input"], source="en", target="de")
        assert alone.audio is not None and one["texts"] == list(alone.texts)
        said = read_audio(out / one["audio"], sample_rate=RATE)
        np.testing.assert_allclose(said, np.clip(alone.audio, -1, 1), atol=1e-3)
        assert one["audio_seconds"] == pytest.approx(alone.seconds, abs=1e-3)
    compare("results.request.json", json_keys(out / "results.request.json"))
    ids = tmp_path / "ids.jsonl"
    works("generate", place / "m", place / "f", *SPEECH, "-o", ids)
    written = {key for path in (out / "results.jsonl", ids) for one in lines_of(path) for key in keys(one)}
    compare(
        "results.jsonl",
        {key.removesuffix("[]") if key == "units[]" else key for key in written},
        missing=("codes", "error", "ids", "lang"),
    )
    spans = model.translate_speech(found[0]["input"], source="en", target="de").outputs
    assert lines_of(ids)[0]["units"] == [span for span in spans if span.kind == "units"][-1].content.tolist()


def test_seeds_do_not_depend_on_the_place(place: Path, tmp_path: Path) -> None:
    drawn = (*ASR, "--temperature", "1.5", "--seed", "3")
    works("generate", place / "m", place / "f", *drawn, "-o", tmp_path / "a.jsonl")
    for one in lines_of(tmp_path / "a.jsonl"):
        assert works("generate", place / "m", one["input"], *drawn) == f"{one['text']}\n"


# -- what is refused, and what fails ------------------------------------------------------------------------------


def test_what_does_not_go_together(place: Path, tmp_path: Path) -> None:
    two, many = (place / "f/0.wav", place / "f/1.wav"), tmp_path / "t.txt"
    many.write_text("the\ngreen\n", encoding="utf-8")
    mt, tts = ("--task", "mt", "--source", "en", "--target", "de"), ("--task", "tts", *LANG)
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n\n", encoding="utf-8")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "1.wav").write_bytes(b"years of work")
    for words, saying in (
        ((*two, *ASR, "-o", "x.wav"), ("2 inputs", "FILE.jsonl")),
        ((*two, *ASR, "-o", "x/"), ("2 inputs", "FILE.jsonl")),
        ((*two, *SPEECH), ("speaks", "FOLDER/")),
        ((*two, *SPEECH, "-o", "x.wav"), ("2 inputs", "FOLDER/")),
        ((*two, *SPEECH, "--front-end", "cascade", "-o", "x.jsonl"), ("cascade", "FOLDER/")),
        ((*two, *ASR, "--texts", many), "give one of"),
        (("--texts", many, *ASR), "hears speech"),
        (("a", "b", *mt), ("reads one text", "--texts FILE")),
        (("", two[0], *ASR), "empty"),
        ((*two, *ASR, "--target", "de"), "--target changes nothing"),
        ((*two, *ASR, "--max-seconds", "0"), "--max-seconds is 0"),
        (("--texts", many, *mt, "--max-seconds", "3"), "--max-seconds changes nothing"),
        ((tmp_path / "empty", *ASR), "no audio file in the folder"),
        ((tmp_path / "none.txt", *ASR), "holds no lines"),
        (("--texts", tmp_path / "no.txt", *mt), "no.txt"),
        (("--texts", many, *mt, "-o", tmp_path / "t.txt/o.jsonl"), "cannot write"),
        (("--texts", many, *tts, "-o", tmp_path / "mine"), ("1.wav", "name a new folder")),
    ):
        refused("generate", place / "m", *words, saying=saying)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1.wav", "empty", "mine", "none.txt", "t.txt"]
    assert (tmp_path / "mine" / "1.wav").read_bytes() == b"years of work"


def test_inputs_that_fail_leave_the_others_alone_and_are_tried_again(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for name in ("a.wav", "c.wav"):
        shutil.copyfile(place / "f/1.wav", tmp_path / "bad" / name)
    (tmp_path / "bad" / "b.wav").write_bytes(b"RIFF1234")
    write_audio(tmp_path / "bad" / "long.wav", speech(3.0), RATE)
    out = tmp_path / "out.jsonl"
    command = (place / "m", tmp_path / "bad", *ASR, "-o", out, "--max-seconds")
    said = partly(*command, "2", saying=counts(2, 0, 2))
    assert "b.wav: cannot read" in said and "long.wav: audio" in said and "max_seconds is 2" in said
    assert ["error" in one for one in lines_of(out)] == [False, True, False, True]
    partly(*command, "2", saying=counts(0, 2, 2))
    shutil.copyfile(place / "f/2.wav", tmp_path / "bad" / "b.wav")
    partly(*command, "2", saying=counts(1, 2, 1))
    ended = unitok("generate", *command, "4")
    assert ended.code == 0 and counts(1, 3, 0) in ended.err
    found = lines_of(out)
    assert [Path(one["id"]).name for one in found] == ["a.wav", "b.wav", "c.wav", "long.wav"]
    assert not [one for one in found if "error" in one]


def test_results_of_another_request_are_refused(place: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "o.jsonl", tmp_path / "other"
    command = ("generate", place / "m", place / "f", *ASR, "-o", out)
    works(*command)
    before = out.read_bytes()
    refused(*command, "--beams", "2", saying=(out, "beams 1", "not 2", "-o"))
    tiny_model(languages=("en", "de", "fr")).save(other)
    refused("generate", other, place / "f", *ASR, "-o", out, saying=(out, "model"))
    shutil.copytree(place / "m", tmp_path / "copy")
    ended = unitok("generate", tmp_path / "copy", place / "f", *ASR, "-o", out)
    assert ended.code == 0 and counts(0, 5, 0) in ended.err  # the same model elsewhere
    assert out.read_bytes() == before
    (tmp_path / "o.request.json").unlink()
    refused(*command, saying=("o.request.json", "missing"))
    out.write_text('{"id": 3}\n', encoding="utf-8")
    refused(*command, saying=(f"{out}:1", "-o"))
    texts, spoken = tmp_path / "t.txt", tmp_path / "t.jsonl"
    mt = ("generate", place / "m", "--texts", texts, "--task", "mt", "--source", "en", "--target", "de", "-o", spoken)
    texts.write_text("the green\nhouse\n", encoding="utf-8")
    works(*mt)
    texts.write_text("the house\nhouse\n", encoding="utf-8")
    refused(*mt, saying=("'the green'", "'the house'"))


def test_a_torn_line_is_dropped_and_inputs_may_be_added(place: Path, tmp_path: Path) -> None:
    out, some = tmp_path / "o.jsonl", [place / "f" / f"{number}.wav" for number in range(4)]
    works("generate", place / "m", *some[2:], *ASR, "-o", out)
    with open(out, "ab") as file:
        file.write(b'{"id": "never fin')
    ended = unitok("generate", place / "m", *some, *ASR, "-o", out)
    assert ended.code == 0 and counts(2, 2, 0) in ended.err
    works("generate", place / "m", *some, *ASR, "-o", tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# -- kills --------------------------------------------------------------------------------------------------------


def killed(command: Sequence[object], when: Callable[[], bool], how: signal.Signals) -> bool:
    """Start a command and kill it at a moment; returns whether it ran until then."""
    words = [*COMMAND, "generate", *map(str, command)]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not when():
            time.sleep(0.002)
        alive = process.poll() is None
        process.send_signal(how)
        process.communicate(timeout=60)
    return alive


def test_killed_and_continued_is_the_same_as_undisturbed(place: Path, tmp_path: Path) -> None:
    paths = [str(place / "f" / f"{number % 4}.wav") for number in range(330)]  # more than one window
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    command = (place / "m", tmp_path / "list.txt", "nowhere.wav", *ASR, "--max-tokens", "24", "-o")
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    partly(*command, whole, saying=counts(330, 0, 1))
    wanted = whole.read_bytes()

    def written(count: int) -> Callable[[], bool]:
        return lambda: out.exists() and out.read_bytes().count(b"\n") >= count

    done = 0
    for count, how in ((1, signal.SIGKILL), (60, signal.SIGTERM), (200, signal.SIGINT), (270, signal.SIGKILL)):
        assert killed((*command, out), written(count), how), count
        finished = [line for line in out.read_bytes().split(b"\n")[:-1] if b'"error"' not in line]
        assert len(finished) >= max(done, count - 1) and set(finished) <= set(wanted.split(b"\n"))
        assert len(set(finished)) == len(finished)
        done = len(finished)
    partly(*command, out, saying=counts(330 - done, done, 1))
    assert out.read_bytes() == wanted


def test_speech_that_was_killed_is_continued(place: Path, tmp_path: Path) -> None:
    command = (place / "m", place / "f", *SPEECH, "-o")
    works("generate", *command, f"{tmp_path}/whole/")
    out = tmp_path / "out"
    assert killed((*command, f"{out}/"), lambda: (out / "0.wav").exists(), signal.SIGKILL)
    works("generate", *command, f"{out}/")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in out.iterdir() if not path.name.startswith(".")) == names
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_two_commands_do_not_write_one_file(place: Path, tmp_path: Path) -> None:
    from unitok.many.results_file import ResultsFile

    first = ResultsFile(tmp_path / "o.jsonl", {"task": "asr"})
    with pytest.raises(InputError, match="another process writes"):
        ResultsFile(tmp_path / "o.jsonl", {"task": "asr"})
    first.append({"id": "\udcff", "input": "ü"})
    first.finish(["\udcff"])
    first.close()
    again = ResultsFile(tmp_path / "o.jsonl", {"task": "asr"})
    assert again.finished == {"\udcff": {"id": "\udcff", "input": "ü"}}
    again.close()


def test_an_input_that_has_changed_is_refused(place: Path, tmp_path: Path) -> None:
    rows = [{"id": name, "text": "the green house", "lang": "en"} for name in ("a", "b")]
    table = tmp_path / "m.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ("generate", place / "m", "--max-tokens", "4", "--lang", "en", "--task")
    asked = (*given, "lm", "--texts", table, "-o", tmp_path / "o.jsonl")
    works(*asked)
    works(*asked)
    table.write_text("".join(json.dumps({**row, "lang": "de"}) + "\n" for row in rows))
    refused(*asked, saying=("a is answered already", "lang was 'en' then, not 'de'"))
    sound = tmp_path / "s.wav"
    write_audio(sound, speech(0.5), RATE)
    heard = (*given, "asr", sound, "-o", tmp_path / "p.jsonl")
    works(*heard)
    assert json.loads((tmp_path / "p.jsonl").read_text())["bytes"] == sound.stat().st_size
    write_audio(sound, speech(0.7), RATE)
    refused(*heard, saying=("is answered already", "bytes was"))


def test_other_ids_in_the_same_file_are_not_answered_yet(place: Path, tmp_path: Path) -> None:
    units = write_rows(tmp_path / "u.jsonl", [{"units": [1, 2, 3]}, {"units": [4, 5, 6]}])
    ask = ("generate", place / "m", "--units", units, *ASR, "-o", tmp_path / "r.jsonl")
    works(*ask)
    works(*ask)
    write_rows(units, [{"units": [1, 2, 3]}, {"units": [4, 5, 7]}])
    refused(*ask, saying=("2 is answered already", "ids"))
