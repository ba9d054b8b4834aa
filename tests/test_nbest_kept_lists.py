"""Lists that are kept as they are made: what a bad recording, an interrupt and a late refusal cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import refused, unitok, works
from tests.support.tiny_model import RATE, model_folder, speech
from unitok.nbest import collect
from unitok.nbest.collect import Utterance
from unitok.nbest.lists import read_lists
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.errors import InputError


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A model and three recordings."""
    model_folder(tmp_path / "m")
    rows = []
    for number in range(3):
        write_audio(tmp_path / f"{number}.wav", speech(0.4, seed=number), RATE)
        rows.append({"audio": f"{number}.wav", "text": "we buy two books", "id": str(number), "lang": "en"})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def command(corpus: Path, *more: object) -> tuple[object, ...]:
    return ("nbest", corpus / "m", corpus / "m.jsonl", "-o", corpus / "l.jsonl", "--size", 2, "--beams", 2, *more)


def test_a_recording_that_cannot_be_read_costs_its_own_list(corpus: Path) -> None:
    works(*command(corpus))
    whole = (corpus / "l.jsonl").read_text(encoding="utf-8").splitlines()
    (corpus / "1.wav").rename(corpus / "away.wav")
    (corpus / "l.jsonl").unlink()
    ended = unitok(*command(corpus))
    assert ended.code == 2 and "unitok nbest: 1: " in ended.err and "1 of 3 recordings have no list" in ended.err
    assert (corpus / "l.jsonl").read_text(encoding="utf-8").splitlines() == [whole[0], whole[2]]
    (corpus / "away.wav").rename(corpus / "1.wav")
    works(*command(corpus))
    assert (corpus / "l.jsonl").read_text(encoding="utf-8").splitlines() == whole
    assert sorted(path.name for path in corpus.glob("l.jsonl*")) == ["l.jsonl"]


def test_what_was_made_is_made_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, own = list[str](), collect._heard

    def hears(model: object, one: Utterance, *rest: object) -> object:
        if len(heard) == 2 and "again" not in heard:
            raise KeyboardInterrupt
        heard.append(one.id)
        return own(model, one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(collect, "_heard", hears)
    ended = unitok(*command(corpus, "--snr", "10,0"))
    assert ended.code == 130 and "the same command continues" in ended.err and not (corpus / "l.jsonl").exists()
    heard.append("again")
    refused(*command(corpus, "--snr", "5"), saying=("was made with snr", "10,0"))
    works(*command(corpus, "--snr", "10,0"))
    assert heard == ["0", "1", "again", "2"]
    stopped = read_lists(corpus / "l.jsonl")
    works(*command(corpus, "--snr", "10,0"))
    assert read_lists(corpus / "l.jsonl") == stopped, "as if it had not been stopped"


def test_a_stop_when_all_is_written_locks_no_name(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, gone = Path.unlink, list[str]()

    def unlink(path: Path, missing_ok: bool = False) -> None:
        gone.extend([path.name] if "made" in path.name else [])
        if len(gone) == 2:
            raise KeyboardInterrupt
        own(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        assert unitok(*command(corpus)).code == 130
    works(*command(corpus))
    assert sorted(path.name for path in corpus.glob("l.jsonl*")) == ["l.jsonl"]


def test_what_can_be_refused_is_refused_before_anything_is_heard(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "_heard", lambda *given: pytest.fail("it was heard"))
    (corpus / "folder").mkdir()
    refused("nbest", corpus / "m", corpus / "m.jsonl", "-o", corpus / "folder", saying=("folder", "no file"))
    refused(*command(corpus, "--target", "en,xx"), saying=("translation into 'en'",))
    for snr in ("5000", "-5000", "nan"):
        refused(*command(corpus, f"--snr={snr}"), saying=("snr",))


def test_a_model_that_has_learned_is_saved_before_it_is_scored(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unitok_training.finetune import correct

    works(*command(corpus))
    lists = corpus / "l.jsonl"
    rows = [json.loads(line) for line in lists.read_text(encoding="utf-8").splitlines()]
    for row, split in zip(rows, ("train", "train", "test")):
        row["split"] = split
    lists.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def fails(*given: object, **options: object) -> None:
        raise InputError("a recording is gone")

    monkeypatch.setattr(correct, "corrected", fails)
    refused("correct", corpus / "m", lists, "--steps", 1, "-o", corpus / "out", saying="a recording is gone")
    assert (corpus / "out/unitok.json").is_file()
    judge = corpus / "m/tokenizers/units"
    (corpus / "other.jsonl").write_text(
        json.dumps({"audio": "0.wav", "text": "x", "id": "0", "lang": "en"}) + "\n", encoding="utf-8"
    )
    monkeypatch.setattr(correct, "teach", lambda *given: pytest.fail("it was taught"))
    hears = ("--hear", judge, "--recordings", corpus / "other.jsonl")
    refused("correct", corpus / "m", lists, "--steps", 1, *hears, saying="no recording '1'")


@pytest.mark.parametrize("option", ["--words=,", "--lengths=", "--words=nan"])
def test_numbers_to_try_are_some_and_finite(option: str, corpus: Path) -> None:
    refused("rescore", corpus / "m", corpus / "l.jsonl", option, saying=(option.partition("=")[0], "write numbers"))
