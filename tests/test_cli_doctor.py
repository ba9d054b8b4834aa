"""What `unitok doctor` says of this machine, and of others."""

from __future__ import annotations

import json
import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unitok.cli.commands.doctor import PACKAGES, advice, examine, installed, lines
from unitok.cli.main import main
from unitok_tokenizers.compute import bf16_units

ROOT = Path(__file__).resolve().parents[1]
GPU = {"name": "X", "capability": "9.0", "free_bytes": 1 << 30, "total_bytes": 1 << 31, "bf16_units": True}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return examine()


def test_the_report_names_what_is_installed_and_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for part in (torch.__version__, np.__version__, "attention on cpu", "split_attention", "GiB", "GPU", "threads"):
        assert part in printed
    assert max(map(len, printed.splitlines())) < 160


def test_json_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["packages"]["numpy"] == np.__version__ and told["threads"]["used"] == torch.get_num_threads()
    assert bool(told["gpus"]) == torch.cuda.is_available() == ("cuda" in told["attention"])
    memory = told["memory"]
    assert memory["free_bytes"] is None or 0 < memory["free_bytes"] < memory["total_bytes"]


def test_an_absent_package_is_named_with_its_extra(found: dict[str, Any]) -> None:
    assert installed("no-such-distribution") is None
    other = deepcopy(found)
    other["packages"]["jiwer"] = None
    assert any("jiwer" in line and "unitok[eval]" in line for line in lines(other))


def test_every_extra_that_is_named_brings_its_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}
    for name, extra in PACKAGES.items():
        assert name in {re.split(r"[<>=;\[ ]", wanted)[0] for wanted in extras[extra]}, name


def test_advice_fits_the_machine(found: dict[str, Any]) -> None:
    slow = deepcopy(found) | {"gpus": [], "driver": False, "bf16_units": "none", "compiler": False}
    slow["threads"] = {"used": 1, "available": 4, "OMP_NUM_THREADS": "1"}
    told = " ".join(advice(slow))
    for part in ("no GPU", "OMP_NUM_THREADS=4", "no C++ compiler"):
        assert part in told
    assert "CUDA build" in advice(slow | {"driver": True, "torch_cuda": None})[0]
    assert "sees no GPU" in advice(slow | {"driver": True, "torch_cuda": "13.0"})[0]
    fast = slow | {"gpus": [GPU], "driver": True, "torch_cuda": "13.0", "packages": dict.fromkeys(PACKAGES, "1.0")}
    assert advice(fast) == []
    assert "flash" in advice(fast | {"packages": dict.fromkeys(PACKAGES)})[0]
    assert any("GPU" in line and "1.0 GiB of 2.0 GiB" in line for line in lines(fast | {"faster": []}))


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n", "amx_bf16"),
        ("flags\t\t: fpu avx2\n", "none"),
        ("Features\t: fp asimd bf16\n", "bf16"),
        ("processor : 0\n", None),
    ],
)
def test_bfloat16_units_are_read_from_the_processor_s_flags(tmp_path: Path, text: str, units: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert bf16_units(str(tmp_path / "cpuinfo")) == units
    assert bf16_units(str(tmp_path / "nothing")) is None
