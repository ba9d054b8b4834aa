"""What is computed on, and in which precision: one place chooses, and nothing uses bfloat16 where it says float32."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitok_tokenizers import compute
from unitok_tokenizers.compute import changes, native_bfloat16, processor_name, resolve, resolve_device
from unitok_tokenizers.errors import InputError
from unitok_tokenizers.heap import huge_pages

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


@pytest.mark.parametrize(("units", "precision"), [("amx_bf16", "bf16"), ("none", "fp32"), (None, "fp32")])
def test_the_machine_decides(monkeypatch: pytest.MonkeyPatch, units: str | None, precision: str) -> None:
    monkeypatch.delenv("UNITOK_PRECISION", raising=False)
    monkeypatch.setattr(compute, "bf16_units", lambda: units)
    assert native_bfloat16(CPU) == (precision == "bf16")
    assert resolve("cpu").precision == precision


def test_what_was_asked_for_goes_before_the_variable_and_the_variable_before_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compute, "bf16_units", lambda: "none")
    monkeypatch.setenv("UNITOK_PRECISION", "bf16")
    assert resolve("cpu").precision == "bf16" and resolve("cpu", "fp32").precision == "fp32"
    monkeypatch.setenv("UNITOK_PRECISION", "auto")
    assert resolve("cpu").precision == "fp32"
    monkeypatch.setenv("UNITOK_PRECISION", "half")
    with pytest.raises(InputError, match="UNITOK_PRECISION is 'half'.*fp32"):
        resolve("cpu")


def test_types_follow_from_the_precision() -> None:
    plain, half, pure = (resolve("cpu", name) for name in ("fp32", "bf16", "bf16-pure"))
    assert (plain.products, plain.weights) == (torch.float32, torch.float32)
    assert (half.products, half.weights) == (torch.bfloat16, torch.float32)
    assert (pure.products, pure.weights) == (torch.bfloat16, torch.bfloat16)
    with plain.mixed():
        assert not torch.is_autocast_enabled("cpu")
    with half.mixed():
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "meta", ""])
def test_a_device_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cuda:N"):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused_and_auto_takes_the_processor() -> None:
    with pytest.raises(InputError, match="no GPU"):
        resolve_device("cuda:1")
    assert resolve_device(None) == resolve_device("auto") == CPU


def test_records_name_the_processor_and_tell_what_changed(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: fpu avx2\n", encoding="utf-8")
    assert processor_name(str(tmp_path / "cpuinfo")) == "Some CPU, bfloat16 units none"
    before, after = resolve("cpu", "bf16", threads=2).to_json(), resolve("cpu", "fp32", threads=2).to_json()
    assert changes(before, after) == ["precision was bf16 and is fp32"]
    assert changes(before, before) == [] == changes({}, after)


def test_no_other_file_chooses() -> None:
    """`torch.autocast`, `.bfloat16()` and `.half()` stand in compute alone, but where autocast is turned off."""
    found = []
    for folder in ("unitok", "tokenizers", "vocoder", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    off = [one for one in node.keywords if one.arg == "enabled" and ast.unparse(one.value) == "False"]
                    chooses = node.func.attr == "autocast" and _is_torch(node.func.value) and not off
                    found += [path.name] if chooses or node.func.attr in ("bfloat16", "half") else []
    assert set(found) == {"compute.py"}


def _is_torch(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "torch"


def test_what_is_free_is_given_back_wherever_it_lies() -> None:
    """Blocks that are too small to be mapped by themselves, every other one of which is freed."""
    code = """
import re
from unitok_tokenizers.heap import give_back
def private():
    return int(re.search(r"Anonymous:\\s+(\\d+)", open("/proc/self/smaps_rollup").read())[1]) / 1000
blocks = [bytearray(100_000) for _ in range(800)]
del blocks[::2]
before = private()
print(give_back(), before - private())
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert told[0] == str(platform.libc_ver()[0] == "glibc")
    assert told[0] == "False" or float(told[1]) > 20, "of 40 MB"


def test_huge_pages_are_asked_for_once_and_where_glibc_reads_it() -> None:
    found = huge_pages({})
    if platform.libc_ver()[0] != "glibc":
        assert not found
        return
    assert found == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert not huge_pages({"GLIBC_TUNABLES": "glibc.malloc.check=0"}), "what a user has set stays"
    # glibc before 2.35 does not know it, and goes on as before.
    told = subprocess.run(
        [sys.executable, "-c", "print(1)"], env={**os.environ, **found}, capture_output=True, text=True, check=True
    )
    assert (told.stdout.strip(), told.stderr) == ("1", "")
