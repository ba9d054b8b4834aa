"""`unitok fit-tokenizers --unit-bpe` and `--invariant`: the command, and the folder that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.command import refused, unitok, works, write_rows
from tests.support.tiny_model import RATE, speech
from unitok_tokenizers.audio.io import read_audio, write_audio
from unitok_tokenizers.data.shards import Shards
from unitok_tokenizers.semantic.kmeans_units import UnitTokenizer, expand
from unitok_tokenizers.tokenizer_set import TokenizerSet

SMALL = ("--encoder", "mfcc", "--clusters", "8")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spoken")
    for index in range(4):
        write_audio(folder / f"{index}.wav", speech(0.9, seed=index), RATE)
    row = {"text": "one two three", "lang": "en", "speaker": "eva", "split": "train"}
    return write_rows(folder / "m.jsonl", [{**row, "id": f"r{i}", "audio": f"{i}.wav"} for i in range(4)])


def units_of(folder: Path) -> UnitTokenizer:
    found = TokenizerSet.load(folder).unit_tokenizer
    assert isinstance(found, UnitTokenizer)
    return found


def test_units_are_merged_and_come_back(manifest: Path, tmp_path: Path) -> None:
    ended = unitok("fit-tokenizers", manifest, tmp_path / "t", *SMALL, "--unit-bpe", 20)
    assert ended.code == 0 and "without runs" in ended.err, ended
    (info,) = [one for one in json.loads(ended.out) if one["name"] == "units"]
    assert info["merged_from"] == 8 < info["cardinalities"][0] <= 20
    works("prepare", manifest, tmp_path / "s", "--tokenizers", tmp_path / "t", "--keep-silence", "--joined-share", "0")
    units, shards = units_of(tmp_path / "t"), Shards.open(tmp_path / "s")
    for index in range(4):
        frames = expand(units.expanded(shards.cell("units", index)), shards.cell("units_unit_durations", index))
        assert np.array_equal(frames, units.encode(read_audio(manifest.parent / f"{index}.wav", sample_rate=RATE)))
    rates = json.loads(works("inspect", tmp_path / "s"))["tokens_per_second"]["units"]
    assert rates["frames"] > rates["units"] > rates["ids"] > 0
    refused("fit-tokenizers", manifest, tmp_path / "u", *SMALL, "--unit-bpe", 8, saying=("--unit-bpe is 8", "than 8"))


def test_a_step_towards_invariance_is_kept(manifest: Path, tmp_path: Path) -> None:
    works("fit-tokenizers", manifest, tmp_path / "plain", *SMALL)
    works("fit-tokenizers", manifest, tmp_path / "t", *SMALL, "--invariant", 1)
    plain, found = units_of(tmp_path / "plain"), units_of(tmp_path / "t")
    assert torch.equal(found.centroids, plain.centroids) and found.fingerprint != plain.fingerprint
    assert plain.correction is None and found.correction is not None
    assert bool(found.correction.last.weight.any()), "it has moved away from the identity"
    assert found.encode(speech(0.5)).shape == plain.encode(speech(0.5)).shape
    refused("fit-tokenizers", manifest, tmp_path / "u", *SMALL, "--invariant", -1, saying="--invariant is -1")
