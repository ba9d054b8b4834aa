"""Manifests from a folder of recordings and a transcript file: every layout, what does not pair, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unitok.cli.main import main
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.transcripts import ManifestOptions, write_manifest
from unitok_tokenizers.errors import InputError

DATA = Path(__file__).resolve().parents[1] / "../shared/data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six recordings of two speakers, in subfolders."""
    root = tmp_path / "recordings"
    for number in range(6):
        write_audio(root / "ab"[number % 2] / f"rec_{number}.wav", np.zeros(1600, np.float32), 16000)
    return root


def test_a_manifest_that_is_refused_takes_the_place_of_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text("mine\n", encoding="utf-8")
    rows = [{"audio": "a/rec_0.wav", "text": "one", "id": "0"}, {"audio": "b/rec_1.wav", "text": "two", "id": "0"}]
    for second, said in (
        ({}, "t.jsonl:2: id '0' stands in .*t.jsonl:1"),
        ({"id": "1", "lang": "../e"}, "t.jsonl:2: lang"),
    ):
        lines = [json.dumps(rows[0]), json.dumps({**rows[1], **second})]
        (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(InputError, match=said):
            write_manifest(folder, tmp_path / "t.jsonl", tmp_path / "m.jsonl")
        assert (tmp_path / "m.jsonl").read_text(encoding="utf-8") == "mine\n"


@pytest.mark.parametrize(
    "line",
    ["a/rec_0.wav\tgood morning", "rec_0|GOOD MORNING|good morning", "rec_0 good morning", "a\\rec_0 \t good morning"],
)
def test_every_layout_of_a_line(folder: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "t.txt").write_text(f"\n{line}\n", encoding="utf-8")
    report = write_manifest(folder, tmp_path / "t.txt", tmp_path / "m.jsonl", ManifestOptions(speaker="^(.)/"))
    (row,) = read_manifest(tmp_path / "m.jsonl")
    assert (row.text, row.lang, row.speaker) == ("good morning", "en", "a")
    assert row.audio == tmp_path / "recordings/a/rec_0.wav" and len(row.load(16000)) == 1600
    assert report.rows == 1 and len(report.without_transcript) == 5 and report.speakers == 1


def test_json_lines_keep_their_columns(folder: Path, tmp_path: Path) -> None:
    value = {"audio": "b/rec_1.wav", "text": "hallo", "lang": "de", "split": "dev", "group": "g", "colour": "red"}
    (tmp_path / "t.jsonl").write_text(json.dumps(value), encoding="utf-8")
    write_manifest(folder, tmp_path / "t.jsonl", tmp_path / "deep/er/m.jsonl")
    (row,) = read_manifest(tmp_path / "deep/er/m.jsonl")
    assert (row.lang, row.split, row.group, row.text) == ("de", "dev", "g", "hallo") and len(row.load(16000)) == 1600


def test_splits_depend_on_the_name_alone(tmp_path: Path) -> None:
    def splits(count: int) -> dict[str, str]:
        root = tmp_path / str(count)
        for number in range(count):
            write_audio(root / "r" / f"{number}.wav", np.zeros(800, np.float32), 16000)
        (root / "t.txt").write_text("".join(f"{number}\ttext\n" for number in range(count)), encoding="utf-8")
        write_manifest(root / "r", root / "t.txt", root / "m.jsonl", ManifestOptions(test_share=0.3))
        return {row.audio.name: row.split for row in read_manifest(root / "m.jsonl") if row.audio}

    few, many = splits(60), splits(100)
    assert few.items() <= many.items() and 0.15 < np.mean([split == "test" for split in many.values()]) < 0.45


def test_what_does_not_pair_is_counted_or_refused(folder: Path, tmp_path: Path) -> None:
    transcripts = tmp_path / "t.txt"

    def refused(text: str, match: str, **options: object) -> None:
        transcripts.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=match):
            write_manifest(folder, transcripts, tmp_path / "m.jsonl", ManifestOptions(**options))  # type: ignore[arg-type]
        assert not (tmp_path / "m.jsonl").exists()

    refused("nobody\thello\n", "names a recording.*'nobody'")
    refused("rec_0\thello\nrec_1\n", "t.txt:2.*no text")
    refused("rec_0\thello\n", "groups", speaker="a")
    refused("rec_0\thello\n", "regular expression", speaker="(")
    refused("rec_0\thello\n", "finds nothing", speaker="^(z)/")
    refused("rec_0\thello\n", "test share", test_share=1.5)
    write_audio(folder / "b" / "rec_0.wav", np.zeros(800, np.float32), 16000)
    refused("rec_0\thello\n", "fits .*a/rec_0.wav and .*b/rec_0.wav")
    with pytest.raises(InputError, match="no folder"):
        write_manifest(tmp_path / "none", transcripts, tmp_path / "m.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no recordings"):
        write_manifest(tmp_path / "empty", transcripts, tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="no transcript file"):
        write_manifest(folder, tmp_path / "none.txt", tmp_path / "m.jsonl")
    transcripts.write_text("b/rec_1\thello\ngone\thello\n", encoding="utf-8")
    report = write_manifest(folder, transcripts, tmp_path / "m.jsonl")
    assert report.rows == 1 and report.without_recording == ("gone",) and "a/rec_0.wav" in report.without_transcript


def test_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.txt").write_text("rec_1 hello\ngone hello\n", encoding="utf-8")
    arguments = ["manifest", str(folder), str(tmp_path / "t.txt"), "-o", str(tmp_path / "m.jsonl")]
    assert main([*arguments, "--lang", "de", "--speaker", "^(.)/", "--test-share", "0"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[0]) == {"rows": 1, "splits": {"train": 1}, "speakers": 1}
    assert "5 recordings have no transcript" in err and "gone" in err
    assert main([*arguments, "--test-share", "2"]) == 2


@pytest.mark.skipif(not DATA.is_dir(), reason="the small real data is not beside the repository")
@pytest.mark.parametrize("name", ["fsdd", "an4_mini"])
def test_real_recordings_pair(name: str, tmp_path: Path) -> None:
    report = write_manifest(DATA / name, DATA / name / "metadata.jsonl", tmp_path / "m.jsonl")
    assert report.rows > 20 and not report.without_recording and not report.without_transcript
    assert report.speakers > 1 and set(report.splits) <= {"train", "test", "codec"}


def test_a_name_with_another_folder_is_another_recording(tmp_path: Path) -> None:
    root = tmp_path / "r"
    write_audio(root / "spk1" / "001.wav", np.zeros(1600, np.float32), 16000)
    (tmp_path / "t.txt").write_text("spk1/001.wav\thello\nspk2/001.wav\tworld\n", encoding="utf-8")
    report = write_manifest(root, tmp_path / "t.txt", tmp_path / "m.jsonl")
    assert report.rows == 1 and report.without_recording == ("spk2/001.wav",)
    (tmp_path / "t.txt").write_text("corpus/spk1/001\thello\n", encoding="utf-8")
    assert write_manifest(root, tmp_path / "t.txt", tmp_path / "m.jsonl").rows == 1


def test_a_group_is_of_one_split(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"said {lang} {number}", "lang": lang, "group": f"g{number}"})
        for number in range(200)
        for lang in ("en", "de")
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    write_manifest(None, tmp_path / "t.jsonl", tmp_path / "m.jsonl", ManifestOptions(test_share=0.2))
    splits: dict[str, set[str]] = {}
    for row in read_manifest(tmp_path / "m.jsonl"):
        splits.setdefault(row.group, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert 0.1 < np.mean([found == {"test"} for found in splits.values()]) < 0.3
