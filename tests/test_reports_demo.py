"""The report is one file that refers to nothing outside itself, and its verdicts are right."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitok_tokenizers.audio.io import write_audio
from unitok_tokenizers.files import write_json
from unitok_training.reports.demo import LINES, ResultRow, judge_line, write_html
from unitok_training.reports.html import png

METRICS: dict[str, Any] = {
    "judge": {"wer": 0.05, "control_noise_wer": 0.99, "control_shuffled_wer": 0.9},
    "asr": {"wer": 0.2, "by_lang": {"en": {"wer": 0.2}}},
    "tts": {"units": {"judge_wer": 0.24}},
    "lm": {"ppl": 6.0, "five_gram_ppl": 7.0},
    "ilm": {"cloze_accuracy": 0.3, "cloze_chance": 0.25},
    "seconds": {"corpus": 20.0, "decoder": 300.5, "total": 400.0},
    "memory": {"peak_bytes": 2_000_000_000, "by_stage": {"corpus": 100_000_000, "decoder": 2_000_000_000}},
    "checkpoint": "ab" * 32,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "examples").mkdir()
    write_json(tmp_path / "metrics.json", METRICS)
    write_json(tmp_path / "pipeline.json", {"manifest": None, "languages": ["en", "de"]})
    tone = np.sin(np.arange(16000, dtype=np.float32) / 8) * 0.3
    write_audio(tmp_path / "examples" / "0.flac", tone, 16000)
    example = {"task": "tts.units", "reference": "<b>one & two", "output": "one", "audio": "0.flac"}
    write_json(tmp_path / "examples" / "examples.json", [example] * 7)
    rows = [{"step": step, "loss_by_task": {"asr": 5.0 / step, "tts.units": 4.0}} for step in (1, 2, 3)]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_the_page_is_self_contained_and_escapes_text(run: Path) -> None:
    page = write_html(run).read_text(encoding="utf-8")
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert "<script" not in page and "<b>one" not in page and "&lt;b&gt;one &amp; two" in page
    assert page.count("<audio") == 5 and page.count("data:image/png") == 5
    assert page.count('class="curve"') == 2


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"asr": {"wer": 0.5}})
    page = write_html(tmp_path).read_text(encoding="utf-8")
    assert "asr.wer" in page and "Loss per task" not in page and "Not measured here" in page


def verdict(key: str) -> bool | None:
    (line,) = [line for line in LINES if line.key == key]
    found = judge_line(line, METRICS)
    return None if found is None else found.met


def test_verdicts_take_their_controls_into_account() -> None:
    assert verdict("tts.units.judge_wer") is True  # 0.24 - 0.05 is within 0.20
    assert verdict("asr.wer") is False
    assert verdict("lm.ppl") is True and verdict("ilm.cloze_accuracy") is True
    assert verdict("judge.control_noise_wer") is True
    assert verdict("mt.bleu") is None
    reported = judge_line(ResultRow(title="t", key="lm.ppl"), METRICS)
    assert reported is not None and reported.met is None


def test_the_png_holds_the_pixels() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    data = png(pixels)
    assert struct.unpack(">II", data[16:24]) == (3, 2)
    length = struct.unpack(">I", data[33:37])[0]
    raw = zlib.decompress(data[41 : 41 + length])
    assert raw == b"".join(b"\0" + row.tobytes() for row in pixels)
