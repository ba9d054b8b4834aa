"""Start tests' scripts in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def torchrun(arguments: Sequence[str], processes: int) -> subprocess.CompletedProcess[str]:
    """A script, or `-m` and a module, with its arguments in so many processes of one thread each."""
    paths = [str(ROOT), *(str(ROOT / folder) for folder in ("tokenizers", "training", "vocoder"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)
