"""Tensors that stay in their files: what is read of them, and files that are written from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unitok_tokenizers.errors import InputError
from unitok_tokenizers.stored_tensors import (
    StoredTensor,
    StoredTensors,
    joined,
    open_tensors,
    rows_of,
    shape_of,
    write_stored,
)


def test_rows_of_joined_and_cut_tensors_are_those_of_the_whole(tmp_path: Path) -> None:
    whole = torch.randn(11, 3)
    save_file({"a": whole[:4].clone(), "b": whole[6:].clone(), "step": torch.tensor(7.0)}, tmp_path / "x.safetensors")
    found, note = open_tensors(tmp_path / "x.safetensors")
    assert note == {}
    full = joined([found["a"], StoredTensor.of(whole[4:6]), found["b"]])
    assert full.shape == (11, 3) and full.dtype == torch.float32 and torch.equal(full.whole(), whole)
    for start in range(12):
        for stop in range(start, 12):
            assert torch.equal(full[start:stop], whole[start:stop]), (start, stop)
            cut = full.part(start, stop)
            assert cut.shape == (stop - start, 3) and torch.equal(cut[:], whole[start:stop])
            assert torch.equal(cut.part(0, (stop - start) // 2)[:], whole[start : start + (stop - start) // 2])
    assert found["step"].shape == () and float(found["step"].whole()) == 7.0


def test_a_mapping_of_stored_tensors_reads_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a": torch.randn(8, 2), "b": torch.randn(5)}
    save_file(tensors, tmp_path / "x.safetensors")
    mapping, read, plain = StoredTensors(open_tensors(tmp_path / "x.safetensors")[0]), [], StoredTensor.__getitem__

    def noted(self: StoredTensor, rows: slice) -> torch.Tensor:
        read.append(rows)
        return plain(self, rows)

    monkeypatch.setattr(StoredTensor, "__getitem__", noted)
    for one in (mapping, tensors):
        assert shape_of(one, "a") == (8, 2) and set(one) == {"a", "b"}
        assert read == []
        assert torch.equal(rows_of(one, "a", 3, 5), tensors["a"][3:5])
        assert read == ([slice(3, 5)] if one is mapping else [])
        assert all(torch.equal(value, tensors[name]) for name, value in one.items())
        read.clear()
    (tmp_path / "x.safetensors").unlink()
    assert torch.equal(mapping["a"], tensors["a"]), "what is open can be read"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_from_stored_tensors_is_what_safetensors_writes(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitok_tokenizers.stored_tensors.CHUNK_BYTES", 64)
    tensors = {"b.x": torch.randn(9, 7).to(dtype), "a": torch.randn(3).to(dtype), "none": torch.empty(0, 4).to(dtype)}
    save_file(tensors, tmp_path / "plain.safetensors", metadata={"format": "pt"})
    stored, note = open_tensors(tmp_path / "plain.safetensors")
    write_stored(tmp_path / "again.safetensors", stored, note)
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(tmp_path / "again.safetensors").items())


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights .*none\.safetensors"):
        open_tensors(tmp_path / "none.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(InputError, match=r"short\.safetensors is damaged"):
        open_tensors(tmp_path / "short.safetensors")
