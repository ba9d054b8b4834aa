"""Tables of other tools: text, audio, speaker and language of every row, or a refusal that names the column.

Each layout is written as its tool writes it; the recordings are two tones that can be told apart.
"""

from __future__ import annotations

import gzip
import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from tests.support.command import refused, unitok, works
from tests.support.tiny_model import RATE, tokenizers
from unitok_tokenizers.audio.io import audio_seconds
from unitok_tokenizers.data.manifest import Row, read_manifest
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.data.transcripts import ManifestOptions, write_manifest
from unitok_tokenizers.errors import InputError

FIRST, SECOND = "Maria says: the chair, red, is here", "where did they clean it"


def tone(hertz: float, seconds: float = 0.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """The loudest frequency in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`a` of 200 Hz and `b` of 400 Hz, beside the table, in `wavs`, in `clips`; and one after the other in `ab`."""
    for place in (".", "wavs", "clips"):
        (tmp_path / place).mkdir(exist_ok=True)
        for name, hertz in (("a", 200), ("b", 400)):
            soundfile.write(tmp_path / place / f"{name}.wav", tone(hertz), RATE)
    soundfile.write(tmp_path / "clips" / "c.mp3", tone(400), RATE)
    soundfile.write(tmp_path / "ab.wav", np.concatenate([tone(200), tone(400)]), RATE)
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def json_lines(path: Path, *rows: dict[str, Any]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
        return path
    return written(path, text)


def check(source: Path, *, speakers: tuple[str, str] = ("", ""), lang: str = "en", **options: Any) -> list[Row]:
    """Two rows, which say the two sentences with the two tones."""
    rows = read_manifest(source, **options)
    assert [row.text for row in rows] == [FIRST, SECOND]
    assert [round(pitch(row.load(RATE)) / 200) for row in rows] == [1, 2]
    assert tuple(row.speaker for row in rows) == speakers and {row.lang for row in rows} == {lang}
    return rows


# -- JSON Lines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.jsonl.gz", "m.ndjson", "m.txt"])
def test_nemo(root: Path, name: str) -> None:
    rows = (
        {"audio_filepath": "a.wav", "duration": 0.5, "text": FIRST, "lang": "de", "speaker": 7},
        {"audio_filepath": "ab.wav", "offset": 0.5, "duration": 0.5, "text": SECOND, "lang": "de", "speaker": 8.0},
    )
    found = check(json_lines(root / name, *rows), speakers=("7", "8"), lang="de")
    assert found[1].offset == 0.5 and not found[0].extras


def test_a_json_list_of_objects(root: Path) -> None:
    rows = [{"file_name": "a.wav", "transcription": FIRST}, {"file_name": "b.wav", "transcription": SECOND}]
    check(written(root / "m.json", json.dumps(rows, indent=1)))


AUDIO = (
    "audio",
    "audio_filepath",
    "audio_path",
    "path",
    "file",
    "file_name",
    "wav",
    "wav_filename",
    "Audio File",
    "AUDIO",
)
TEXT = ("text", "transcript", "transcription", "sentence", "normalized_text", "raw_text", "Text", "Transcript")


@pytest.mark.parametrize("audio", AUDIO)
@pytest.mark.parametrize("text", TEXT)
def test_names_of_columns(audio: str, text: str, root: Path) -> None:
    rows = [{audio: f"{name}.wav", text: said, "colour": "red"} for name, said in (("a", FIRST), ("b", SECOND))]
    found = check(json_lines(root / "m.jsonl", *rows))
    assert found[0].extras == {"colour": "red"}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (
            {"audio": "a.wav", "transcript": FIRST, "sentence": SECOND},
            ("'transcript'", "'sentence'", "--columns text="),
        ),
        ({"path": "a.wav", "file": "b.wav", "text": FIRST}, ("'path'", "'file'", "--columns audio=")),
        ({"text": FIRST, "audio_stereo_mix": "a.wav"}, ("'audio_stereo_mix'", "--columns audio=")),
        ({"text": FIRST, "take": "a.WAV"}, ("'take'", "--columns audio=")),
        ({"text": FIRST, "movie": "a.m4a"}, ("'movie'", "--columns audio=")),
        ({"audio": "a.wav", "asr_transcript": FIRST}, ("'asr_transcript'", "--columns text=")),
        ({"audio": "a.wav", "what": "it is said like this"}, ("'what'", "--columns text=")),
        ({"name": "a", "said": "b"}, ("'name'", "'said'", "neither audio nor text")),
        ({"audio": {"array": [0.1], "sampling_rate": 16000}, "text": FIRST}, ("audio is", "array")),
        ({"audio": "a.wav", "text": 2.93}, ("text is 2.93", "string")),
        (
            {"audio_filepath": "a.wav", "text": FIRST, "source_lang": "en", "target_lang": "de"},
            ("'target_lang'", "'de'"),
        ),
    ],
)
def test_what_is_not_understood_is_refused(row: dict[str, Any], named: tuple[str, ...], root: Path) -> None:
    source = json_lines(root / "m.jsonl", row)
    tokenizers().save(root / "t")
    refused("prepare", source, root / "out", "--tokenizers", root / "t", saying=(f"{source}:1", *named))
    refused("fit-tokenizers", source, root / "fit", saying=(f"{source}:1", *named))


