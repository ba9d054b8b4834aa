"""The API reference builds, with every warning an error, and holds what users import."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(importlib.util.find_spec("pdoc") is None, reason="pdoc is not installed (extra dev)")


@pytest.mark.slow
def test_the_reference_builds(tmp_path: Path) -> None:
    paths = [str(ROOT / name) for name in (".", "tokenizers", "training", "vocoder")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(ROOT / "docs/api.py"), "--plain", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "unitok/model.html").read_text(encoding="utf-8")
    assert all(f'id="Model.{name}"' in page for name in ("transcribe", "synthesize", "translate", "translate_speech"))
    modules = [path for path in (ROOT / "tokenizers/unitok_tokenizers").glob("*.py") if path.stem != "__init__"]
    missing = [path.stem for path in modules if not (tmp_path / f"unitok_tokenizers/{path.stem}.html").exists()]
    assert missing == []
