"""Fitting and preparing hold a bounded part of the recordings, and give what holding all of them gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.tiny_model import RATE, speech, tokenizers
from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.data import prepare, tokenizing
from unitok_tokenizers.data.manifest import Row
from unitok_tokenizers.data.shards import Shards
from unitok_training.fitting import ctc, spool
from unitok_training.fitting import tokenizers as fitting
from unitok_training.fitting.ctc import CtcConfig, train_ctc
from unitok_training.fitting.spool import FrameSpool


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    folder, found = tmp_path_factory.mktemp("rows"), []
    for number in range(12):
        write_audio(folder / f"{number}.wav", speech(0.5 + 0.1 * (number % 4), seed=number), RATE)
        found.append(Row(id=str(number), group=str(number), lang="en", speaker="anna", text="we buy two books",
                         audio=folder / f"{number}.wav"))  # fmt: skip
    return found


@pytest.mark.parametrize("held", [0, 2000, 10**9])
def test_frames_come_back_bit_for_bit_and_few_are_in_memory(held: int) -> None:
    random = torch.Generator().manual_seed(0)
    frames = [torch.randn(size, 5, generator=random) for size in (3, 40, 7, 0, 60)]
    found = FrameSpool(held_bytes=held)
    for one in frames:
        found.append(one)
    assert len(found) == 5 and found.lengths() == [3, 40, 7, 0, 60]
    assert all(torch.equal(one, other) for one, other in zip(found, frames, strict=True))
    assert torch.equal(found[-1], frames[-1]) and len(found[1:3]) == 2
    assert sum(4 * one.numel() for one in found._held) <= held


def test_a_recognizer_learns_the_same_from_the_disk_as_from_memory(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def learned() -> dict[str, torch.Tensor]:
        config = CtcConfig(steps=3, width=16, blocks=1, batch_frames=300)
        return train_ctc(fitting.RowAudio(rows), [row.text or "" for row in rows], config).state_dict()

    wanted = learned()
    made: list[FrameSpool] = []

    def small() -> FrameSpool:
        made.append(spool.FrameSpool(held_bytes=5000))
        return made[-1]

    monkeypatch.setattr(ctc, "FrameSpool", small)
    found = learned()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert made[0]._end > 5000, "most of it was on the disk"


def test_a_part_of_long_recordings_is_tokenized_in_several_goes(
    rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare.prepare_shards(rows, tokenizers(), tmp_path / "whole")
    sizes: list[int] = []
    columns = tokenizing._columns

    def counted(part: list[Row], *rest: object) -> object:
        sizes.append(len(part))
        return columns(part, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(tokenizing, "HELD_SECONDS", 1.5)
    monkeypatch.setattr(tokenizing, "_columns", counted)
    few = prepare.prepare_shards(rows, tokenizers(), tmp_path / "few")
    assert sum(sizes) == len(rows) and max(sizes) <= 3
    assert [few.row(index) for index in range(len(few))] == [whole.row(index) for index in range(len(whole))]
    assert len(Shards.open(tmp_path / "few", check=True)) == len(rows)


def test_what_is_clustered_and_learned_from_is_bounded_in_seconds(
    rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them = fitting.some_recorded(rows, 10, 0)
    assert len(all_of_them) == 10
    monkeypatch.setattr(fitting, "HELD_SECONDS", 2.0)
    some = fitting.some_recorded(rows, 10, 0)
    assert 0 < sum(row.length() for row in some) <= 2.0 and {row.id for row in some} <= {row.id for row in all_of_them}
    monkeypatch.setattr(fitting, "HELD_SECONDS", 0.1)
    assert len(fitting.some_recorded(rows, 10, 0)) == 1, "never nothing at all"


def test_a_full_disk_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    found = FrameSpool(held_bytes=0)
    monkeypatch.setattr(spool.os, "write", full)
    with pytest.raises(Exception, match="cannot write .*unitok-frames"):
        found.append(torch.zeros(3, 3))
