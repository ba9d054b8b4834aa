"""Shards are one function of their input: however many processes read, write parts, or are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command import unitok
from tests.support.launching import runs
from tests.support.recordings import FatalRow
from tests.support.tiny_model import RATE, speech, tokenizers
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.data import prepare, reading
from unitok_tokenizers.data.held_rows import HeldRow, rows_of
from unitok_tokenizers.data.joined_rows import joined_rows
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.prepare import Preparation, prepare_shards
from unitok_tokenizers.data.reading import Readers
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import sha256_file
from unitok_tokenizers.tokenizer_set import TokenizerSet

ROWS = 11


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for number in range(ROWS):
        rate = (RATE, 22050, 48000)[number % 3]
        write_audio(folder / f"{number}.flac", np.resize(speech(0.9, seed=number), round((0.4 + 0.07 * number) * rate)),
                    rate)  # fmt: skip
        row = {"audio": f"{number}.flac", "text": "we buy two books now", "speaker": ("anna", "ben")[number % 2]}
        lines.append(json.dumps({**row, "id": f"r{number}", "lang": "en", "group": f"g{number // 2}"}))
    (folder / "m.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "m.jsonl"


@pytest.fixture(scope="module")
def bundle() -> TokenizerSet:
    return tokenizers()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "PART_ROWS", 3)


def digest(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


# -- several processes --------------------------------------------------------------------------------------------


def test_three_ranks_and_a_join_give_the_folder_of_one_process(
    manifest: Path, bundle: TokenizerSet, tmp_path: Path
) -> None:
    def work(out: Path) -> Preparation:
        return Preparation(rows=read_manifest(manifest), tokenizers=bundle, out=out, joined_share=0.8)

    one, many = tmp_path / "one", tmp_path / "many"
    work(one).shards()
    assert work(many).share(2, 3).files == ("part-00002.arrow", "part-00005.arrow")
    with pytest.raises(InputError, match=r"5 of 7 parts are missing.*part-00000\.arrow.*part-00006.*rank 0, 1 of 3"):
        work(many).joined(3)
    first = work(many).share(0, 3)
    kept = (many / "part-00003.arrow").stat().st_mtime_ns
    assert work(many).share(0, 3) == first and (many / "part-00003.arrow").stat().st_mtime_ns == kept
    (many / ".part-00001.arrow.part").write_bytes(b"of a killed process")
    work(many).share(1, 3)
    assert not (many / "manifest.json").exists(), "a rank does not say that all is there"
    work(many).joined(3)
    assert digest(many) == digest(one)
    (many / "part-00004.arrow").unlink()
    with pytest.raises(InputError, match=r"1 of 7 .*part-00004\.arrow; run rank 1 of 3"):
        work(many).joined(3)
    with pytest.raises(InputError, match="ranks count from 0 to 2"):
        work(many).share(3, 3)


def test_parts_of_other_rows_are_not_joined(manifest: Path, bundle: TokenizerSet, tmp_path: Path) -> None:
    rows = read_manifest(manifest)
    Preparation(rows=rows, tokenizers=bundle, out=tmp_path).share(0, 1)
    with pytest.raises(InputError, match="4 of 4 parts .* of other rows"):
        Preparation(rows=list(reversed(rows)), tokenizers=bundle, out=tmp_path).joined(1)


def test_rank_and_world_on_the_command_line(manifest: Path, bundle: TokenizerSet, tmp_path: Path) -> None:
    bundle.save(tmp_path / "tokenizers")
    words = ("prepare", manifest, tmp_path / "out", "--tokenizers", tmp_path / "tokenizers")
    for rank in (1, 0):
        ended = unitok(*words, "--rank", rank, "--world", 2)
        assert ended.code == 0 and json.loads(ended.out)["rank"] == rank, ended
    ended = unitok(*words, "--world", 2)
    assert ended.code == 0 and len(Shards.open(tmp_path / "out", check=True)) >= ROWS
    assert "add --world" in unitok(*words, "--rank", 0).err
    assert "--workers changes nothing" in unitok(*words, "--world", 2, "--workers", 3).err
    assert "workers is -1" in unitok(*words, "--workers", -1).err


# -- reading processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, manifest: Path, bundle: TokenizerSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_manifest(manifest)
    prepare_shards(rows, bundle, tmp_path / "none", joined_share=0.8)
    monkeypatch.setattr(reading, "AHEAD_SECONDS", 0.5)  # a recording: every other one waits for its turn
    prepare_shards(rows, bundle, tmp_path / "some", joined_share=0.8, workers=workers)
    assert digest(tmp_path / "some") == digest(tmp_path / "none")


def test_no_more_is_held_than_was_said(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "AHEAD_SECONDS", 1.0)
    rows = read_manifest(manifest) * 4
    with Readers(2) as readers:
        taken = readers.begin(rows, RATE, most_seconds=60.0)
        next(taken)
        deadline = time.monotonic() + 30
        while readers._held < 1.0 and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
        assert 1.0 <= readers._held <= 1.0 + 2 * max(row.length() for row in rows)
        assert len(list(taken)) == len(rows) - 1 and readers._held == pytest.approx(0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_refused_by_its_row_or_counted(
    workers: int, manifest: Path, bundle: TokenizerSet, tmp_path: Path
) -> None:
    rows = read_manifest(manifest)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    rows[4] = Row(id="broken", group="b", lang="en", text="no", audio=tmp_path / "bad.wav")
    rows[7] = Row(id="gone", group="b", lang="en", text="no", audio=tmp_path / "none.wav")
    with pytest.raises(InputError, match=r"row broken: .*bad\.wav"):
        prepare_shards(rows, bundle, tmp_path / "s", workers=workers)
    shards = prepare_shards(rows, bundle, tmp_path / "s", workers=workers, keep_unreadable=True)
    assert shards.manifest["skipped"] == {"unreadable": 2} and len(shards) == ROWS - 2


def test_a_process_that_dies_costs_nothing(manifest: Path) -> None:
    """Killed from without, as for want of memory: the row that it had is read by another, like those that follow."""
    rows = read_manifest(manifest)
    with Readers(1) as readers:
        taken = readers.begin(rows, RATE, most_seconds=60.0)
        next(taken)
        (process,) = readers._processes
        os.kill(process._process.pid, signal.SIGKILL)
        assert all(isinstance(one, np.ndarray) for one in taken) and len(readers._processes) == 1


def test_a_row_that_ends_its_process_is_one_message(manifest: Path) -> None:
    rows = read_manifest(manifest)
    rows[2] = FatalRow(**{one.name: getattr(rows[2], one.name) for one in fields(Row)})
    with Readers(1) as readers:
        found = list(readers.begin(rows[:5], RATE, most_seconds=60.0))
    assert [isinstance(one, InputError) for one in found] == [False, False, True, False, False]
    assert "row r2: two processes" in str(found[2]) and "ended, the last with 9" in str(found[2])
    assert "--workers 0" in str(found[2])


def test_what_was_left_out_is_looked_at_again_where_nothing_is_to_be(
    manifest: Path, bundle: TokenizerSet, tmp_path: Path
) -> None:
    rows = read_manifest(manifest)[:4]
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    rows[3] = replace(rows[3], audio=tmp_path / "bad.wav")
    kept = prepare_shards(rows, bundle, tmp_path / "s", keep_unreadable=True)
    assert kept.manifest["skipped"] == {"unreadable": 1}
    with pytest.raises(InputError, match="r3"):
        prepare_shards(rows, bundle, tmp_path / "s")


def test_joined_rows_are_read_elsewhere_as_here(manifest: Path) -> None:
    rows = joined_rows(read_manifest(manifest), 1.0, seed=0)
    with Readers(2) as readers:
        for row, found in zip(rows, readers.begin(rows, RATE, most_seconds=60.0), strict=True):
            assert isinstance(found, np.ndarray) and np.array_equal(found, row.load(RATE, most_seconds=60.0))


LONG = """
import sys, time
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.reading import Readers
with Readers(2) as readers:
    taken = readers.begin(read_manifest(sys.argv[1]) * 50, 16000, most_seconds=60.0)
    next(taken)
    print(*(one._process.pid for one in readers._processes), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_however_the_parent_ends_no_process_is_left(how: signal.Signals, manifest: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", LONG, str(manifest)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=environment,
    )  # fmt: skip
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2 and all(Path(f"/proc/{child}").exists() for child in children)
    parent.send_signal(how)
    parent.wait(20)
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if runs(child)]


