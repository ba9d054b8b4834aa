"""Manifests and shards: what is written is read, damage is named, a repeat continues and changes no byte."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import tiny_model
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.data.manifest import read_manifest, unknown_splits
from unitok_tokenizers.data.prepare import prepare_shards
from unitok_tokenizers.data.shard_checks import validate_shards
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.encoders.mfcc import MfccEncoder
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.files import atomic_directory, ensure_folder, remove_directory, sha256_file
from unitok_tokenizers.grammar.streams import StreamInfo
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, expand
from unitok_tokenizers.text.registry import load_text_tokenizer
from unitok_tokenizers.text.sentencepiece import SentencePieceText
from unitok_tokenizers.tokenizer_set import TokenizerSet

TEXTS = ["the cat sat on the mat", "a dog ran", "der hund lief davon", "the mat is red", "ein roter hut"]


def recording(path: Path, seconds: float, rate: int = 16000, seed: int = 0) -> None:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))
    write_audio(path, samples.astype(np.float32), rate)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for index, text in enumerate(TEXTS):
        rate = (8000, 16000, 22050, 44100, 48000)[index]
        recording(folder / f"{index}.flac", 0.3 + 0.1 * index, rate=rate, seed=index)
        row = {"audio": f"{index}.flac", "text": text, "lang": "de" if "hu" in text else "en", "speaker": "s"}
        lines.append(json.dumps({**row, "split": "test" if index == 4 else "train", "id": f"r{index}"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizers(corpus: Path) -> TokenizerSet:
    recordings = [read_audio(corpus / f"{index}.flac", sample_rate=16000) for index in range(5)]
    units = UnitTokenizer.fit(MfccEncoder(), recordings, 6, seed=0)
    return TokenizerSet.of(SentencePieceText.train(TEXTS, 300), units)


def test_shards_hold_what_the_tokenizers_say(corpus: Path, tokenizers: TokenizerSet, tmp_path: Path) -> None:
    rows = read_manifest(corpus / "manifest.jsonl")
    shards = prepare_shards(rows, tokenizers, tmp_path / "s")
    assert len(shards) == 5 and shards.languages == ["de", "en"] and shards.id.tolist() == [row.id for row in rows]
    assert tokenizers.unit_tokenizer is not None
    units, offsets = shards.ragged("units")
    durations = shards.ragged("units_durations")[0]
    text_ids, text_offsets = shards.ragged("text_ids")
    for index, row in enumerate(rows):
        part = slice(offsets[index], offsets[index + 1])
        assert np.array_equal(expand(units[part], durations[part]), tokenizers.unit_tokenizer.encode(row.load(16000)))
        ids = text_ids[text_offsets[index] : text_offsets[index + 1]]
        assert tokenizers.text.decode(ids.tolist()) == row.text
    assert validate_shards(tmp_path / "s")["rows"] == 5
    flat, lengths = shards.gather("units", np.array([3, 0, 3]))
    wanted = [units[offsets[i] : offsets[i + 1]] for i in (3, 0, 3)]
    assert np.array_equal(flat, np.concatenate(wanted)) and lengths.tolist() == [len(one) for one in wanted]


def test_one_pass_gives_units_and_the_codes_that_carry_them(corpus: Path, tmp_path: Path) -> None:
    bundle = tiny_model.tokenizers()
    assert bundle.carried == {"units": "codes"} and bundle.unit_tokenizer is not None and bundle.codec is not None
    rows = read_manifest(corpus / "manifest.jsonl")
    shards = prepare_shards(rows, bundle, tmp_path / "s")
    units, offsets = shards.ragged("units")
    durations = shards.ragged("units_durations")[0]
    for index, row in enumerate(rows):
        part = slice(offsets[index], offsets[index + 1])
        assert np.array_equal(expand(units[part], durations[part]), bundle.unit_tokenizer.encode(row.load(16000)))
        assert np.array_equal(shards.codes(index), bundle.codec.encode(row.load(16000)))
    other = UnitTokenizer.fit(MfccEncoder(), [row.load(16000) for row in rows], 6, seed=0)
    assert not TokenizerSet.of(bundle.text, other, bundle.codec).carried


def test_datasets_opens_a_part(corpus: Path, tokenizers: TokenizerSet, tmp_path: Path) -> None:
    from datasets import Dataset

    prepare_shards(read_manifest(corpus / "manifest.jsonl"), tokenizers, tmp_path / "s")
    part = Dataset.from_file(str(tmp_path / "s" / "part-00000.arrow"))
    assert part.num_rows == 5 and part[0]["text"] == TEXTS[0]


def test_a_repeat_and_an_interrupted_run_give_the_same_bytes(
    corpus: Path, tokenizers: TokenizerSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitok_tokenizers.data import prepare

    monkeypatch.setattr(prepare, "PART_ROWS", 2)
    rows = read_manifest(corpus / "manifest.jsonl")
    prepare_shards(rows, tokenizers, tmp_path / "whole")

    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        if done == 4:
            raise Killed

    with pytest.raises(Killed):
        prepare_shards(rows, tokenizers, tmp_path / "cut", progress=kill)
    assert not (tmp_path / "cut" / "manifest.json").exists()
    kept = (tmp_path / "cut" / "part-00000.arrow").stat().st_mtime_ns
    prepare_shards(rows, tokenizers, tmp_path / "cut")
    assert (tmp_path / "cut" / "part-00000.arrow").stat().st_mtime_ns == kept
    for file in sorted((tmp_path / "whole").glob("*.arrow")) + [tmp_path / "whole" / "manifest.json"]:
        assert sha256_file(file) == sha256_file(tmp_path / "cut" / file.name), file.name


def test_a_flipped_byte_and_a_missing_file_are_named(corpus: Path, tokenizers: TokenizerSet, tmp_path: Path) -> None:
    prepare_shards(read_manifest(corpus / "manifest.jsonl"), tokenizers, tmp_path / "s")
    part = tmp_path / "s" / "part-00000.arrow"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    with pytest.raises(InputError, match=r"part-00000\.arrow: checksum"):
        validate_shards(tmp_path / "s")
    part.unlink()
    with pytest.raises(InputError, match="missing"):
        Shards.open(tmp_path / "s")


def test_tokens_made_elsewhere_need_a_description_and_no_audio(tokenizers: TokenizerSet, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "a dog ran", "units": [3, 3, 1, 2]}\n{"units": [4, 0]}\n', encoding="utf-8")
    text_only = TokenizerSet.of(tokenizers.text)
    with pytest.raises(InputError, match="describe the stream"):
        prepare_shards(read_manifest(path), text_only, tmp_path / "s")
    info = StreamInfo("units", "units", "elsewhere", Fraction(25), (5,), deduplicated=True)
    shards = prepare_shards(read_manifest(path), text_only, tmp_path / "s", external={"units": info})
    assert shards.ragged("units")[0].tolist() == [3, 1, 2, 4, 0]
    assert shards.ragged("units_durations")[0].tolist() == [2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("{", "m.jsonl:1: not JSON"),
        ("[1]", "m.jsonl:1: a list"),
        ('{"lang": "en"}', "m.jsonl:1: neither audio nor text"),
        ('{"text": "a"}\n{"text": {"b": 1}}', "m.jsonl:2: text"),
        ('{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}', "m.jsonl:2: id 'x'"),
        ('{"text": "a", "offset": -3}', "m.jsonl:1: offset"),
        ('{"text": "a", "words": [["a"]]}', "m.jsonl:1: words"),
        ('{"text": "a", "units": [1, -2]}', "m.jsonl:1: units"),
    ],
)
def test_malformed_manifests_name_file_and_line(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_manifest(path)


def test_tsv_and_odd_splits(tmp_path: Path) -> None:
    path = tmp_path / "m.tsv"
    path.write_text("text\tlang\tsplit\nhallo\tde\ttrian\nhi\ten\ttrain\n", encoding="utf-8")
    rows = read_manifest(path)
    assert [row.text for row in rows] == ["hallo", "hi"] and unknown_splits(rows) == {"trian": 1}
    path.write_text("text\tlang\nhallo\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"m\.tsv:2"):
        read_manifest(path)


def unreadable(kind: str, path: Path) -> None:
    if kind == "text":
        path.write_text("no audio", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no samples":
        write_audio(path, np.zeros(0, dtype=np.float32), 16000)
    elif kind == "nan":
        import soundfile

        soundfile.write(path, np.full(100, np.nan, dtype=np.float32), 16000, subtype="FLOAT", format="WAV")


@pytest.mark.parametrize("kind", ["text", "empty", "no samples", "nan", "absent"])
def test_unusable_audio_is_one_clear_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    unreadable(kind, path)
    with pytest.raises(InputError, match=r"x\.wav"):
        read_audio(path, sample_rate=16000)


def test_stereo_8_bit_and_any_rate_become_mono_at_the_rate_asked(tmp_path: Path) -> None:
    import soundfile

    stereo = np.stack([np.ones(8000), -0.5 * np.ones(8000)], axis=1) * 0.5
    soundfile.write(tmp_path / "s.wav", stereo, 8000, subtype="PCM_U8")
    samples = read_audio(tmp_path / "s.wav", sample_rate=16000)
    assert samples.shape == (16000,) and np.abs(samples[100:-100] - 0.125).max() < 0.02
    part = read_audio(tmp_path / "s.wav", sample_rate=8000, offset=0.25, seconds=0.5)
    assert part.shape == (4000,)


def test_the_rows_of_another_tokenizer_are_refused_by_the_vocabulary(tokenizers: TokenizerSet) -> None:
    vocabulary = tokenizers.vocabulary(["en"])
    other = StreamInfo("units", "units", "other", Fraction(50), (6,), deduplicated=True)
    with pytest.raises(InputError, match="fingerprint is other in the shards"):
        vocabulary.check(other)


@pytest.mark.parametrize(
    "text", ["hello  world", " leading", "trailing ", "naïve 東京 мир 🙂", "<asr> </text>", "a\tb"]
)
def test_text_survives_exactly(text: str, tokenizers: TokenizerSet, tmp_path: Path) -> None:
    ids = tokenizers.text.encode(text)
    assert tokenizers.text.decode(ids) == text and max(ids) < tokenizers.text.size
    tokenizers.text.save(tmp_path / "t")
    again = load_text_tokenizer(tmp_path / "t")
    assert again.encode(text) == ids and again.fingerprint == tokenizers.text.fingerprint


def test_a_failing_block_leaves_the_old_folder(tmp_path: Path) -> None:
    def write(content: str, fail: bool) -> Any:
        with atomic_directory(tmp_path / "d") as draft:
            (draft / "f").write_text(content, encoding="utf-8")
            if fail:
                raise RuntimeError

    write("old", fail=False)
    with pytest.raises(RuntimeError):
        write("new", fail=True)
    assert (tmp_path / "d" / "f").read_text(encoding="utf-8") == "old"
    write("new", fail=False)
    assert (tmp_path / "d" / "f").read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]


def test_a_folder_that_was_about_to_be_replaced_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(content: str) -> None:
        with atomic_directory(tmp_path / "d") as draft:
            (draft / "f").write_text(content, encoding="utf-8")

    write("old")
    rename, calls = os.rename, list[object]()

    def interrupted(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write("new")
    monkeypatch.undo()
    assert (tmp_path / "d" / "f").read_text(encoding="utf-8") == "old"
    (tmp_path / "d").rename(tmp_path / ".d.old")  # as a process leaves it that is killed between the two
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "d"):
        raise RuntimeError
    assert (tmp_path / "d" / "f").read_text(encoding="utf-8") == "old"
    write("new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["d"]
    remove_directory(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_into_where_nothing_can_be_made_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mount/disk").mkdir(parents=True)
    (tmp_path / "mount").chmod(0o500)
    try:
        if os.access(tmp_path / "mount", os.W_OK):
            pytest.skip("this user writes everywhere")
        ensure_folder(tmp_path / "mount/disk")
        with pytest.raises(InputError, match="cannot write"):
            ensure_folder(tmp_path / "mount/other")
    finally:
        (tmp_path / "mount").chmod(0o700)


def test_recordings_are_found_from_any_folder(
    tokenizers: TokenizerSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths start at the shards' folder: the corpus and its shards can be moved together."""
    home = tmp_path / "home"
    (home / "corpus").mkdir(parents=True)
    recording(home / "corpus" / "a.flac", 0.5)
    row = {"audio": "a.flac", "text": "hello", "lang": "en"}
    (home / "corpus" / "m.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    monkeypatch.chdir(home)
    prepare_shards(read_manifest("corpus/m.jsonl"), tokenizers, Path("runs") / "shards")
    monkeypatch.chdir(tmp_path)
    home.rename(tmp_path / "moved")
    shards = Shards.open(tmp_path / "moved" / "runs" / "shards")
    assert shards.row(0)["audio"] == "../../corpus/a.flac" and (shards.folder / shards.row(0)["audio"]).exists()