def test_columns_that_are_chosen(root: Path) -> None:
    rows = [
        {"clip name": f"{name}.wav", "transcript": said, "sentence": "not this one", "who": "p"}
        for name, said in (("a", FIRST), ("b", SECOND))
    ]
    source = json_lines(root / "m.jsonl", *rows)
    chosen = {"audio": "clip name", "text": "transcript", "speaker": "who"}
    found = check(source, speakers=("p", "p"), columns=chosen)
    assert found[0].extras == {"sentence": "not this one"}
    tokenizers().save(root / "t")
    words = [f"{ours}={theirs}" for ours, theirs in chosen.items()]
    works("prepare", source, root / "out", "--tokenizers", root / "t", "--joined-share", 0, "--columns", *words)
    assert Shards.open(root / "out").text == [FIRST, SECOND]
    with pytest.raises(InputError, match="no column 'nothing' for text.*'transcript'"):
        read_manifest(source, columns={"text": "nothing"})
    with pytest.raises(InputError, match="--columns names 'colour'"):
        read_manifest(source, columns={"colour": "who"})
    only = read_manifest(source, columns={"audio": "clip name", "text": "-"})
    assert [row.text for row in only] == [None, None]


def test_absent_values(root: Path) -> None:
    written(root / "m.jsonl", '{"audio": "a.wav", "text": NaN, "speaker": NaN, "lang": null, "split": ""}\n')
    (row,) = read_manifest(root / "m.jsonl")
    assert (row.text, row.speaker, row.lang, row.split) == (None, "", "en", "train")
    written(root / "m.csv", "path,sentence,client_id,age\na.wav,,nan,\nb.wav,yes,,NaN\n")
    first, second = read_manifest(root / "m.csv")
    for name, text in (
        ("t.csv", "path,start,end,text\na.wav,nan,0.5,x\n"),
        ("t.jsonl", '{"audio": "a.wav", "start": NaN}\n'),
    ):
        with pytest.raises(InputError, match="offset is nan|starts at nan"):
            read_manifest(written(root / name, text))
    assert first.text is None and first.speaker == "" and second.text == "yes" and second.extras == {}


# -- fields between marks -----------------------------------------------------------------------------------------


