"""Tables of other tools: text, audio, speaker and language of every row, or a refusal that names the column.

Each layout is written as its tool writes it; the recordings are two tones that can be told apart.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.support.command import refused, works
from tests.support.tables import check, json_lines, recordings, tone, written
from tests.support.tiny_model import RATE, tokenizers
from unitok_tokenizers.data.manifest import read_manifest
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.data.transcripts import ManifestOptions, write_manifest
from unitok_tokenizers.errors import InputError

FIRST, SECOND = "Maria says: the chair, red, is here", "where did they clean it"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return recordings(tmp_path)


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
    source = written(root / "list.txt", f"a.wav|{FIRST}|1\nb.wav|{SECOND}|2\n")  # a cell that is one of the numbers
    works("manifest", source, "-o", root / "m.jsonl", "--columns", "audio=1", "text=2", "speaker=3")
    check(root / "m.jsonl", speakers=("1", "2"))
    source = written(root / "list.csv", "a.wav,stop\nb.wav,start\n")  # a text that is a column's name elsewhere
    works("manifest", source, "-o", root / "m.jsonl", "--columns", "audio=1", "text=2")
    assert [row.text for row in read_manifest(root / "m.jsonl")] == ["stop", "start"]
    headed = written(root / "list.tsv", "path\tgesprochen\na.wav\teins\n")
    with pytest.raises(InputError, match="there is no column '1'"):
        read_manifest(headed, columns={"audio": "1", "text": "2"})
    source = written(root / "list.csv", "0,1\na.wav,one\nb.wav,two\n")  # as pandas calls nameless columns
    works("manifest", source, "-o", root / "m.jsonl", "--columns", "audio=0", "text=1")
    assert [row.text for row in read_manifest(root / "m.jsonl")] == ["one", "two"]


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


@pytest.mark.parametrize(
    ("times", "column"),
    [
        ({"start_ms": 0, "end_ms": 200}, "start_ms"),
        ({"segment_start": 0.1}, "segment_start"),
        ({"start_sample": "800"}, "start_sample"),
        ({"onset": 0.1, "dur_ms": 20}, "onset"),
        ({"start": 0.1, "duration_ms": 200}, "duration_ms"),
    ],
)
def test_a_part_of_a_recording_is_not_taken_for_all_of_it(root: Path, times: dict[str, Any], column: str) -> None:
    row = {"audio": "a.wav", "text": "good morning", **times}
    with pytest.raises(InputError, match=f"'{column}' seems to tell.*--columns offset="):
        read_manifest(json_lines(root / "t.jsonl", row))
    chosen = {"offset": "start"} if "start" in times else {"offset": "-"}
    assert read_manifest(json_lines(root / "t.jsonl", row), columns=chosen)[0].text == "good morning"
    told = {"audio": "a.wav", "text": "good morning", "start": 0.1, "end": 0.3, "start_sample": 1600, "fold": 3}
    (known,) = read_manifest(json_lines(root / "k.jsonl", told))
    assert (known.offset, known.seconds) == (0.1, pytest.approx(0.2)) and known.extras["start_sample"] == 1600


def test_an_utterance_of_kaldi_stands_once(root: Path) -> None:
    written(root / "k/wav.scp", f"u1 {root / 'a.wav'}\n")
    written(root / "k/text", "u1 good morning\nu1 good evening\n")
    with pytest.raises(InputError, match="text:2: 'u1' stands there already"):
        read_manifest(root / "k")


@pytest.mark.parametrize("mark", ["\t", "|"])
def test_quotes_that_pandas_doubles_are_taken_off(mark: str, root: Path) -> None:
    written_by_pandas = (
        f'path{mark}sentence\na.wav{mark}"He said ""hello"" to me"\nb.wav{mark}where did they clean it\n'
    )
    found = read_manifest(written(root / "q.csv", written_by_pandas))
    assert [row.text for row in found] == ['He said "hello" to me', SECOND]
    plain = f'path{mark}sentence\na.wav{mark}"hello" is what he said\nb.wav{mark}"all of it"\n'
    assert [row.text for row in read_manifest(written(root / "p.csv", plain))] == [
        '"hello" is what he said', '"all of it"'
    ]  # fmt: skip
    both = written_by_pandas + f'ab.wav{mark}"hello" is what he said\n'
    with pytest.raises(InputError, match="b.csv:4.*in one way"):
        read_manifest(written(root / "b.csv", both))


def test_a_further_channel_of_a_segment_is_refused(root: Path) -> None:
    files = {"wav_scp": "r ../ab.wav\n", "text": f"u1 {FIRST}\nu2 {SECOND}\n"}
    for first in ("0", "A"):
        assert (
            len(read_manifest(kaldi(root / first, segments=f"u1 r 0.0 0.5 {first}\nu2 r 0.5 1.0 {first}\n", **files)))
            == 2
        )
    with pytest.raises(InputError, match="segments:2.*channel '1'; split the channels first"):
        read_manifest(kaldi(root / "k", segments="u1 r 0.0 0.5 0\nu2 r 0.5 1.0 1\n", **files))


@pytest.mark.parametrize(
    "value",
    [
        {"start": "abc"}, {"recording": {"id": "r", "sources": ["a.wav"], "sampling_rate": RATE}},
        {"recording": {"id": "r", "sources": [{"type": "file"}], "sampling_rate": RATE}},
    ],
)  # fmt: skip
def test_cuts_of_a_wrong_shape_are_one_message(value: dict[str, Any], root: Path) -> None:
    cut = lhotse_cut("c", lhotse_recording("r", "a.wav"), 0.0, lhotse_supervision("s", "r", 0.0, FIRST, "p"))
    with pytest.raises(InputError, match=r"c\.jsonl:1"):
        read_manifest(json_lines(root / "c.jsonl", {**cut, **value}))
    nameless = {"sources": [{"type": "file", "source": "a.wav", "channels": [0]}], "sampling_rate": RATE}
    with pytest.raises(InputError, match="without 'id'"):
        read_manifest(json_lines(root / "recordings.jsonl", nameless))


def test_texts_are_read_as_they_are_asked_later(root: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "le café est là")
    rows = [{"audio": "a.wav", "text": f" {decomposed}\n", "words": [[unicodedata.normalize("NFD", "café"), 0, 0.2]]},
            *({"audio": "b.wav", "text": empty} for empty in ("   ", "\n", "\u200b"))]  # fmt: skip
    found = read_manifest(json_lines(root / "m.jsonl", *rows))
    assert found[0].text == "le café est là" and found[0].words[0][0] == "café"
    assert [row.text for row in found[1:]] == [None] * 3, "there is nothing to see"


def test_a_damaged_table_is_one_message(root: Path) -> None:
    import gzip

    path = json_lines(root / "m.jsonl", {"audio": "a.wav", "text": FIRST})
    content = bytearray(gzip.compress(path.read_bytes() * 50))
    content[20:40] = b"\xff" * 20
    (root / "d.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"d\.jsonl\.gz"):
        read_manifest(root / "d.jsonl.gz")
