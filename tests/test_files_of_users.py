"""What somebody keeps in a folder that a command writes stays there: each of these was deleted or written over once."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.command import refused, works
from tests.support.tiny_model import RATE, speech, tokenizers
from unitok.many.inputs import recordings
from unitok.many.results_file import ResultsFile
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.transcripts import find_recordings, write_manifest
from unitok_tokenizers.errors import InputError
from unitok_training.runs.own_folder import own_folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder of recordings with names like those of parts, and a table that is called as a manifest of shards is."""
    folder = tmp_path / "corpus"
    for number in (1, 2, 3):
        write_audio(folder / f"part-{number:02d}.wav", speech(0.5, seed=number), RATE)
    (folder / "part-1-notes.txt").write_text("mine")
    rows = [{"audio": f"part-{number:02d}.wav", "text": "we buy two books", "lang": "en"} for number in (1, 2, 3)]
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_shards_beside_recordings_leave_them_where_they_are(corpus: Path, tmp_path: Path) -> None:
    before = contents(corpus)
    prepare_shards(read_manifest(corpus / "m.jsonl"), tokenizers(), corpus)
    prepare_shards(read_manifest(corpus / "m.jsonl")[:1], tokenizers(), corpus)
    assert before.items() <= contents(corpus).items()
    (corpus / "m.jsonl").rename(corpus / "manifest.json")
    (tmp_path / "other").mkdir()
    table = tmp_path / "other" / "manifest.json"
    for content in ((corpus / "manifest.json").read_text(), "[]", "{}", "{"):
        table.write_text(content)
        with pytest.raises(InputError, match="is no manifest of shards and would be replaced"):
            prepare_shards(read_manifest(corpus / "manifest.json"), tokenizers(), table.parent)
        assert contents(table.parent) == {"manifest.json": content.encode()}


def test_a_folder_that_no_training_left_is_not_emptied(corpus: Path) -> None:
    before = contents(corpus)
    with pytest.raises(InputError, match="would be emptied"):
        own_folder(corpus, {"steps": 1})
    assert contents(corpus) == before
    own = own_folder(corpus.parent / "train", {"steps": 1})
    (own / "checkpoint").write_text("x")
    assert (own_folder(own, {"steps": 1}) / "checkpoint").exists()
    assert not (own_folder(own, {"steps": 2}) / "checkpoint").exists(), "another training's"


def test_a_manifest_is_not_written_over_the_table_that_it_is_read_from(tmp_path: Path) -> None:
    table = tmp_path / "manifest.jsonl"
    table.write_text(json.dumps({"text": "we buy", "lang": "en", "units": [1, 2, 3], "codes": [[4, 5]]}) + "\n")
    before = table.read_text()
    refused("manifest", table, "-o", table, saying=("the table that is read", "-o"))
    (tmp_path / "link.jsonl").symlink_to(table)
    refused("manifest", table, "-o", tmp_path / "link.jsonl", saying=("the table that is read",))
    assert table.read_text() == before
    write_manifest(None, table, tmp_path / "other.jsonl")
    row = json.loads((tmp_path / "other.jsonl").read_text())
    assert row["units"] == [1, 2, 3] and row["codes"] == [[4, 5]]


def test_a_file_of_one_line_is_not_taken_for_torn_results(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    for content in ('[{"audio": "a.wav"}, {"audio": "b.wav"}]', '{"id": "a", "inp'):
        path.write_text(content)
        with pytest.raises(InputError, match="is no result of this command"):
            ResultsFile(path, {"model": "m"})
        assert path.read_text() == content and not path.with_suffix(".request.json").exists()


def test_recordings_behind_links_are_found_and_broken_links_named(corpus: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "en").mkdir(parents=True)
    write_audio(place / "en" / "r.wav", speech(0.5), RATE)
    (place / "de").symlink_to(corpus)
    (corpus / "again").symlink_to(place)  # a circle
    (place / "gone.wav").symlink_to(tmp_path / "nowhere")
    wanted = {"r.wav", "part-01.wav", "part-02.wav", "part-03.wav", "gone.wav"}
    assert {path.name for path in find_recordings(place)} == wanted
    found = recordings([str(place)], "en")
    assert {Path(one.id).name for one in found} == wanted and len(found) == len(wanted)
    lines = "".join(f"{name}\twe buy\n" for name in ("r", "part-01", "gone"))
    (tmp_path / "t.txt").write_text(lines)
    assert write_manifest(place, tmp_path / "t.txt", tmp_path / "m.jsonl").rows == 3


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_in_another_encoding_is_one_message(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    try:
        os.mkdir(folder)
    except OSError:
        pytest.skip("this file system has names in UTF-8 alone")
    write_audio(tmp_path / "a.wav", np.zeros(800, np.float32), RATE)
    (tmp_path / "a.wav").rename(Path(folder, "a.wav"))
    Path(folder, "m.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "we buy", "lang": "en"}) + "\n")
    (tmp_path / "t.txt").write_text("a\twe buy\n")
    with pytest.raises(InputError, match="is not UTF-8; rename"):
        write_manifest(Path(folder), tmp_path / "t.txt", tmp_path / "m.jsonl")
    with pytest.raises(InputError, match="is not UTF-8; rename"):
        read_manifest(Path(folder, "m.jsonl"))
    with pytest.raises(InputError, match="is not UTF-8; rename"):
        prepare_shards([], tokenizers(), Path(folder, "shards"))
    works("manifest", tmp_path / "t.txt", "-o", tmp_path / "ok.jsonl", "--columns", "text=2", "id=1")
