"""Recordings of one tone each, tables that name them, and the check that every row has the right one."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.support.tiny_model import RATE
from unitok_tokenizers.data.manifest import Row, read_manifest

FIRST, SECOND = "Maria says: the chair, red, is here", "where did they clean it"


def tone(hertz: float, seconds: float = 0.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def pitch(samples: np.ndarray) -> float:
    """The loudest frequency in Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples))


def recordings(tmp_path: Path) -> Path:
    """`a` of 200 Hz and `b` of 400 Hz, beside the table, in `wavs`, in `clips`; and one after the other in `ab`."""
    for place in (".", "wavs", "clips"):
        (tmp_path / place).mkdir(exist_ok=True)
        for name, hertz in (("a", 200), ("b", 400)):
            soundfile.write(tmp_path / place / f"{name}.wav", tone(hertz), RATE)
    soundfile.write(tmp_path / "clips" / "c.mp3", tone(400), RATE)
    soundfile.write(tmp_path / "ab.wav", np.concatenate([tone(200), tone(400)]), RATE)
    return tmp_path


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def json_lines(path: Path, *rows: dict[str, Any]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
        return path
    return written(path, text)


def check(source: Path, *, speakers: tuple[str, str] = ("", ""), lang: str = "en", **options: Any) -> list[Row]:
    """Two rows, which say the two sentences with the two tones."""
    rows = read_manifest(source, **options)
    assert [row.text for row in rows] == [FIRST, SECOND]
    assert [round(pitch(row.load(RATE)) / 200) for row in rows] == [1, 2]
    assert tuple(row.speaker for row in rows) == speakers and {row.lang for row in rows} == {lang}
    return rows


# -- JSON Lines ---------------------------------------------------------------------------------------------------
