"""Recordings inside Arrow and Parquet tables, named like files below the table: `train.parquet/audio/17`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO


def embedded_bytes(path: Path | str) -> BinaryIO | None:
    return None