# -- rows as they come --------------------------------------------------------------------------------------------


def records(manifest: Path) -> list[dict[str, Any]]:
    """What `datasets` gives of the corpus, decoded."""
    found = []
    for row in read_manifest(manifest):
        assert row.audio is not None
        import soundfile

        samples, rate = soundfile.read(row.audio, dtype="float32")
        audio = {"path": None, "array": samples, "sampling_rate": rate}
        found.append({"audio": audio, "sentence": row.text, "id": row.id, "speaker": row.speaker, "note": 3})
    return found


def test_rows_come_one_by_one_from_datasets(
    manifest: Path, bundle: TokenizerSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset

    there = records(manifest)[:7]
    names = ["ben", "anna"]
    for one in there:
        one["audio"] = {**one["audio"], "array": one["audio"]["array"].tolist()}
    data = Dataset.from_list(there)

    def rows(source: Any) -> Iterator[Row]:
        return rows_of(source, default_lang="en")

    assert names[0] in {row.speaker for row in rows(data)}
    shards = prepare_shards(rows(data), bundle, tmp_path / "a", workers=2)
    assert len(shards) == 7 and [file["rows"] for file in shards.manifest["files"]] == [3, 3, 1]
    prepare_shards(list(rows(data)), bundle, tmp_path / "b")
    prepare_shards(rows(data.to_iterable_dataset()), bundle, tmp_path / "c")
    for rank in range(2):
        Preparation(rows=rows(there), tokenizers=bundle, out=tmp_path / "d").share(rank, 2)
    Preparation(rows=rows(there), tokenizers=bundle, out=tmp_path / "d").joined(2)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") == digest(tmp_path / "c") == digest(tmp_path / "d")
    files = prepare_shards(read_manifest(manifest), bundle, tmp_path / "files")
    same = [index for index in range(7) if index % 3 == 0]  # at the tokenizers' own rate nothing is resampled
    assert all(np.array_equal(files.codes(index), shards.codes(index)) for index in same)
    assert shards.row(0)["extras"] == {"note": 3} and shards.row(0)["audio"] == ""
    monkeypatch.setattr(prepare, "PART_BYTES", 4 * RATE)
    few = prepare_shards(rows(there), bundle, tmp_path / "few")
    assert len(few.manifest["files"]) > 3 and few.id.tolist() == shards.id.tolist()


def test_undecoded_recordings_and_labels_of_datasets(manifest: Path) -> None:
    from datasets import Audio, ClassLabel, Dataset

    paths = [row.audio for row in read_manifest(manifest)][:4]
    columns = {"audio": [{"bytes": path.read_bytes(), "path": None} for path in paths if path], "text": ["a"] * 4}
    data = Dataset.from_dict({**columns, "speaker": [0, 1, 1, 0]})
    data = data.cast_column("speaker", ClassLabel(names=["x", "y"])).cast_column("audio", Audio(decode=False))
    rows = list(rows_of(data))
    assert [row.speaker for row in rows] == ["x", "y", "y", "x"] and all(isinstance(row, HeldRow) for row in rows)
    for row, path in zip(rows, paths, strict=True):
        assert path is not None
        assert np.array_equal(row.load(RATE), read_audio(path, sample_rate=RATE))
        assert row.length() == pytest.approx(len(row.load(RATE)) / RATE, abs=1e-3)
        assert np.array_equal(row.load(RATE, most_seconds=0.2), read_audio(path, sample_rate=RATE)[: round(0.2 * RATE)])


def test_a_part_of_what_is_held(manifest: Path) -> None:
    sound = speech(1.0, seed=1)
    audio = {"array": np.stack([sound, 0.5 * sound]), "sampling_rate": RATE}
    (row,) = rows_of([{"audio": audio, "text": "a", "offset": 0.25, "duration": 0.5}])
    assert np.allclose(row.load(RATE), 0.75 * sound[RATE // 4 : 3 * RATE // 4]) and row.length() == 0.5
    assert len(row.load(RATE, most_seconds=0.1)) == RATE // 10
    (row,) = rows_of([{"audio": audio, "text": "a", "offset": 0.25, "duration": 9.0}])
    with pytest.raises(InputError, match=r"row 0000001: its recording has 1\.00 s"):
        row.load(RATE)


@pytest.mark.parametrize(
    ("audio", "said"),
    [
        ({"array": [0.1, 0.2]}, "sampling_rate is None"),
        ({"array": [1, 2, 3], "sampling_rate": 16000}, "array is int64"),
        ({"array": np.zeros((9, 2)), "sampling_rate": 16000}, r"shape \(9, 2\)"),
        ({"bytes": b"", "path": None}, "no bytes"),
        ({"samples": [0.1]}, "'samples'"),
    ],
)
def test_what_is_no_recording_is_refused(audio: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"row 0 of the data set: .*{said}"):
        list(rows_of([{"audio": audio, "text": "a"}]))


def test_columns_of_no_known_name_are_refused_of_rows_in_memory() -> None:
    with pytest.raises(InputError, match="names 'transcript'; known"):
        list(rows_of([{"sentence": "hello there"}], columns={"transcript": "sentence"}))


def test_what_needs_all_rows_is_refused_of_rows_as_they_come(bundle: TokenizerSet, tmp_path: Path) -> None:
    one = {"text": "a dog", "id": "x"}
    with pytest.raises(InputError, match="a joined share needs all rows"):
        prepare_shards(rows_of([one]), bundle, tmp_path, joined_share=0.1)
    with pytest.raises(InputError, match="'x' came before"):
        prepare_shards(rows_of([one, one]), bundle, tmp_path)
    with pytest.raises(InputError, match="no rows came"):
        prepare_shards(rows_of([]), bundle, tmp_path)
    with pytest.raises(InputError, match="describe the stream"):
        prepare_shards(rows_of([{**one, "hubert": [1, 2]}], streams=["hubert"]), bundle, tmp_path)
