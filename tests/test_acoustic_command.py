"""`unitok fit-tokenizers --codec` and what follows it: another codec than the built-in one, from a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.codecs import mimi_model, tone
from unitok.cli.main import main
from unitok_tokenizers.acoustic.base import AcousticTokenizer
from unitok_tokenizers.acoustic.mimi import MimiCodec
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer
from unitok_tokenizers.tokenizer_set import TokenizerSet
from unitok_training.fitting.tokenizers import FitConfig

RATE = 44100
"""Hz of the recordings: neither the units' nor the codec's."""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = []
    for index in range(6):
        write_audio(tmp_path / f"{index}.wav", tone(RATE, 0.9 + 0.1 * index, seed=index), RATE)
        row = {"id": f"r{index}", "audio": f"{index}.wav", "text": "one two three", "lang": "en", "speaker": "eva"}
        lines.append(json.dumps({**row, "split": "train"}) + "\n")
    path = tmp_path / "m.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_codec_from_a_folder_makes_shards(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mimi_model().save_pretrained(tmp_path / "mimi")
    fit = ["fit-tokenizers", str(manifest), str(tmp_path / "tok"), "--encoder", "mfcc", "--clusters", "8"]
    assert main([*fit, "--codec", f"mimi:{tmp_path}/mimi@3"]) == 0
    streams = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert streams["codes"]["cardinalities"] == [32] * 3 and streams["codes"]["frame_rate"] == "25/2"
    assert streams["units"].get("views") is None, "only the built-in codec carries units"
    prepare = ["prepare", str(manifest), str(tmp_path / "shards"), "--tokenizers", str(tmp_path / "tok")]
    assert main([*prepare, "--keep-silence", "--joined-share", "0"]) == 0
    tokenizers = TokenizerSet.load(tmp_path / "tok")
    codec, units = tokenizers.codec, tokenizers.unit_tokenizer
    assert isinstance(codec, MimiCodec) and isinstance(units, UnitTokenizer)
    shards = Shards.open(tmp_path / "shards")
    for index in range(6):
        path = tmp_path / f"{index}.wav"
        row = shards.row(index)
        codes = codec.encode(read_audio(path, sample_rate=24000))
        assert np.array_equal(np.asarray(row["codes"]).reshape(-1, 3), codes)
        assert len(codes) == -(-(9 + index) * 125 // 100)


def test_channels_without_training(manifest: Path, tmp_path: Path) -> None:
    fit = ["fit-tokenizers", str(manifest), str(tmp_path / "tok"), "--encoder", "mfcc", "--clusters", "8"]
    assert main([*fit, "--codec", "dmel@20"]) == 0
    codec: AcousticTokenizer | None = TokenizerSet.load(tmp_path / "tok").codec
    assert codec is not None and codec.cardinalities == (16,) * 20


def test_what_cannot_be_is_said_before_any_work(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = ["fit-tokenizers", str(manifest), str(tmp_path / "tok")]
    for options, message in (
        (["--codec", f"mimi:{tmp_path}/absent@3"], "there is no"),
        (["--codec", "opus:x"], "unknown kind 'opus'"),
        (["--codec", "dmel", "--codec-steps", "5"], "--codec-steps changes nothing"),
    ):
        assert main([*fit, *options]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "tok").exists()
    with pytest.raises(ValueError, match="is not trained"):
        FitConfig(opened_codec="dmel")