def test_common_voice(root: Path) -> None:
    head = (
        "client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
    )
    lines = f'x1\ta.wav\ts1\t{FIRST}\tgeneral\t2\t0\t\t\t\tde\nx2\tb.wav\ts2\t{SECOND}\t\t2\t0\tteens\t\t"odd\tde\n'
    for name in ("a", "b"):
        (root / f"{name}.wav").unlink()
    with pytest.raises(InputError, match="'a.wav' fits .*wavs/a.wav and .*clips/a.wav"):
        read_manifest(written(root / "train.tsv", head + lines))
    shutil.rmtree(root / "wavs")
    rows = check(written(root / "train.tsv", head + lines), speakers=("x1", "x2"), lang="de")
    assert rows[0].audio == root / "clips/a.wav" and rows[1].extras["accents"] == '"odd'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "a|{0}|{0}\nb|{1}|{1}\n"),
        ("metadata.csv", "a|maria says the chair red is here|{0}\nb|where did they clean it!|{1}\n"),
        ("metadata.csv", "a|{0}\nb|{1}\n"),
        ("metadata.csv", "audio_file|text|speaker_name\nwavs/a.wav|{0}|p\nwavs/b.wav|{1}|q\n"),
        ("metadata.csv", "audio_file|text|speaker_name|emotion_name\nwavs/a.wav|{0}|p|joy\nwavs/b.wav|{1}|q|\n"),
        ("metadata.csv", "\ufeffspeaker_name|text|audio_file\r\np|{0}|wavs/a.wav\r\nq|{1}|wavs/b.wav\r\n"),
        ("list.tsv", "wavs/a.wav\t{0}\t0.5\nwavs/b.wav\t{1}\t0.5\n"),
        ("list.txt", "wavs/a.wav\t0.50\t{0}\nwavs/b.wav\t1\t{1}\n"),
        ("list.txt", "a {0}\nb {1}\n"),
        ("m.csv", 'wav_filename,wav_filesize,transcript\na.wav,12,"{0}"\nb.wav,13,{1}\n'),
        ("m.csv", 'sentence;path\n{0};a.wav\n"{1}";b.wav\n'),
        ("m.csv", "file\ttext\na.wav\t{0}\nb.wav\t{1}\n"),
        ("m.csv", 'path,start,end,sentence\nab.wav,0,0.5,"{0}"\nab.wav,0.5,1.0,{1}\n'),
    ],
)
def test_ljspeech_and_its_descendants(name: str, text: str, root: Path) -> None:
    source = written(root / name, text.format(FIRST, SECOND))
    speakers = ("p", "q") if "speaker_name" in text else ("", "")
    rows = check(source, speakers=speakers)
    out = root / "out" / "m.jsonl"
    works("manifest", source, "-o", out)
    check(out, speakers=speakers)
    if "start" not in text:
        report = write_manifest(root / "wavs", source, out, ManifestOptions(test_share=0))
        assert report.rows == 2 and not report.without_recording
        check(out, speakers=speakers)
    assert all(row.id for row in rows)


@pytest.mark.parametrize(
    "text",
    [
        f"a.wav|speaker_one|{FIRST}\nb.wav|speaker_one|{SECOND}\n",
        f"a.wav|{FIRST}|speaker_one\nb.wav|{SECOND}|speaker_one\n",
        f"a.wav|7|{FIRST}\nb.wav|8|{SECOND}\n",
        f"a.wav|{FIRST}|{SECOND}|x\nb.wav|{SECOND}|{FIRST}|y\n",
        "a.wav|0.5\nb.wav|0.6\n",
        "a.wav|12\nb.wav|13\n",
    ],
)
def test_tables_without_a_header_are_not_guessed(text: str, root: Path) -> None:
    source = written(root / "list.txt", text)
    refused("manifest", root / "wavs", source, "-o", root / "m.jsonl", saying=(source, "--columns audio=1 text=2"))
    refused("manifest", source, "-o", root / "m.jsonl", saying=(source, "column", "--columns"))
    assert not (root / "m.jsonl").exists()


def test_tables_without_a_header_by_number(root: Path) -> None:
    source = written(root / "list.txt", f"a.wav|p|{FIRST}\nb.wav|q|{SECOND}\n")
    works("manifest", source, "-o", root / "m.jsonl", "--columns", "audio=1", "speaker=2", "text=3")
    check(root / "m.jsonl", speakers=("p", "q"))


