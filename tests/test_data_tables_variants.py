"""Tables as further tools write them: their names of columns, quotes, paths and times."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from tests.support.tables import FIRST, SECOND, check, json_lines, recordings, tone, written
from tests.support.tiny_model import RATE
from unitok_tokenizers.data.held_rows import rows_of
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return recordings(tmp_path)


@pytest.mark.parametrize("text", ["txt", "wrd"])
def test_wenet_and_speechbrain_name_the_text_in_three_letters(text: str, root: Path) -> None:
    rows = [{"key": name, "wav": f"{name}.wav", text: said} for name, said in (("a", FIRST), ("b", SECOND))]
    assert [row.id for row in check(json_lines(root / "m.jsonl", *rows))] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"audio": "a.wav", "said": "今天天气很好我们去公园"}, "said"),
        ({"audio": "a.wav", "was": "สวัสดีครับผมชื่อสมชาย"}, "was"),
        ({"audio": "a.wav", "tgt": "hello you"}, "tgt"),
        ({"audio": "a.wav", "content": "yes please"}, "content"),
        ({"path": "a.wav", "translation": "ja bitte"}, "translation"),
    ],
)
def test_a_text_of_no_known_name_is_refused_in_every_script(row: dict[str, Any], column: str, root: Path) -> None:
    with pytest.raises(InputError, match=f"'{column}' looks like the text.*--columns text="):
        read_manifest(json_lines(root / "m.jsonl", row))


@pytest.mark.parametrize(
    "more",
    [
        {"ref_audio": "b.wav"}, {"txt_path": "a.txt"}, {"reference": "CC-BY"}, {"content": "speech"}, {"tgt": "de"},
        {"city": "北京市"}, {"device": "安卓手机"}, {"nbest": [{"text": "hi", "score": -1}]},
    ],
)  # fmt: skip
def test_what_is_no_text_stays_beside_a_recording(more: dict[str, Any], root: Path) -> None:
    if "ref_audio" in more:
        with pytest.raises(InputError, match="'ref_audio'|could all be"):
            read_manifest(json_lines(root / "m.jsonl", {"text": FIRST, **more}))
    (row,) = read_manifest(json_lines(root / "m.jsonl", {"audio": "a.wav", **more}))
    assert row.text is None and dict(row.extras) == more


@pytest.mark.parametrize("times", [{"begin_time": 158.3, "end_time": 160.3}, {"start": 0.2, "end": 0.7}])
def test_a_recording_inside_a_table_is_not_cut_again(times: dict[str, float], root: Path) -> None:
    """MLS, AMI and GigaSpeech say where in a book or a meeting an utterance was."""
    sound = io.BytesIO()
    soundfile.write(sound, tone(200), RATE, format="FLAC")
    record = {"audio": {"bytes": sound.getvalue(), "path": "a.flac"}, "text": FIRST, **times}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), root / "t.parquet")
    for (row,) in (read_manifest(root / "t.parquet"), list(rows_of([record]))):
        assert row.offset == 0 and row.seconds is None and len(row.load(RATE)) == RATE // 2
        assert dict(row.extras) == times
    if "start" in times:  # what is chosen is heeded, and what is ours
        for given, names, wanted in (
            (record, {"offset": "start"}, (0.2, 0.5)), (record, {"end": "end"}, (0.2, 0.5)),
            ({**record, "end": 0.4, "start": None, "offset": 0.1}, {}, (0.1, 0.3)),
        ):  # fmt: skip
            (row,) = rows_of([given], columns=names)
            assert (row.offset, row.seconds) == pytest.approx(wanted)


def test_no_offset_means_no_end_either(root: Path) -> None:
    row = {"audio": "a.wav", "text": FIRST, "begin_time": 158.3, "end_time": 160.3}
    (found,) = read_manifest(json_lines(root / "m.jsonl", row), columns={"offset": "-"})
    assert found.seconds is None and found.extras["end"] == 160.3


@pytest.mark.parametrize("mark", ["\t", "|"])
@pytest.mark.parametrize("header", [True, False])
def test_a_table_of_which_all_is_quoted(mark: str, header: bool, root: Path) -> None:
    """R's `write.table`, and pandas with QUOTE_ALL."""
    rows = [("path", "sentence")] * header + [("a.wav", FIRST), ("b.wav", SECOND)]
    text = "".join(mark.join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    check(written(root / ("m.tsv" if mark == "\t" else "m.csv"), text))


@pytest.mark.parametrize("lang", ["English", "english", "en"])
def test_a_language_by_its_name_is_its_code(lang: str, root: Path) -> None:
    rows = [{"audio": f"{name}.wav", "text": said, "language": lang} for name, said in (("a", FIRST), ("b", SECOND))]
    check(json_lines(root / "m.jsonl", *rows))
    (row,) = read_manifest(json_lines(root / "o.jsonl", {"text": "x"}), default_lang="english")
    assert row.lang == "english", "what is said by hand is taken as it is"
    for code in ("en_US", "eng"):
        (row,) = read_manifest(json_lines(root / "n.jsonl", {"text": "x", "lang": code}))
        assert row.lang == code


@pytest.mark.parametrize("above", [False, True])
def test_paths_count_from_where_a_recipe_runs(above: bool, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kaldi's and ESPnet's, and Lhotse's: from the folder of `run.sh`, not from the table's."""
    folder = root / "data" / "train"
    written(folder / "wav.scp", "u1 wavs/a.wav\nu2 cat wavs/b.wav |\n")
    written(folder / "text", f"u1 {FIRST}\nu2 {SECOND}\n")
    source = {"type": "file", "channels": [0]}
    cuts = [
        {"id": name, "start": 0.0, "duration": 0.5, "channel": 0, "type": "MonoCut",
         "supervisions": [{"id": name, "recording_id": name, "start": 0.0, "duration": 0.5, "text": said}],
         "recording": {"id": name, "sources": [{**source, "source": f"wavs/{name}.wav"}], "sampling_rate": RATE,
                       "num_samples": RATE // 2, "duration": 0.5}}
        for name, said in (("a", FIRST), ("b", SECOND))
    ]  # fmt: skip
    json_lines(folder / "cuts.jsonl", *cuts)
    monkeypatch.chdir(root / "clips" if above else root)
    check(folder)
    check(folder / "cuts.jsonl")
    near = folder / "near"  # a name without a folder is never looked for elsewhere
    written(near / "wav.scp", "u1 a.wav\n")
    (near / "wavs").mkdir()
    (near / "wavs" / "a.wav").write_bytes((root / "a.wav").read_bytes())
    assert [row.audio for row in read_manifest(near)] == [near / "wavs" / "a.wav"]


def test_a_tab_within_a_text_of_kaldi_parts_nothing(root: Path) -> None:
    written(root / "k" / "wav.scp", "u1\t../a.wav\nu2 ../b.wav\n")
    written(root / "k" / "text", "u1 HELLO\tYOU\nu2  TWO\n")
    assert [(row.id, row.text) for row in read_manifest(root / "k")] == [("u1", "HELLO\tYOU"), ("u2", "TWO")]


@pytest.mark.parametrize("rows", ["a.wav,speech\nb.wav,music\n", "a.wav,stop\nb.wav,go\n"])
def test_the_name_of_a_file_is_no_header(rows: str, root: Path) -> None:
    words = [line.split(",")[1] for line in rows.split()]
    assert [row.text for row in read_manifest(written(root / "m.csv", rows))] == words
    source = written(root / "m.tsv", "a.wav\ttext\nb.wav\thello you\n")
    for columns in ({}, {"audio": "1", "text": "2"}):
        assert [row.text for row in read_manifest(source, columns=columns)] == ["text", "hello you"]
    named = written(root / "n.csv", f"path;text;file.wav\na.wav;{FIRST};x\nb.wav;{SECOND};y\n")
    assert [dict(row.extras) for row in check(named)] == [{"file.wav": "x"}, {"file.wav": "y"}]
    partly = written(root / "p.psv", f'"LJ001"|"{FIRST}"\nLJ002|"Two" x\n')
    assert [row.text for row in read_manifest(partly)] == [f'"{FIRST}"', '"Two" x']


@pytest.mark.parametrize("told", ["sep=;", '"sep=;"'])
def test_what_a_spreadsheet_says_of_the_separator_is_no_row(told: str, root: Path) -> None:
    check(written(root / "m.csv", f"{told}\npath;sentence\na.wav;{FIRST}\nb.wav;{SECOND}\n"))
    with pytest.raises(InputError, match="m.csv:4: fewer fields"):
        read_manifest(written(root / "m.csv", f"{told}\npath;sentence\na.wav;{FIRST}\nb.wav\n"))


@pytest.mark.parametrize(
    "row",
    [
        {"text": "hi you", "segments": [{"start": 0, "end": 0.5, "text": "hi"}], "language": "en"},
        {"audio": "a.wav", "segments": [{"start": 0, "end": 0.5, "text": "hi"}]},
        {"audio": "a.wav", "chunks": [{"timestamp": [0, 0.5], "text": "hi"}]},
    ],
)
def test_utterances_within_a_row_are_not_left_out(row: dict[str, Any], root: Path) -> None:
    with pytest.raises(InputError, match="holds utterances with times"):
        read_manifest(json_lines(root / "m.jsonl", row))
    (left,) = read_manifest(json_lines(root / "o.jsonl", {**row, "audio": "a.wav"}), columns={"text": "-"})
    assert left.text is None and left.extras
    whole = {"audio": "a.wav", "text": "hi", "segments": [{"start": 0.0, "end": 0.5, "text": "hi"}]}
    (found,) = read_manifest(json_lines(root / "n.jsonl", whole))
    assert found.text == "hi" and np.isclose(found.length(), 0.5)
