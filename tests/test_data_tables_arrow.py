"""Tables that `datasets` saved, folders of tables, and what preparing and fitting make of odd rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from tests.support.command import unitok, works
from tests.support.tables import check, json_lines, pitch, recordings, tone, written
from tests.support.tiny_model import RATE, tokenizers
from unitok_tokenizers.audio.io import audio_seconds
from unitok_tokenizers.data.held_rows import rows_of
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError

FIRST, SECOND = "Maria says: the chair, red, is here", "where did they clean it"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return recordings(tmp_path)


def audio_table(root: Path, *, inside: bool = True, **more: list[Any]) -> pyarrow.Table:
    """Columns as `datasets` writes them."""
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    cells = [
        {"bytes": (root / name).read_bytes() if inside else None, "path": name if inside else str(root / name)}
        for name in ("a.wav", "b.wav")
    ]
    table = pyarrow.table({"audio": pyarrow.array(cells, kind), "sentence": [FIRST, SECOND], **more})
    features = {"audio": {"_type": "Audio"}, "locale": {"_type": "ClassLabel", "names": ["en", "de"]}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def stream(path: Path, table: pyarrow.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def parquet(path: Path, table: pyarrow.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=1)
    return path


def saved_to_disk(folder: Path, table: pyarrow.Table) -> Path:
    stream(folder / "data-00000-of-00001.arrow", table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    written(folder / "state.json", json.dumps(state))
    written(folder / "dataset_info.json", "{}")
    return folder


WRITERS: dict[str, Callable[[Path, pyarrow.Table], Path]] = {
    "t.arrow": stream,
    "t.parquet": parquet,
    "saved": saved_to_disk,
}


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", WRITERS)
def test_datasets_with_recordings(name: str, inside: bool, root: Path) -> None:
    columns = {"client_id": ["p", "q"], "locale": [1, 1], "path": ["x.mp3", "y.mp3"], "up_votes": [2, 2]}
    source = WRITERS[name](root / name, audio_table(root, inside=inside, **columns))
    rows = check(source, speakers=("p", "q"), lang="de")
    assert rows[0].extras == {"path": "x.mp3", "up_votes": 2} and rows[0].audio is not None
    assert audio_seconds(rows[0].audio) == 0.5 and rows[0].stamp()
    works("manifest", source, "-o", root / "deep" / "m.jsonl")
    check(root / "deep" / "m.jsonl", speakers=("p", "q"), lang="de")
    tokenizers().save(root / "t")
    works("prepare", source, root / "shards", "--tokenizers", root / "t", "--joined-share", 0)
    assert Shards.open(root / "shards").seconds.min() > 0.2


def test_tables_behind_links_keep_their_recordings(root: Path) -> None:
    blob = parquet(root / "blobs" / "t.parquet", audio_table(root)).rename(root / "blobs" / "0a1b2c")
    (root / "snapshot").mkdir()
    (root / "snapshot" / "train.parquet").symlink_to(blob)
    rows = read_manifest(root / "snapshot" / "train.parquet", default_lang="en")
    assert [len(row.load(RATE)) > 0 for row in rows] == [True, True]


def test_splits_of_datasets(root: Path) -> None:
    for split in ("train", "validation"):
        saved_to_disk(root / "dict" / split, audio_table(root))
    written(root / "dict" / "dataset_dict.json", json.dumps({"splits": ["train", "validation"]}))
    assert [row.split for row in read_manifest(root / "dict")] == ["train", "train", "dev", "dev"]
    for split in ("test", "train"):
        parquet(root / "hub" / "data" / f"{split}-00000-of-00001.parquet", audio_table(root))
    rows = read_manifest(root / "hub")
    assert [row.split for row in rows] == ["test", "test", "train", "train"]
    assert [round(pitch(row.load(RATE)) / 200) for row in rows] == [1, 2, 1, 2]


def test_arrow_that_is_not_read(root: Path) -> None:
    table = audio_table(root)
    for bad, named in (
        (table.append_column("speech", table["audio"]), "'audio' and 'speech'"),
        (pyarrow.table({"audio": [[0.1, 0.2]], "text": ["x"]}), "'audio' holds samples"),
        (pyarrow.table({"audio": [{"array": [0.1], "sampling_rate": 16000}], "text": ["x"]}), "'audio' holds samples"),
        (pyarrow.table({"number": [1], "what": ["x"]}), "'number', 'what'"),
    ):
        with pytest.raises(InputError, match=named):
            read_manifest(parquet(root / "bad.parquet", bad))
    check(parquet(root / "two.parquet", table.append_column("speech", table["audio"])), columns={"audio": "speech"})
    written(root / "cut.parquet", "PAR1 nothing")
    with pytest.raises(InputError, match="cannot read table .*cut.parquet"):
        read_manifest(root / "cut.parquet")


def test_datasets_itself(root: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the `data` extra saves data sets")
    values = {"audio": [str(root / "a.wav"), str(root / "b.wav")], "sentence": [FIRST, SECOND], "client_id": ["p", "q"]}
    made = datasets.Dataset.from_dict(values).cast_column("audio", datasets.Audio())
    made.save_to_disk(str(root / "saved"))
    check(root / "saved", speakers=("p", "q"))


# -- folders ------------------------------------------------------------------------------------------------------


def test_folders(root: Path) -> None:
    folder = root / "lj"
    folder.mkdir()
    (root / "wavs").rename(folder / "wavs")
    written(folder / "metadata.csv", f"a|{FIRST}|{FIRST}\nb|{SECOND}|{SECOND}\n")
    check(folder)
    json_lines(folder / "metadata.jsonl", {"file_name": "wavs/a.wav", "text": FIRST})
    with pytest.raises(InputError, match=r"several tables, metadata.jsonl and metadata.csv"):
        read_manifest(folder)
    with pytest.raises(InputError, match="no manifest .*no table"):
        read_manifest(root / "clips")


# -- short, long ----------------------------------------------------------------------------------------------------


def clicks_and_hours(root: Path) -> Path:
    """A manifest of three usual recordings, two of a click or less, and one that is too long."""
    soundfile.write(root / "click.wav", tone(200, 0.005), RATE)
    soundfile.write(root / "sample.wav", tone(200)[:1], RATE)
    with soundfile.SoundFile(root / "long.wav", "w", RATE, 1, "PCM_16") as file:
        for _ in range(100):
            file.write(tone(300, 1.0))
    rows = [{"audio": f"{name}.wav", "text": f"we buy {name}"} for name in ("a", "b", "click", "sample", "long", "ab")]
    return json_lines(root / "m.jsonl", *rows)


def test_preparing_counts_clicks_and_hours(root: Path) -> None:
    source = clicks_and_hours(root)
    tokenizers().save(root / "t")
    shards = json.loads(works("prepare", source, root / "out", "--tokenizers", root / "t", "--joined-share", 0))
    assert shards["rows"] == 3 and shards["skipped"] == {"longer than max_seconds": 1, "too short": 2}


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["ctc", "mfcc"])
def test_fitting_counts_clicks_and_hours(encoder: str, root: Path) -> None:
    source = clicks_and_hours(root)
    small = ("--clusters", 4, "--codec-steps", 0, "--text-pieces", 300)
    small += ("--encoder-steps", 2) if encoder == "ctc" else ()
    ended = unitok("fit-tokenizers", source, root / encoder, "--encoder", encoder, *small)
    assert ended.code == 0, ended
    assert "2 recordings are shorter than 0.025 s" in ended.err and "such as 0000003" in ended.err
    assert "1 recordings are longer than 60 s, such as 0000005" in ended.err


def test_a_long_row_is_not_held(root: Path) -> None:
    import tracemalloc

    from unitok_training.fitting.tokenizers import fitting_rows

    with soundfile.SoundFile(root / "long.wav", "w", RATE, 1, "PCM_16") as file:
        for _ in range(900):
            file.write(tone(300, 1.0))
    (row,) = read_manifest(json_lines(root / "m.jsonl", {"audio": "long.wav", "text": "x"}))
    assert row.length() == 900.0
    tracemalloc.start()
    beginning = row.load(RATE, most_seconds=10.0)
    (middle,) = fitting_rows([row]).rows
    part = middle.load(RATE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(beginning) == 10 * RATE and len(part) == 60 * RATE and middle.text is None and middle.offset == 420.0
    assert peak < 20e6, "all of it would be 58 MB"


def test_splits_are_what_their_names_begin_with(root: Path) -> None:
    kinds = {"train": "train", "test": "test", "validation": "dev", "test.other-00000-of-00001": "test"}
    kinds |= {
        "data-00000-of-00002": "train",
        "held-00000-of-00002": "held",
        "test_seen-00000-of-00001": "test_seen",
        "codec-00000-of-00001": "codec",
        "heldout-00000-of-00001-5c1d09aa83e2b7f4": "heldout",
        "test_seen-00000-of-00001-a09b74b3ef9c3b56": "test_seen",
    }
    for name in kinds:
        parquet(root / "files" / f"{name}.parquet", pyarrow.table({"text": [f"said in {name}"]}))
    assert {row.text: row.split for row in read_manifest(root / "files")} == {
        f"said in {name}": split for name, split in kinds.items()
    }
    names = ["train.clean.100", "test_clean", "validation", "test_seen", "spare"]
    for name in names:
        saved_to_disk(root / "dict" / name, pyarrow.table({"text": [name]}))
    written(root / "dict/dataset_dict.json", json.dumps({"splits": names}))
    found = {row.text: row.split for row in read_manifest(root / "dict")}
    assert found == dict(zip(names, ("train", "test", "dev", "test_seen", "spare")))


def test_a_second_column_of_recordings_is_left_out(root: Path, tmp_path: Path) -> None:
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    pictures = pyarrow.array([{"bytes": b"png", "path": "p.png"}] * 2, kind)
    dates = pyarrow.array([[datetime(2020, 1, 2)], []], pyarrow.list_(pyarrow.timestamp("s")))
    table = audio_table(root, picture=pictures, days=dates)
    rows = read_manifest(parquet(root / "t.parquet", table))
    assert [dict(row.extras) for row in rows] == [{"days": ["2020-01-02 00:00:00"]}, {"days": []}]
    tokenizers().save(tmp_path / "t")
    works("prepare", root / "t.parquet", tmp_path / "s", "--tokenizers", tmp_path / "t")
    told = rows_of([{"audio": {"bytes": (root / "a.wav").read_bytes(), "path": None}, "more": {"bytes": b"x"}}])
    assert [dict(row.extras) for row in told] == [{}]


def test_recordings_that_datasets_has_not_decoded(root: Path) -> None:
    (row,) = rows_of([{"audio": {"bytes": None, "path": str(root / "a.wav")}, "text": "hi"}])
    assert row.audio == root / "a.wav"
    with pytest.raises(InputError, match="audio has"):
        list(rows_of([{"audio": {"bytes": None, "path": None}, "text": "hi"}]))


def test_a_split_that_was_not_copied_is_missed(root: Path) -> None:
    (root / "dd").mkdir()
    (root / "dd" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    saved_to_disk(root / "dd" / "train", audio_table(root))
    with pytest.raises(InputError, match="names the split 'test', which is not there"):
        read_manifest(root / "dd")
    for content in ("{}", '{"splits": 1}'):
        (root / "dd" / "dataset_dict.json").write_text(content)
        with pytest.raises(InputError, match="has no list 'splits'"):
            read_manifest(root / "dd")
    for content in ("{}", '{"_data_files": [{}]}'):
        (root / "dd" / "train" / "state.json").write_text(content)
        with pytest.raises(InputError, match=r"state\.json"):
            read_manifest(root / "dd" / "train")


def test_texts_whose_writer_did_not_mark_them_are_texts(root: Path) -> None:
    plain = audio_table(root).drop(["sentence"])
    texts = pyarrow.array([FIRST.encode(), "wo séubern".encode()], pyarrow.binary())
    names = pyarrow.array([b"p", b"q"], pyarrow.binary())
    table = plain.append_column("text", texts).append_column("speaker", names)
    found = read_manifest(parquet(root / "t.parquet", table))
    assert [(row.text, row.speaker) for row in found] == [(FIRST, "p"), ("wo séubern", "q")]
    wrong = plain.append_column("text", pyarrow.array([b"a", b"caf\xe9"], pyarrow.binary()))
    with pytest.raises(InputError, match=r"\[1\]: column 'text' holds bytes that are no text"):
        read_manifest(parquet(root / "w.parquet", wrong))
    marked = pyarrow.array([b"a", b"caf\xe9"], pyarrow.binary()).view(pyarrow.string())
    for path in (parquet(root / "u.parquet", plain.append_column("text", marked)),
                 stream(root / "u.arrow", plain.append_column("text", marked))):  # fmt: skip
        with pytest.raises(InputError, match=path.name):
            read_manifest(path)


def test_other_kinds_of_bytes_are_recordings_too(root: Path) -> None:
    contents = [(root / name).read_bytes() for name in ("a.wav", "b.wav")]
    size = min(map(len, contents))
    for kind in (pyarrow.binary_view(), pyarrow.binary(size)):
        cells = contents if kind == pyarrow.binary_view() else [one[:size] for one in contents]
        table = pyarrow.table({"audio": pyarrow.array(cells, kind), "text": [FIRST, SECOND]})
        rows = read_manifest(stream(root / f"{kind}.arrow".replace("[", "").replace("]", ""), table))
        assert [len(row.load(RATE)) > 0 for row in rows] == [True, True]