def test_rows_of_other_lengths_are_refused(root: Path) -> None:
    for name, text, where in (
        ("a.csv", f"path,sentence\na.wav,{FIRST}\n", ":2"),
        ("b.csv", "path,sentence\na.wav\n", ":2"),
        ("c.txt", "a.wav|x|y|z\nb.wav|x|y\n", ":2"),
        ("d.csv", 'path,sentence\na.wav,"never closed\n', ":"),
        ("e.csv", "path,path,text\na.wav,b.wav,x\n", ":1"),
    ):
        with pytest.raises(InputError, match=f"{name}{where}"):
            read_manifest(written(root / name, text))


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFC")])
def test_names_meet_however_accents_are_composed(on_disk: str, in_table: str, root: Path) -> None:
    folder = root / "names"
    folder.mkdir()
    for name, hertz in (("grün", 200), ("añejo 音", 400)):
        soundfile.write(folder / f"{unicodedata.normalize(on_disk, name)}.wav", tone(hertz), RATE)
    names = [unicodedata.normalize(in_table, name) for name in ("grün", "añejo 音")]
    lines = written(root / "lines.txt", f"{names[0]}\t{FIRST}\n{names[1]}\t{SECOND}\n")
    report = write_manifest(folder, lines, root / "m.jsonl")
    assert report.rows == 2 and not report.without_recording and not report.without_transcript
    check(root / "m.jsonl")
    check(json_lines(folder / "m.jsonl", *(
        {"audio": f"{name}.wav", "text": said} for name, said in zip(names, (FIRST, SECOND))
    )))  # fmt: skip
    ids = [{"id": unicodedata.normalize(form, "é"), "text": "x"} for form in ("NFC", "NFD")]
    with pytest.raises(InputError, match=":2: id 'é' stands in line 1"):
        read_manifest(json_lines(root / "ids.jsonl", *ids))


# -- Kaldi --------------------------------------------------------------------------------------------------------


def kaldi(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        written(folder / name.replace("wav_scp", "wav.scp"), text)
    return folder


def test_kaldi(root: Path) -> None:
    plain = {
        "text": f"u1 {FIRST}\nu2 {SECOND}\n",
        "utt2spk": "u1 p\nu2 q\n",
        "utt2lang": "u1 de\nu2 de\n",
        "spk2gender": "p f\nq m\n",
    }
    whole = kaldi(root / "k1", wav_scp="u1 ../a.wav\nu2 flac -c -d -s ../b.wav |\n", **plain)
    rows = check(whole, speakers=("p", "q"), lang="de")
    assert [row.id for row in rows] == ["u1", "u2"]
    check(whole / "wav.scp", speakers=("p", "q"), lang="de")
    segments = kaldi(root / "k2", wav_scp="r ../ab.wav\n", segments="u1 r 0.0 0.5\nu2 r 0.5 -1\n", **plain)
    assert check(segments, speakers=("p", "q"), lang="de")[0].seconds == 0.5
    works("manifest", segments, "-o", root / "m.jsonl")
    check(root / "m.jsonl", speakers=("p", "q"), lang="de")
    only = kaldi(root / "k3", text=plain["text"], utt2spk=plain["utt2spk"])
    assert [row.audio for row in read_manifest(only)] == [None, None]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"wav_scp": "u1 sph2pipe -f wav -c 2 ../a.sph |\n"}, ("wav.scp:1", "command")),
        ({"wav_scp": "u1 sox ../a.wav -t wav - | rm -rf x |\n"}, ("wav.scp:1", "command")),
        ({"wav_scp": "u1 flac -c -d ../a.wav --skip=100 |\n"}, ("wav.scp:1", "command")),
        ({"wav_scp": "u1 data/wav.ark:1234\n"}, ("wav.scp:1", "archive")),
        ({"wav_scp": "u1 ../a.wav\n", "text": "u1 x\nu9 y\n"}, ("text:2", "'u9'")),
        ({"wav_scp": "u1 ../a.wav\n", "segments": "s u7 0 1\n"}, ("segments:1", "'u7'")),
        ({"wav_scp": "u1 ../a.wav\n", "reco2file_and_channel": "u1 f B\n"}, ("reco2file_and_channel:1", "channel")),
    ],
)
def test_kaldi_that_is_not_read(files: dict[str, str], named: tuple[str, ...], root: Path) -> None:
    tokenizers().save(root / "t")
    refused("prepare", kaldi(root / "k", **files), root / "out", "--tokenizers", root / "t", saying=named)


# -- Lhotse -------------------------------------------------------------------------------------------------------


def lhotse_recording(name: str, path: str, **changes: Any) -> dict[str, Any]:
    source = {"type": "file", "channels": [0], "source": path}
    return {"id": name, "sources": [source], "sampling_rate": RATE, "num_samples": 8000, "duration": 0.5, **changes}


def lhotse_supervision(name: str, recording: str, start: float, text: str, speaker: str) -> dict[str, Any]:
    word = text.split()[0]
    return {
        "id": name, "recording_id": recording, "start": start, "duration": 0.5, "channel": 0, "text": text,
        "language": "de", "speaker": speaker, "alignment": {"word": [[word, start + 0.1, 0.2, 1.0]]},
    }  # fmt: skip


def lhotse_cut(name: str, recording: dict[str, Any], start: float, *supervisions: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name, "start": start, "duration": 0.5, "channel": 0, "supervisions": list(supervisions),
        "recording": recording, "type": "MonoCut",
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_lhotse(suffix: str, root: Path) -> None:
    both = lhotse_recording("r", "ab.wav", duration=1.0, num_samples=16000)
    first, second = lhotse_supervision("s1", "r", 0.0, FIRST, "p"), lhotse_supervision("s2", "r", 0.5, SECOND, "q")
    late = {**second, "start": 0.0, "alignment": {}}
    for name, rows in {
        "one": [{**lhotse_cut("c", both, 0.0, first, second), "duration": 1.0}],
        "two": [lhotse_cut("c1", both, 0.0, first), lhotse_cut("c2", both, 0.5, late)],
    }.items():
        check(json_lines(root / f"cuts_{name}{suffix}", *rows), speakers=("p", "q"), lang="de")
    json_lines(root / f"x_recordings_train{suffix}", both)
    json_lines(root / f"x_supervisions_train{suffix}", first, second)
    for half in ("recordings", "supervisions"):
        rows_ = check(root / f"x_{half}_train{suffix}", speakers=("p", "q"), lang="de")
        assert [word[1:] for row in rows_ for word in row.words] == [pytest.approx((0.1, 0.3))] * 2


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "MixedCut"}, "type is 'MixedCut'"),
        ({"recording": None}, "no 'recording'"),
        ({"recording": lhotse_recording("r", "a.wav", transforms=[{"name": "Speed"}])}, "'transforms'"),
        ({"recording": lhotse_recording("r", "a.wav", sources=[{"type": "url", "source": "x"}])}, "'url'"),
        (
            {
                "recording": lhotse_recording(
                    "r", "a", sources=[{"type": "file", "channels": [0, 1], "source": "a.wav"}]
                )
            },
            "'channels'",
        ),
    ],
)
def test_lhotse_that_is_not_read(change: dict[str, Any], named: str, root: Path) -> None:
    cut = lhotse_cut("c", lhotse_recording("r", "a.wav"), 0.0, lhotse_supervision("s", "r", 0.0, FIRST, "p"))
    source = json_lines(root / "cuts.jsonl", {**cut, **change})
    with pytest.raises(InputError, match=f"cuts.jsonl:1.*{named}"):
        read_manifest(source)
    alone = json_lines(root / "only_supervisions.jsonl", lhotse_supervision("s", "r", 0.0, FIRST, "p"))
    with pytest.raises(InputError, match="'recording_id'"):
        read_manifest(alone)


# -- Arrow --------------------------------------------------------------------------------------------------------


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
    small = ("--clusters", 4, "--encoder-steps", 2, "--codec-steps", 0, "--text-pieces", 300)
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
